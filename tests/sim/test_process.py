"""Coroutines that wait in virtual time."""

from __future__ import annotations

import pytest

from sim.kernel import Kernel
from sim.process import Gate, gather, sleep, spawn


def test_sleepers_wake_at_their_time() -> None:
    kernel, woken = Kernel(1), []

    async def sleeper(name: str, delay_s: float) -> None:
        await sleep(kernel, delay_s)
        woken.append((kernel.now, name))

    spawn(sleeper("late", 2.0))
    spawn(sleeper("early", 1.0))
    assert woken == []
    kernel.run()
    assert woken == [(1.0, "early"), (2.0, "late")]


def test_a_gate_opens_once_for_all_in_the_order_of_waiting() -> None:
    gate, seen = Gate[str](), []

    async def waiter(name: str) -> None:
        seen.append((name, await gate))

    spawn(waiter("a"))
    spawn(waiter("b"))
    gate.open("yes")
    gate.open("too late")
    spawn(waiter("c"))
    assert seen == [("a", "yes"), ("b", "yes"), ("c", "yes")]


def test_gather_runs_side_by_side_and_keeps_the_order() -> None:
    kernel, results = Kernel(1), []

    async def one(delay_s: float) -> float:
        await sleep(kernel, delay_s)
        return delay_s

    async def all_of_them() -> None:
        results.extend(await gather([one(3.0), one(1.0), one(2.0)]))

    spawn(all_of_them())
    kernel.run()
    assert results == [3.0, 1.0, 2.0]
    assert kernel.now == 3.0


def test_what_a_process_raises_ends_the_run() -> None:
    kernel = Kernel(1)

    async def faulty() -> None:
        await sleep(kernel, 1.0)
        raise ValueError("broken")

    spawn(faulty())
    with pytest.raises(ValueError, match="broken"):
        kernel.run()
