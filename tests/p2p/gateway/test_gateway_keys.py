from __future__ import annotations

from pathlib import Path

import pytest

from p2p.errors import LocalError, Refused
from p2p.gateway.keys import ANYBODY, EVERYBODY, FILE_NAME, Capabilities, Keys

NOON = 1_800_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(tmp_path: Path, clock: Clock) -> Keys:
    return Keys(tmp_path, clock)


def test_without_keys_anybody_may_call(keys: Keys) -> None:
    assert keys.find(None) is keys.find("any") is ANYBODY


def test_with_one_nobody_else_may(keys: Keys) -> None:
    may = Capabilities(models=("m",), budget_nano_per_day=5)
    secret = keys.add("phone", may)
    known = keys.find(secret)
    assert known is not None
    assert (known.name, known.may) == ("phone", may)
    assert keys.find(None) is keys.find("any") is keys.find(secret[:-1]) is None
    keys.remove("phone")
    assert keys.find(None) is ANYBODY


def test_the_file_does_not_have_the_key(keys: Keys, tmp_path: Path) -> None:
    secret = keys.add("phone", Capabilities())
    file = tmp_path / FILE_NAME
    assert secret.encode() not in file.read_bytes()
    assert file.stat().st_mode & 0o077 == 0


def test_names_are_taken_once(keys: Keys) -> None:
    keys.add("phone", Capabilities())
    for name in ("phone", EVERYBODY):
        with pytest.raises(LocalError):
            keys.add(name, Capabilities())
    with pytest.raises(LocalError, match="no key"):
        keys.remove("laptop")


def test_what_is_over_a_limit_is_on_no_tally(keys: Keys) -> None:
    day = keys.today()
    limits = [("phone", 10), (EVERYBODY, 15)]
    keys.spend(limits, day, 8)
    with pytest.raises(Refused, match="this key has 2 left of 10") as caught:
        keys.spend(limits, day, 3)
    assert caught.value.reason == "over_budget"
    with pytest.raises(Refused, match="this gateway has 7 left of 15"):
        keys.spend([("laptop", None), (EVERYBODY, 15)], day, 8)
    assert [keys.spent_nano(name) for name in ("phone", "laptop", EVERYBODY)] == [8, 0, 8]
    keys.give_back(["phone", EVERYBODY], day, 5)
    keys.spend(limits, day, 7)
    assert keys.spent_nano("phone") == 10


def test_every_day_begins_anew_and_none_twice(keys: Keys, clock: Clock) -> None:
    keys.spend([("phone", 10)], keys.today(), 10)
    clock.now += 86_400
    assert keys.spent_nano("phone") == 0
    keys.spend([("phone", 10)], keys.today(), 4)
    clock.now -= 86_400
    assert keys.spent_nano("phone") == 14, "a clock that is set back brings nothing back"


def test_another_process_sees_the_same(keys: Keys, tmp_path: Path, clock: Clock) -> None:
    secret = keys.add("phone", Capabilities())
    keys.spend([("phone", None)], keys.today(), 3)
    other = Keys(tmp_path, clock)
    assert other.find(secret) is not None
    assert other.spent_nano("phone") == 3


def test_a_file_that_is_none_is_said(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"no database" * 100)
    with pytest.raises(LocalError, match="cannot be used"):
        Keys(tmp_path, clock).find(None)
