"""Slots kept for those who accepted a quote, and who waits for one."""

from __future__ import annotations

import pytest

from p2p.protocol.places import (
    BUSY_RETRY_MAX_S,
    BUSY_RETRY_S,
    HOLD_S,
    HOLDS_PER_PEER,
    MAX_WAITING,
    WAITING_GRACE_S,
    Places,
    Queue,
)


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


def test_a_hold_is_given_back_by_whoever_has_it() -> None:
    places = Places()
    assert places.hold(b"a", "peer", slots_free=1, now=0)
    for quote_id, peer in ((b"a", "other"), (b"b", "peer"), (b"b", "")):
        places.give_back(quote_id, peer)
        assert places.free(1, now=0) == 0
    places.give_back(b"a", "peer")
    assert places.free(1, now=0) == 1
    assert not places.take(b"a", now=0)
    places.give_back(b"a", "peer")


@pytest.mark.parametrize(("slots", "most"), [(3, HOLDS_PER_PEER), (5, HOLDS_PER_PEER), (16, 8)])
def test_one_peer_holds_a_few_slots_or_half_of_them_at_most(slots: int, most: int) -> None:
    places = Places()
    held = [places.hold(bytes([n]), "greedy", slots_free=slots, now=0) for n in range(most + 1)]
    assert held == [True] * most + [False]
    assert places.hold(b"x", "other", slots_free=slots, now=0)
    assert places.hold(b"y", "greedy", slots_free=slots, now=HOLD_S)


def test_nobody_is_promised_a_slot_that_is_not_there() -> None:
    places = Places()
    assert not places.hold(b"a", "peer", slots_free=0, now=0)
    assert places.hold(b"a", "peer", slots_free=1, now=0)
    assert not places.hold(b"b", "other", slots_free=1, now=0)
    assert places.free(0, now=0) == 0, "an engine that lost its slots cannot owe them"


def test_who_finds_no_slot_is_told_when_the_first_answer_should_be_over() -> None:
    places = Places()
    assert places.retry_after_s(now=0) == BUSY_RETRY_S, "nothing tells"
    places.begin(b"long", until=300)
    assert places.retry_after_s(now=0) == BUSY_RETRY_MAX_S
    places.begin(b"short", until=12.5)
    assert places.retry_after_s(now=0) == 13
    assert places.hold(b"a", "peer", slots_free=1, now=0)
    assert places.retry_after_s(now=0) == BUSY_RETRY_S, "what becomes of a promise is known soon"
    assert places.retry_after_s(now=10) == 3
    places.end(b"short")
    places.end(b"unknown")
    assert places.retry_after_s(now=HOLD_S) == BUSY_RETRY_MAX_S
    assert places.retry_after_s(now=299.5) == 1
    assert places.retry_after_s(now=300) == BUSY_RETRY_S, "it takes longer than was promised"


def test_a_queue_forgets_who_came_back_or_stayed_away() -> None:
    queue = Queue()
    for peer in ("a", "b", "a"):
        queue.sent_away(peer, 5, now=0)
    assert queue.waiting(now=0) == 2
    queue.came_back("a")
    queue.came_back("stranger")
    assert queue.waiting(now=0) == 1
    queue.sent_away("c", 9, now=0)
    assert queue.waiting(now=5 + WAITING_GRACE_S) == 1
    assert queue.waiting(now=9 + WAITING_GRACE_S) == 0


def test_a_queue_has_bounded_room() -> None:
    queue = Queue()
    for number in range(MAX_WAITING + 7):
        queue.sent_away(str(number), 5, now=0)
    assert queue.waiting(now=0) == MAX_WAITING
