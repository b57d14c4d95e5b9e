"""From a request to the first byte of its prompt on the wire, with and without a standing quote, over real libp2p.

The provider is on this machine, and far away: all that is said between it and the client is carried by a detour that
takes its time each way.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import trio
from market import MODEL, PRICES, question
from town import open_town

from inference.nursery import open_background
from p2p.discovery import PROBE_KEPT_S
from p2p.host import Host, Stream
from p2p.peer import LightPeer
from p2p.protocol import session
from p2p.protocol.allowance import DAY_S
from p2p.protocol.demand import Wanted
from p2p.protocol.price import FREE
from p2p.protocol.sales import PriceList
from p2p.protocol.standing import StandingLimits
from p2p.protocol.strategy import UtilisationPrice

RTT_S = 0.1
BULK = PriceList(UtilisationPrice(PRICES, 20), 1_000_000, FREE, FREE, StandingLimits(50, DAY_S))


class Sent(NamedTuple):
    """A request whose prompt is on the wire."""

    after_ms: float
    streams: tuple[str, ...]  # the protocols of those that it took, the session's own the last


class Watched:
    """A host that notes when the first byte of a session is written; in all else the one that it is given."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.opened: list[str] = []
        self.sent_at = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)

    async def open(self, peer: str, protocol: str) -> Stream:
        self.opened.append(protocol)
        stream = await self._host.open(peer, protocol)
        if protocol == session.PROTOCOL:
            stream.write = partial(self._first_write, stream, stream.write)  # type: ignore[method-assign]
        return stream

    async def _first_write(self, stream: Stream, write: Callable[[bytes], Awaitable[None]], data: bytes) -> None:
        """The prompt is in the first frame."""
        self.sent_at = trio.current_time()
        stream.write = write  # type: ignore[method-assign, assignment]
        await write(data)


@asynccontextmanager
async def open_detour(address: str, one_way_s: float) -> AsyncIterator[str]:
    """An address from which all is carried to another and back, and takes so long each way."""
    host, _, peer = address.rpartition("/p2p/")
    port = int(host.rpartition("/")[2])

    async def carry(source: trio.SocketStream, sink: trio.SocketStream) -> None:
        send, arriving = trio.open_memory_channel[tuple[float, bytes]](1 << 16)

        async def deliver() -> None:
            async for at, data in arriving:
                await trio.sleep_until(at)
                await sink.send_all(data)

        try:
            async with trio.open_nursery() as nursery, send:
                nursery.start_soon(deliver)
                async for data in source:
                    await send.send((trio.current_time() + one_way_s, bytes(data)))
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def both_ways(near: trio.SocketStream) -> None:
        async with near, await trio.open_tcp_stream("127.0.0.1", port) as far, trio.open_nursery() as nursery:
            nursery.start_soon(carry, near, far)
            nursery.start_soon(carry, far, near)

    async with open_background() as background:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        background.start_soon(trio.serve_listeners, both_ways, [listener])
        yield f"/ip4/127.0.0.1/tcp/{listener.socket.getsockname()[1]}/p2p/{peer}"


async def measure(directory: Path, answers: int, rtt_s: float = RTT_S) -> dict[str, list[Sent]]:
    """So many requests each, by how their price came about."""
    watched: list[Watched] = []

    def seen_through(host: Host) -> Host:
        watched.append(Watched(host))
        return watched[-1]

    async with (
        open_town(directory, patience_s=60 + 10 * answers) as town,
        town.provider(price_list=BULK) as provider,
        open_detour(provider.addresses()[0], rtt_s / 2) as far,
        town.client(seen_through, joins=far) as client,
    ):
        await _ask(client)  # a channel is open afterwards
        found: dict[str, list[Sent]] = {"agreed on": [], "agreed on just after another": []}
        for _ in range(answers):
            await trio.sleep(PROBE_KEPT_S)
            for requests in found.values():
                requests.append(await _sent(client, watched[0]))
        day = int(time.time()) + DAY_S
        await client.demand(Wanted(model=MODEL, per_day=max(2, answers), input_tokens=100, output_tokens=20, until=day))
        found["standing"] = [await _sent(client, watched[0]) for _ in range(answers)]
    return found


async def _sent(client: LightPeer, watched: Watched) -> Sent:
    watched.opened.clear()
    begun_at = trio.current_time()
    await _ask(client)
    return Sent(1000 * (watched.sent_at - begun_at), tuple(watched.opened))


async def _ask(client: LightPeer) -> None:
    async with client.chat(question().messages, model=MODEL, max_tokens=10) as answer:
        async for _ in answer:
            pass


def table(found: dict[str, list[Sent]]) -> Sequence[str]:
    """Lines of Markdown."""
    rows = []
    for how, requests in found.items():
        after_ms = sorted(one.after_ms for one in requests)
        median_ms = statistics.median(after_ms)
        times = f"{after_ms[0]:.0f} ms | {median_ms:.0f} ms | {after_ms[-1]:.0f} ms"
        rows.append(f"| {how} | {len(requests[0].streams)} | {times} | {after_ms[0] / RTT_S / 1000:.1f} |")
    headings = "| the price is | streams | least | median | most | round trips in the least |"
    return [headings, "|---|---|---|---|---|---|", *rows]
