"""Faults, and bans."""

from __future__ import annotations

import pytest

from p2p.net import conduct
from p2p.net.conduct import BAN_S, FAULTS_FORGIVEN, FORGIVEN_EVERY_S, Ban, Conduct


def banned(peer: str = "p", now: float = 0.0) -> Conduct:
    kept = Conduct()
    for _ in range(FAULTS_FORGIVEN):
        assert kept.fault(peer, "noise", now) is None
    assert kept.fault(peer, "the last", now) == Ban("the last", now + BAN_S)
    return kept


def test_a_fault_now_and_then_is_forgiven() -> None:
    kept = Conduct()
    for number in range(3 * FAULTS_FORGIVEN):
        assert kept.fault("p", "a bug", number * FORGIVEN_EVERY_S) is None
    assert kept.ban("p", 0.0) is None
    assert kept.bans(0.0) == {}


def test_many_at_once_are_a_ban_that_ends() -> None:
    kept = banned()
    assert kept.ban("p", BAN_S - 1) == Ban("the last", BAN_S)
    assert kept.ban("q", 0.0) is None
    assert kept.bans(1.0) == {"p": Ban("the last", BAN_S)}
    assert kept.ban("p", BAN_S) is None
    assert kept.bans(BAN_S) == {}
    assert kept.fault("p", "again", BAN_S) is None, "it starts afresh"


def test_whoever_goes_on_is_banned_for_longer() -> None:
    kept = banned()
    assert kept.fault("p", "still", 5.0) == Ban("still", 5.0 + BAN_S)
    assert kept.bans(5.0) == {"p": Ban("still", 5.0 + BAN_S)}


def test_the_oldest_ban_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conduct, "MAX_BANS", 2)
    kept = Conduct()
    for now, peer in enumerate("abac"):
        for _ in range(FAULTS_FORGIVEN + 1):
            kept.fault(peer, "noise", float(now))
    assert set(kept.bans(3.0)) == {"a", "c"}
