"""Virtual time goes by the plan, and chance by its name."""

from __future__ import annotations

import pytest

from sim.kernel import Kernel


def test_events_happen_by_time_and_then_in_the_order_of_planning() -> None:
    kernel, seen = Kernel(1), []
    for time_s, name in ((2.0, "c"), (1.0, "a"), (2.0, "d"), (1.0, "b")):
        kernel.at(time_s, lambda name=name: seen.append((kernel.now, name)))  # type: ignore[misc]
    kernel.run()
    assert seen == [(1.0, "a"), (1.0, "b"), (2.0, "c"), (2.0, "d")]
    assert kernel.events == 4


def test_what_is_planned_for_now_comes_after_what_was_planned_before() -> None:
    kernel, seen = Kernel(1), []

    def first() -> None:
        seen.append("first")
        kernel.after(0.0, lambda: seen.append("last"))

    kernel.at(1.0, first)
    kernel.at(1.0, lambda: seen.append("second"))
    kernel.run()
    assert seen == ["first", "second", "last"]


def test_run_stops_after_the_given_instant_and_can_go_on() -> None:
    kernel, seen = Kernel(1), []
    for time_s in (1.0, 2.0, 3.0):
        kernel.at(time_s, lambda: seen.append(kernel.now))
    kernel.run(until_s=2.0)
    assert seen == [1.0, 2.0]
    kernel.run()
    assert seen == [1.0, 2.0, 3.0]


def test_the_past_cannot_be_planned() -> None:
    kernel = Kernel(1)
    kernel.at(5.0, lambda: kernel.at(4.0, lambda: None))
    with pytest.raises(AssertionError, match="past"):
        kernel.run()


def test_a_stream_is_a_function_of_seed_and_name_alone() -> None:
    one, other = Kernel(7), Kernel(7)
    one.stream("new").random()  # a stream more, drawn from first, shifts nothing
    assert [one.stream("demand").random() for _ in range(5)] == [other.stream("demand").random() for _ in range(5)]
    assert one.stream("demand") is one.stream("demand")
    drawn = {Kernel(seed).stream(name).random() for seed in (1, 2) for name in ("a", "b")}
    assert len(drawn) == 4


def test_streams_never_change_between_versions() -> None:
    """A published digest stands on this: seed 1, stream `latency`."""
    assert Kernel(1).stream("latency").getrandbits(32) == 335_618_308
