"""Becoming part of a network, and staying so."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from memory_host import MemoryHost, MemoryNetwork, open_memory_network
from trio.testing import MockClock

from p2p.errors import Unavailable
from p2p.joining import MAX_NEIGHBOURS, NEIGHBOUR_TIMEOUT_S, REJOIN_S, Lan, joined


class Diary(MemoryHost):
    """A host that remembers whom it dialled."""

    def __init__(self, network: MemoryNetwork, nursery: trio.Nursery) -> None:
        super().__init__(network, "me", nursery)
        self.dialled: list[str] = []

    async def connect(self, address: str) -> str:
        self.dialled.append(address)
        return await super().connect(address)


@asynccontextmanager
async def a_host() -> AsyncIterator[tuple[MemoryNetwork, Diary]]:
    async with trio.open_nursery() as nursery, open_memory_network() as network:
        yield network, Diary(network, nursery)


def address(peer: str) -> str:
    return f"/memory/{peer}/p2p/{peer}"


async def test_one_bootstrap_peer_of_several_is_enough(autojump_clock: MockClock) -> None:
    async with a_host() as (network, me):
        await network.join("b")
        async with joined(me, [address("a"), address("b")]):
            assert sorted(me.dialled) == [address("a"), address("b")]


async def test_nobody_answers(autojump_clock: MockClock) -> None:
    async with a_host() as (_, me):
        with pytest.raises(Unavailable, match="no bootstrap peer answers"):
            async with joined(me, [address("a")]):
                pass


async def test_who_is_known_from_earlier_stands_in_for_the_bootstrap_peers(autojump_clock: MockClock) -> None:
    async with a_host() as (network, me):
        await network.join("earlier")
        await me.connect(address("earlier"))
        async with joined(me, [address("gone")]):
            pass
        network.kill("earlier")
        with pytest.raises(Unavailable, match="no bootstrap peer answers"):
            async with joined(me, [address("gone")]):
                pass


async def test_the_first_peer_of_a_network_has_nobody_to_dial(autojump_clock: MockClock) -> None:
    async with a_host() as (_, me), joined(me, []):
        assert me.dialled == []


async def test_a_bootstrap_peer_that_was_away_is_dialled_again(autojump_clock: MockClock) -> None:
    async with a_host() as (network, me):
        await network.join("a")
        async with joined(me, [address("a"), address("late")]):
            await network.join("late")
            me.dialled.clear()
            await trio.sleep(REJOIN_S + 1)
            assert sorted(me.dialled) == [address("a"), address("late")]


def lan_with(*announced: str, after_s: float = 0.0) -> Lan:
    @asynccontextmanager
    async def lan(found: Callable[[str], None]) -> AsyncIterator[None]:
        async def announce() -> None:
            await trio.sleep(after_s)
            for one in announced:
                found(one)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(announce)
            yield
            nursery.cancel_scope.cancel()

    return lan


async def test_a_neighbour_stands_in_for_bootstrap_peers_that_are_away(autojump_clock: MockClock) -> None:
    async with a_host() as (network, me):
        await network.join("n")
        told: list[object] = []

        def trace(event: str, /, **fields: object) -> None:
            told.append((event, fields["peer"]))

        lan = lan_with(address("gone"), address("n"), me.addresses()[0], after_s=NEIGHBOUR_TIMEOUT_S - 1)
        async with joined(me, [address("a")], lan, trace=trace):
            assert told == [("neighbour", "n")]
            assert me.addresses()[0] not in me.dialled


async def test_no_neighbour_either(autojump_clock: MockClock) -> None:
    async with a_host() as (_, me):
        with pytest.raises(Unavailable, match="no bootstrap peer answers"):
            async with joined(me, [address("a")], lan_with(address("gone"), after_s=1)):
                pass


async def test_a_neighbour_that_announces_without_end_is_heard_so_often(autojump_clock: MockClock) -> None:
    async with a_host() as (_, me):
        many = [address(f"n{number}") for number in range(10 * MAX_NEIGHBOURS)]
        async with joined(me, [], lan_with(*many, *many)):
            await trio.sleep(60)
            assert len(me.dialled) == len(set(me.dialled)) < MAX_NEIGHBOURS
