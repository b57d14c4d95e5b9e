"""Limits on spending and turns at ordering, shared by all processes of a wallet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import trio
import trio.testing

from chain.errors import BookUnusable, LimitReached
from chain.purse import DAY_S, Limits, Purse

SPENDS = """
import sys, pathlib, trio
from chain.errors import LimitReached
from chain.purse import Limits, Purse
purse = Purse(pathlib.Path(sys.argv[1]), Limits(100, 0), lambda: 1000.0)
async def main():
    spent = 0
    for _ in range(40):
        try:
            async with purse.turn():
                await purse.spend(3)
            spent += 3
        except LimitReached:
            pass
    print(spent)
trio.run(main)
"""

HOLDS = """
import sys, pathlib, trio
from chain.purse import Limits, Purse
async def main():
    async with Purse(pathlib.Path(sys.argv[1]), Limits(0, 0), lambda: 0.0).turn():
        print("held", flush=True)
        sys.stdin.read()
trio.run(main)
"""


NO_LIMITS = Limits(1 << 62, 1 << 62)


class Clock:
    def __init__(self) -> None:
        self.now = 20_000.0 * DAY_S

    def __call__(self) -> float:
        return self.now


async def test_a_days_limit_holds_across_restarts_and_ends_with_the_day(tmp_path: Path) -> None:
    clock = Clock()
    for _ in range(4):
        await Purse(tmp_path, Limits(100, 0), clock).spend(25)
    again = Purse(tmp_path, Limits(100, 0), clock)
    with pytest.raises(LimitReached, match="0 left"):
        await again.spend(1)
    assert again.spent_today_nano() == 100
    clock.now += DAY_S - 1
    with pytest.raises(LimitReached):
        await again.spend(1)
    clock.now += 1
    assert again.spent_today_nano() == 0
    await again.spend(100)


async def test_what_is_refused_is_not_counted(tmp_path: Path) -> None:
    purse = Purse(tmp_path, Limits(100, 0), Clock())
    with pytest.raises(LimitReached, match="100 left"):
        await purse.spend(101)
    await purse.spend(100)
    assert purse.spent_today_nano() == 100


async def test_a_clock_that_is_set_back_opens_the_purse_no_wider(tmp_path: Path) -> None:
    clock = Clock()
    purse = Purse(tmp_path, Limits(100, 0), clock)
    await purse.spend(100)
    clock.now -= 3 * DAY_S
    with pytest.raises(LimitReached):
        await purse.spend(1)


async def test_a_limit_can_be_lowered_below_what_was_spent(tmp_path: Path) -> None:
    clock = Clock()
    await Purse(tmp_path, NO_LIMITS, clock).spend(10**18)
    lowered = Purse(tmp_path, Limits(5, 0), clock)
    with pytest.raises(LimitReached, match="0 left"):
        await lowered.spend(1)
    await lowered.spend(0)


def test_a_channel_holds_at_most_its_limit(tmp_path: Path) -> None:
    purse = Purse(tmp_path, Limits(0, 100), Clock())
    purse.check_channel(100)
    with pytest.raises(LimitReached, match="is 100"):
        purse.check_channel(101)
    Purse(tmp_path, NO_LIMITS, Clock()).check_channel(10**18)


@pytest.mark.slow
def test_two_processes_together_spend_no_more_than_the_limit(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SPENDS, str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    spent = [int(process.communicate()[0]) for process in processes]
    assert sum(spent) == 99
    assert Purse(tmp_path, NO_LIMITS, lambda: 1000.0).spent_today_nano() == 99


@pytest.mark.slow
async def test_a_turn_waits_for_another_process_and_ends_with_it(tmp_path: Path) -> None:
    purse = Purse(tmp_path, NO_LIMITS, Clock())
    command = [sys.executable, "-c", HOLDS, str(tmp_path)]
    other = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdin is not None
    assert other.stdout is not None
    try:
        async with other.stdin, other.stdout:
            with trio.fail_after(30):
                assert (await other.stdout.receive_some()).startswith(b"held")
            with trio.move_on_after(0.3) as waited:
                async with purse.turn():
                    pytest.fail("two had the turn")
            assert waited.cancelled_caught
            other.kill()
            with trio.fail_after(5):
                async with purse.turn():
                    pass
    finally:
        other.kill()
        await other.wait()


async def test_tasks_of_one_process_take_turns_too(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    purse = Purse(tmp_path, NO_LIMITS, Clock())
    order: list[str] = []

    async def take(name: str) -> None:
        async with purse.turn():
            order.append(name)
            await trio.sleep(1)
            order.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, "a")
        nursery.start_soon(take, "b")
    assert order in (["a", "a", "b", "b"], ["b", "b", "a", "a"])


async def test_files_that_cannot_be_used_are_one_clear_line(tmp_path: Path) -> None:
    nowhere = Purse(tmp_path / "none", NO_LIMITS, Clock())
    with pytest.raises(BookUnusable, match="unable to open"):
        await nowhere.spend(1)
    with pytest.raises(BookUnusable, match="No such file"):
        async with nowhere.turn():
            pytest.fail("there is no lock")
