"""Floods of frames, and how little they get done."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from p2p.net.pace import BURST_S, MAX_WAIT_S, OWN_BURST_S, REFILL_S, SHARE, SHARE_IN_ALL, Pace, Paces

CHUNK_S = 0.016  # of work at a time


async def flood(pace: Pace, taken_s: list[float]) -> None:
    """As much as is let."""
    while True:
        taken_s.append(CHUNK_S)
        await pace.keep(CHUNK_S)
        await trio.lowlevel.checkpoint()


async def test_a_burst_is_worked_on_at_once_and_then_a_share_of_the_time(autojump_clock: MockClock) -> None:
    pace = Pace("a", Paces())
    await pace.keep(BURST_S)
    await pace.keep(OWN_BURST_S)
    assert trio.current_time() == 0
    await pace.keep(SHARE)
    assert trio.current_time() == 1
    await pace.keep(100 * SHARE)
    assert trio.current_time() == 1 + MAX_WAIT_S


@pytest.mark.parametrize("floods", [1, 10, 100])
async def test_however_many_flood_from_one_address_they_get_what_one_would(
    autojump_clock: MockClock, floods: int
) -> None:
    paces, taken_s = Paces(), list[float]()
    with trio.move_on_after(60):
        async with trio.open_nursery() as nursery:
            for _ in range(floods):
                nursery.start_soon(flood, Pace("bad", paces), taken_s)
    assert sum(taken_s) <= BURST_S + floods * (OWN_BURST_S + CHUNK_S) + 2 * 60 * SHARE
    assert not paces.held


async def test_from_however_many_addresses_they_come_they_leave_half_of_the_time(autojump_clock: MockClock) -> None:
    paces, taken_s = Paces(), list[float]()
    with trio.move_on_after(600):
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(flood, Pace(f"bad {number}", paces), taken_s)
    bursts_s = BURST_S * (1 + 600 / REFILL_S) + OWN_BURST_S
    assert sum(taken_s) <= 20 * (bursts_s + CHUNK_S) + 1.1 * 600 * SHARE_IN_ALL


async def test_neighbours_of_a_flood_wait_little_and_strangers_not_at_all(autojump_clock: MockClock) -> None:
    paces, taken_s = Paces(), list[float]()
    neighbour, stranger = Pace("bad", paces), Pace("good", paces)
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(flood, Pace("bad", paces), taken_s)
        await trio.sleep(60)
        for pace, most_s in ((stranger, 0.0), (neighbour, 6.0)):
            began_at = trio.current_time()
            for _ in range(50):
                await pace.keep(0.0003)
            assert trio.current_time() - began_at <= most_s
        nursery.cancel_scope.cancel()
