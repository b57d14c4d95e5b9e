"""Whose turn it is."""

from __future__ import annotations

import pytest

from p2p.net.turns import Crowd, Turns


@pytest.mark.parametrize(
    ("waiting", "order"),
    [
        ("", []),
        ("a", [0]),
        ("aaa", [0, 1, 2]),
        ("aaab", [0, 3, 1, 2]),
        ("aabbcc", [0, 2, 4, 1, 3, 5]),
        ("abca", [0, 1, 2, 3]),
    ],
)
def test_turns_go_round(waiting: str, order: list[int]) -> None:
    turns = Turns(per_s=1, burst=100)
    for number, address in enumerate(waiting):
        turns.waiting.add(address, number, 0.0)
    due = turns.due(0.0)
    assert [number for _, number in due] == order
    assert [address for address, _ in due] == [waiting[number] for number in order]
    assert turns.waiting.total == 0


def test_they_come_at_a_rate_after_a_burst() -> None:
    turns = Turns(per_s=4, burst=2)
    for number in range(5):
        turns.waiting.add("a", number, 0.0)
    assert turns.due(0.0) == [("a", 0), ("a", 1)]
    assert turns.next_at == 0.25
    assert turns.due(0.2) == []
    assert turns.due(0.25) == [("a", 2)]
    turns.waiting.remove("a", 3)  # it has left
    assert turns.due(1.0) == [("a", 4)]
    assert turns.next_at is None


def test_a_crowd_knows_where_most_are_and_who_came_first() -> None:
    crowd = Crowd()
    for number, address in enumerate("abbcb"):
        crowd.add(address, number, float(number))
    assert (crowd.total, crowd.most_crowded(), crowd.oldest("b")) == (5, "b", 1)
    crowd.remove("b", 1)
    crowd.remove("b", 1)
    crowd.remove("nowhere", 7)
    crowd.remove("a", 0)
    assert (crowd.total, crowd.oldest("b"), sorted(crowd.at)) == (3, 2, ["b", "c"])
