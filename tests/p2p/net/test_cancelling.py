"""Cancels at every await, some hundreds of them; `make proof` makes ten thousand."""

from __future__ import annotations

import random

import pytest
import trio.testing
from cancelling import Link, host_link, memory_link, run, run_dials


async def check(link: Link, dice: random.Random) -> None:
    report = await run(link, 200, dice)
    assert min(report.cancelled[what] for what in ("open", "write", "read")) > 0
    assert report.witnessed_bytes > 0


async def test_cancels_in_memory(autojump_clock: trio.testing.MockClock) -> None:
    dice = random.Random(1)
    async with memory_link(dice) as link:
        await check(link, dice)


@pytest.mark.slow
async def test_cancels_between_hosts() -> None:
    async with host_link() as link:
        await check(link, random.Random(2))


@pytest.mark.slow
async def test_cancelled_dials() -> None:
    await run_dials(40, random.Random(3))
