"""Something is left for one who comes later."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2p.net.tally import Tally


def test_each_may_hold_so_many() -> None:
    tally = Tally(per_key=2, in_all=1000)
    assert [tally.take("a") for _ in range(3)] == [True, True, False]
    assert tally.take("b")
    tally.give_back("a")
    assert tally.take("a")
    assert tally.total == 3


def test_a_crowd_that_takes_what_it_can_leaves_something() -> None:
    tally = Tally(per_key=100, in_all=1000)
    for number in range(20):
        while tally.take(f"greedy {number}"):
            pass
    assert tally.total < 950
    assert [tally.take("late") for _ in range(5)] == [True] * 5


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=200))
def test_nothing_is_left_behind(steps: list[tuple[str, bool]]) -> None:
    tally = Tally(per_key=3, in_all=40)
    held: list[str] = []
    for key, taking in steps:
        if not taking and held:
            tally.give_back(held.pop())
        elif tally.take(key):
            held.append(key)
        assert tally.total == len(held)
        assert all(held.count(each) <= 3 for each in "abc")
    for key in held:
        tally.give_back(key)
    assert tally.total == 0
    assert not tally._held
