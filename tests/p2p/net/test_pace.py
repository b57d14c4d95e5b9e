"""Floods of frames, and how little they get done."""

from __future__ import annotations

from collections import Counter

import pytest
import trio
from trio.testing import MockClock

from p2p.net.pace import BYTES_PER_FRAME, FRAMES_BURST, FRAMES_PER_S, MAX_WAIT_S, Pace

CHUNK = 1000  # frames that are taken at a time


async def flood(pace: Pace, taken: Counter[str], name: str) -> None:
    """As much as is let."""
    while True:
        taken[name] += CHUNK
        await pace.keep(CHUNK, 0)
        await trio.lowlevel.checkpoint()


async def test_a_burst_is_taken_at_once_and_then_so_much_a_second(autojump_clock: MockClock) -> None:
    pace = Pace("a", Counter())
    await pace.keep(int(FRAMES_BURST) // 2, BYTES_PER_FRAME * int(FRAMES_BURST) // 2)
    assert trio.current_time() == 0
    await pace.keep(int(FRAMES_PER_S), 0)
    assert trio.current_time() == 1
    await pace.keep(1 << 30, 0)
    assert trio.current_time() == 1 + MAX_WAIT_S


@pytest.mark.parametrize("floods", [1, 10, 100])
async def test_however_many_flood_from_one_address_they_get_what_one_would(
    autojump_clock: MockClock, floods: int
) -> None:
    held, taken = Counter[str](), Counter[str]()
    with trio.move_on_after(60):
        async with trio.open_nursery() as nursery:
            for number in range(floods):
                nursery.start_soon(flood, Pace("bad", held), taken, str(number))
    assert taken.total() <= floods * FRAMES_BURST + 2 * 60 * FRAMES_PER_S
    assert not held


async def test_neighbours_of_a_flood_wait_little_and_strangers_not_at_all(autojump_clock: MockClock) -> None:
    held, taken = Counter[str](), Counter[str]()
    neighbour, stranger = Pace("bad", held), Pace("good", held)
    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(flood, Pace("bad", held), taken, str(number))
        await trio.sleep(60)
        for pace, most_s in ((stranger, 0.0), (neighbour, 1.0)):
            began_at = trio.current_time()
            for _ in range(50):
                await pace.keep(5, 500)
            assert trio.current_time() - began_at <= most_s
        nursery.cancel_scope.cancel()
