"""Becoming part of a network and staying so: bootstrap peers, and neighbours on the local network."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio

from inference.nursery import open_background
from p2p.errors import Error, Unavailable
from p2p.host import Host
from p2p.trace import Trace, silent

REJOIN_S = 300.0  # a bootstrap peer that was away, or the whole network, may be back
NEIGHBOUR_TIMEOUT_S = 5.0  # for the first neighbour, where no bootstrap peer answers
MAX_NEIGHBOURS = 32  # that are dialled in a peer's life: anybody on the local network may announce any number

Lan = Callable[[Callable[[str], None]], AbstractAsyncContextManager[None]]
"""While the context lasts, the callback is given addresses of neighbours, unchecked."""


@asynccontextmanager
async def joined(
    host: Host, bootstraps: Sequence[str], lan: Lan | None = None, *, trace: Trace = silent
) -> AsyncIterator[None]:
    """Be connected to every bootstrap peer that answers, and to neighbours as they are seen.

    Raises `Unavailable` if there are bootstrap peers and nobody answers, not even one known from an earlier run; a
    network's first peer has none.
    """
    async with open_background() as background:
        first_neighbour = trio.Event()
        if lan is not None:
            await background.start(_meet_neighbours, host, lan, first_neighbour, trace)
        if not await _join(host, bootstraps) and bootstraps:
            with trio.move_on_after(NEIGHBOUR_TIMEOUT_S if lan is not None else 0):
                await first_neighbour.wait()
            if not first_neighbour.is_set():
                raise Unavailable("no bootstrap peer answers; is the network still up?")
        background.start_soon(_rejoin, host, bootstraps)
        yield


async def _rejoin(host: Host, bootstraps: Sequence[str]) -> None:
    """Connecting to one that is connected only looks into the DHT again."""
    while True:
        await trio.sleep(REJOIN_S)
        await _join(host, bootstraps)


async def _join(host: Host, bootstraps: Sequence[str]) -> bool:
    """Whether anybody answers: a bootstrap peer, or else one known from earlier."""
    return bool(await _dial_all(host, bootstraps) or await host.rejoin())


async def _dial_all(host: Host, addresses: Sequence[str]) -> int:
    """How many of them answered."""
    answered = 0

    async def dial(address: str) -> None:
        nonlocal answered
        try:
            await host.connect(address)
        except Unavailable:
            return
        answered += 1

    async with trio.open_nursery() as nursery:
        for address in addresses:
            nursery.start_soon(dial, address)
    return answered


async def _meet_neighbours(
    host: Host,
    lan: Lan,
    first: trio.Event,
    trace: Trace,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Connect to what is announced on the local network, each address once."""
    send, receive = trio.open_memory_channel[str](MAX_NEIGHBOURS)
    seen: set[str] = set(host.listening())

    def found(address: str) -> None:
        if address not in seen and len(seen) < MAX_NEIGHBOURS:
            seen.add(address)
            send.send_nowait(address)

    async with lan(found):
        task_status.started()
        async for address in receive:
            try:
                peer = await host.connect(address)
            except Error:
                continue
            trace("neighbour", peer=peer)
            first.set()
