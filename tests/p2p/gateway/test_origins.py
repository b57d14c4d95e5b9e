from __future__ import annotations

import pytest

from p2p.gateway.origins import is_loopback, objection

OURS = "127.0.0.1:8642"


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        (OURS, None),  # no browser
        ("localhost:8642", None),
        ("[::1]:8642", None),
        ("LOCALHOST.", None),
        (OURS, f"http://{OURS}"),  # our own page
        ("gateway.example", "https://gateway.example"),
        (OURS, "https://chat.example"),
    ],
)
def test_who_is_served(host: str, origin: str | None) -> None:
    assert objection(host, origin, names={"gateway.example"}, origins={"https://chat.example"}) is None


@pytest.mark.parametrize(
    ("host", "origin", "status", "code"),
    [
        ("evil.example:8642", None, 421, "unknown_host"),  # its name points to 127.0.0.1
        ("evil.example:8642", "http://evil.example:8642", 421, "unknown_host"),
        ("localhost.evil.example", None, 421, "unknown_host"),
        ("", None, 421, "unknown_host"),
        (OURS, "https://evil.example", 403, "foreign_origin"),
        (OURS, "null", 403, "foreign_origin"),
        (OURS, "http://127.0.0.1:8643", 403, "foreign_origin"),
        (OURS, "https://chat.example.evil.example", 403, "foreign_origin"),
    ],
)
def test_who_is_not(host: str, origin: str | None, status: int, code: str) -> None:
    failure = objection(host, origin, names={"gateway.example"}, origins={"https://chat.example"})
    assert failure is not None
    assert (failure.status, failure.code) == (status, code)


def test_any_page_may_call_if_the_owner_says_so() -> None:
    assert objection(OURS, "https://evil.example", names=(), origins={"*"}) is None


@pytest.mark.parametrize(
    ("name", "only_here"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)],
)
def test_loopback(name: str, only_here: bool) -> None:
    assert is_loopback(name) is only_here
