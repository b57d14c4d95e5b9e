"""The walk to the closest servers, against honest ones, dead ones and liars."""

from __future__ import annotations

import random
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from p2p.protocol.kad_messages import ALPHA, Contact, K, kad_id
from p2p.protocol.lookup import MAX_ASKED, MAX_CANDIDATES, MAX_DEAD_TIPS, MAX_OPEN, MAX_PER_ORIGIN, Walk

ME = b"me"
TARGET = kad_id(b"target")
Answer = Callable[[bytes], list[Contact] | None]


def contact(number: int) -> Contact:
    return Contact(b"%d" % number, ())


def nearest(contacts: list[Contact]) -> list[Contact]:
    return sorted(contacts, key=lambda each: kad_id(each.peer) ^ TARGET)


def is_over(walk: Walk) -> bool:
    return walk.is_over


def walk_on(walk: Walk, answer: Answer, origin: str = "") -> list[bytes]:
    """Answer everything until the walk is over; returns who was asked."""
    asked: list[bytes] = []
    while not walk.is_over:
        for each in walk.next():
            asked.append(each.peer)
            closer = answer(each.peer)
            if closer is None:
                walk.failed(each.peer)
            else:
                walk.answered(each.peer, closer, origin)
    assert walk.next() == []
    return asked


def test_the_closest_are_found_through_others_and_few_at_a_time() -> None:
    everyone = nearest([contact(number) for number in range(300)])

    def answer(peer: bytes) -> list[Contact]:
        """Each knows its neighbourhood in the order of distance, and nobody far away."""
        place = next(index for index, each in enumerate(everyone) if each.peer == peer)
        return everyone[max(0, place - 40) : place + 5]

    walk = Walk(TARGET, ME, [everyone[-1], everyone[-2]])
    assert walk.next() == [everyone[-2], everyone[-1]]
    assert walk.next() == []
    assert not is_over(walk)
    for each in (everyone[-1], everyone[-2]):
        walk.answered(each.peer, answer(each.peer), "")
    assert len(walk.next()) == ALPHA
    walk = Walk(TARGET, ME, [everyone[-1]])
    asked = walk_on(walk, answer)
    assert walk.closest() == everyone[:K]
    assert len(asked) == len(set(asked)) < 60


def test_among_few_the_slow_are_waited_for() -> None:
    everyone = nearest([contact(number) for number in range(10)])
    walk = Walk(TARGET, ME, everyone)
    asked = walk.next()
    walk.slow(asked[0].peer)
    assert len(walk.next()) == 1
    walk.slow(asked[0].peer)
    walk.slow(b"never asked")
    assert walk.next() == []
    for each in everyone[1:]:
        assert not walk.has_settled
        walk.next()
        walk.answered(each.peer, [], "")
    assert walk.has_settled
    assert not is_over(walk)
    walk.answered(asked[0].peer, [], "")
    assert is_over(walk)
    assert walk.closest() == everyone


def test_among_many_the_slow_are_passed_over_and_count_if_they_answer_in_time() -> None:
    everyone = nearest([contact(number) for number in range(40)])
    walk = Walk(TARGET, ME, everyone)
    slow = walk.next()
    for each in slow:
        walk.slow(each.peer)
    walk.answered(slow[0].peer, [], "")
    while not is_over(walk):
        for each in walk.next():
            walk.answered(each.peer, [], "")
    assert walk.closest() == [slow[0], *everyone[ALPHA : ALPHA + K - 1]]


def test_where_all_are_slow_few_questions_are_open() -> None:
    walk = Walk(TARGET, ME, [contact(number) for number in range(40)])
    asked = 0
    while now := walk.next():
        asked += len(now)
        for each in now:
            walk.slow(each.peer)
    assert asked == MAX_OPEN
    assert not is_over(walk)


