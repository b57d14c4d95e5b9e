"""What signals end, and in which order."""

from __future__ import annotations

import signal
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

import pytest
import trio
import trio.testing
import trio_asyncio

from p2p.interrupt import Interrupt


async def interrupted(around: AbstractAsyncContextManager[Any]) -> list[str]:
    """What still happens in a command after Ctrl-C in its gentle part."""
    told = []
    interrupt = Interrupt()
    async with interrupt.watching(), around:
        try:
            async with interrupt.gently():
                signal.raise_signal(signal.SIGINT)
                try:
                    await trio.Event().wait()
                finally:
                    told.append("paid")
            told.append("went on")
        finally:
            told.append("left")
    return told


async def test_what_is_under_way_ends_first_and_then_the_rest() -> None:
    assert await interrupted(nullcontext()) == ["paid", "left"]


async def test_the_first_signal_can_be_waited_for_and_the_second_ends_everything() -> None:
    told = []
    interrupt = Interrupt()

    async def command() -> None:
        await interrupt.first()
        told.append("drains")
        signal.raise_signal(signal.SIGTERM)
        await trio.Event().wait()
        told.append("went on")

    async with interrupt.watching(), trio.open_nursery() as nursery:
        nursery.start_soon(command)
        await trio.testing.wait_all_tasks_blocked()
        signal.raise_signal(signal.SIGINT)
    assert told == ["drains"]
    assert interrupt.everything.cancelled_caught


@pytest.mark.parametrize("_turn", range(10))  # Trio draws lots for who runs first
async def test_so_it_does_where_cancellation_comes_a_turn_later(_turn: int) -> None:
    assert await interrupted(trio_asyncio.open_loop()) == ["paid", "left"]
