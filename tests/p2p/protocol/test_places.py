"""Slots kept for those who accepted a quote."""

from __future__ import annotations

from p2p.protocol.places import HOLD_S, HOLDS_PER_PEER, Places


def test_a_hold_takes_a_slot_until_it_is_used_or_expires() -> None:
    places = Places()
    assert places.hold(b"a", "peer", slots_free=3, now=0)
    assert places.hold(b"b", "other", slots_free=3, now=10)
    assert places.free(3, now=10) == 1
    assert places.take(b"a", now=10)
    assert not places.take(b"a", now=10)
    assert places.free(3, now=10) == 2
    assert not places.take(b"b", now=10 + HOLD_S), "it is too late, though nobody has asked for its slot meanwhile"
    assert places.free(3, now=10 + HOLD_S) == 3


def test_one_peer_holds_a_few_slots_at_most() -> None:
    places = Places()
    held = [places.hold(bytes([n]), "greedy", slots_free=100, now=0) for n in range(HOLDS_PER_PEER + 1)]
    assert held == [True] * HOLDS_PER_PEER + [False]
    assert places.hold(b"x", "other", slots_free=100, now=0)
    assert places.hold(b"y", "greedy", slots_free=100, now=HOLD_S)


def test_nobody_is_promised_a_slot_that_is_not_there() -> None:
    places = Places()
    assert not places.hold(b"a", "peer", slots_free=0, now=0)
    assert places.hold(b"a", "peer", slots_free=1, now=0)
    assert not places.hold(b"b", "other", slots_free=1, now=0)
    assert places.free(0, now=0) == 0, "an engine that lost its slots cannot owe them"