def test_the_dead_are_left_out_and_never_asked_again() -> None:
    everyone = nearest([contact(number) for number in range(60)])
    dead = {each.peer for each in everyone[::3]}
    walk = Walk(TARGET, ME, everyone[::2])
    asked = walk_on(walk, lambda peer: None if peer in dead else everyone)
    assert len(asked) == len(set(asked))
    assert walk.closest() == [each for each in everyone if each.peer not in dead][:K]
    walk.answered(b"never asked", everyone, "")
    walk.failed(b"never asked")


def test_nobody_to_ask_is_the_end() -> None:
    walk = Walk(TARGET, ME, [Contact(ME, ())])
    assert is_over(walk)
    assert walk.closest() == []


def test_a_liar_who_names_only_the_dead_is_believed_no_more() -> None:
    honest = nearest([contact(number) for number in range(30)])
    made_up = [contact(number) for number in range(1000, 1200)]
    fakes = nearest(made_up)[:K]
    walk = Walk(TARGET, ME, honest[:5])
    liar = honest[0].peer

    def answer(peer: bytes) -> list[Contact] | None:
        return None if contact(int(peer)) in fakes else fakes if peer == liar else honest

    asked = walk_on(walk, answer)
    assert len({each.peer for each in fakes} & set(asked)) <= MAX_DEAD_TIPS + ALPHA
    assert walk.closest() == honest[:K]


def test_one_living_tip_makes_up_for_dead_ones() -> None:
    everyone = nearest([contact(number) for number in range(2 * MAX_DEAD_TIPS)])
    *dead, guide = everyone
    walk = Walk(TARGET, ME, [guide])
    walk_on(walk, lambda peer: None if contact(int(peer)) in dead[1:] else dead)
    assert walk.closest() == [dead[0], guide]


def test_an_endless_chain_of_liars_ends() -> None:
    def answer(peer: bytes) -> list[Contact]:
        first = 100 * int(peer)
        return [contact(number) for number in range(first, first + 100)]

    walk = Walk(TARGET, ME, [contact(number) for number in range(1, 10)])
    assert len(walk_on(walk, answer)) <= MAX_ASKED
    assert len(walk._candidates) <= MAX_CANDIDATES


def test_the_last_questions_are_waited_for() -> None:
    walk = Walk(TARGET, ME, [contact(number) for number in range(9)])
    walk._asked = MAX_ASKED - 2
    two = walk.next()
    assert len(two) == 2
    walk.answered(two[0].peer, [], "")
    assert walk.next() == []
    assert not is_over(walk)
    walk.failed(two[1].peer)
    assert is_over(walk)
    assert walk.closest() == [two[0]]


def test_one_origin_does_not_fill_the_result() -> None:
    everyone = nearest([contact(number) for number in range(100)])
    sybils = {each.peer for each in everyone[:30]}
    walk = Walk(TARGET, ME, everyone[:MAX_CANDIDATES])
    while not walk.is_over:
        for each in walk.next():
            walk.answered(each.peer, everyone, "192.0.2.0/24" if each.peer in sybils else f"{each.peer!r}")
    assert walk.closest() == everyone[:MAX_PER_ORIGIN] + everyone[30 : 30 + K - MAX_PER_ORIGIN]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 100), st.floats(0, 0.9), st.integers(0, 1 << 32))
def test_every_walk_ends_with_living_servers_in_order(size: int, share_of_dead: float, seed: int) -> None:
    chance = random.Random(seed)
    everyone = [contact(number) for number in range(size)]
    knows = {each.peer: chance.sample(everyone, chance.randint(0, min(30, size))) for each in everyone}
    dead = {each.peer for each in everyone if chance.random() < share_of_dead}
    walk = Walk(TARGET, ME, chance.sample(everyone, min(size, 3)))
    asked = walk_on(walk, lambda peer: None if peer in dead else knows[peer])
    assert len(asked) == len(set(asked)) <= MAX_ASKED
    assert walk.closest() == nearest(walk.closest())
    assert len(walk.closest()) <= K
    assert not {each.peer for each in walk.closest()} & dead
