"""What a stranger says is printed for people: it must not be able to steer their terminal."""

from __future__ import annotations

import pytest

from p2p.errors import Refused, RemoteError
from p2p.protocol.negotiate import Refusal, ToClient
from p2p.protocol.wire import decode, encode


@pytest.mark.parametrize("character", ["\x1b", "\n", "\r", "\x00", "\x7f", "\x9b", "\u2028", "\u202e", "\u2066"])
def test_nothing_that_steers_a_terminal_is_a_name_or_a_detail(character: str) -> None:
    for refusal in (Refusal(reason=f"a{character}"), Refusal(reason="a", detail=f"a{character}b")):
        with pytest.raises(RemoteError, match="malformed"):
            decode(encode(refusal), ToClient)


def test_everything_else_is() -> None:
    refusal = Refusal(reason="zu teuer", detail="価格が高すぎます – ok? [red]", retry_after_s=3)
    assert decode(encode(refusal), ToClient) == refusal


def test_a_refusal_is_said_and_raised_alike() -> None:
    no = Refusal.of(Refused("busy", "later", retry_after_s=5)).error()
    assert (no.reason, no.detail, no.retry_after_s) == ("busy", "later", 5)
