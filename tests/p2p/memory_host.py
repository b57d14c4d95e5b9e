"""A network in memory: `p2p.host.Host` and `Stream` without sockets, so that a test owns the time.

Faithful where it matters to the rim: streams are bounded, end, and are reset; a reset drops what was not read yet; what
a handler raises ends its stream only; a dead peer's streams break; DHT records outlive the peers that they name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import trio

from inference.nursery import open_background
from p2p.errors import Error, LocalError, Unavailable
from p2p.host import HANDLER_TIMEOUT_S, Handler, PeerAddress, PeerState, Reached, Stream, Validator
from p2p.protocol.reachability import Status

WINDOW_BYTES = 1 << 16
DRAIN_TIMEOUT_S = 10.0


Tap = Callable[[str, str, bytes], None]
"""Hears (speaker's peer id, protocol, bytes) before they are written."""


class Pipe:
    """One direction of a stream."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._ended = False
        self.broken = False
        self._changed = trio.lowlevel.ParkingLot()

    async def put(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        while True:
            if self.broken:
                raise Unavailable("the stream was reset")
            if self._ended:
                raise LocalError("a write to a stream that we closed")
            taken = WINDOW_BYTES - len(self._data)
            self._data += data[:taken]
            data = data[taken:]
            self._changed.unpark_all()
            if not data:
                return
            await self._changed.park()

    async def take(self, max_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self._data and not self._ended and not self.broken:
            await self._changed.park()
        if self.broken:
            raise Unavailable("the stream was reset")
        data = bytes(self._data[:max_bytes])
        del self._data[:max_bytes]
        self._changed.unpark_all()
        return data

    def end(self) -> None:
        self._ended = True
        self._changed.unpark_all()

    def abandon(self) -> None:
        """Break, unless everything was said and heard."""
        if not self._ended or self._data:
            self.broken = True
            self._changed.unpark_all()


class MemoryStream:
    """See `p2p.host.Stream`."""

    def __init__(
        self,
        peer: str,
        source: str,
        inbound: Pipe,
        outbound: Pipe,
        tap: Callable[[bytes], None],
        rtt_s: float = 0.0,
    ) -> None:
        """What is asked is not answered before a round trip is over."""
        self.peer = peer
        self.source = source
        self._rtt_s = rtt_s
        self._answered_from = 0.0
        self._inbound = inbound
        self._outbound = outbound
        self._tap = tap
        self.over = False

    async def read(self, max_bytes: int) -> bytes:
        if self._rtt_s:
            await trio.sleep_until(self._answered_from)
        return await self._inbound.take(max_bytes)

    async def write(self, data: bytes) -> None:
        self._tap(data)
        self._answered_from = trio.current_time() + self._rtt_s
        await self._outbound.put(data)

    async def close(self) -> None:
        self._outbound.end()
        self.over = True

    async def reset(self) -> None:
        self.break_now()

    def break_now(self) -> None:
        self._inbound.abandon()
        self._outbound.abandon()
        self.over = True

    async def drain(self) -> None:
        await self.close()
        with trio.move_on_after(DRAIN_TIMEOUT_S) as scope:
            try:
                while await self.read(WINDOW_BYTES):
                    pass
            except Unavailable:
                pass
        if scope.cancelled_caught:
            await self.reset()


class MemoryNetwork:
    """Everyone who is there. `faults` holds what handlers should never have raised."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.hosts: dict[str, MemoryHost] = {}
        self.records: defaultdict[str, dict[str, PeerAddress]] = defaultdict(dict)
        self.topics: defaultdict[str, dict[str, Validator]] = defaultdict(dict)
        self.faults: list[Exception] = []
        self.dht_is_down = False
        self.rtt_s = 0.0  # between any two, for streams that are opened from now on
        self.taps: list[Tap] = []

    def tap(self, speaker: str, protocol: str, data: bytes) -> None:
        for tap in self.taps:
            tap(speaker, protocol, data)

    async def join(self, peer: str) -> MemoryHost:
        """A peer of this id, until it is killed or the network ends."""
        host: MemoryHost = await self._nursery.start(self._run, peer)
        return host

    async def _run(self, peer: str, *, task_status: trio.TaskStatus[MemoryHost]) -> None:
        async with trio.open_nursery() as nursery:
            host = self.hosts[peer] = MemoryHost(self, peer, nursery)
            task_status.started(host)
            await trio.sleep_forever()

    def kill(self, peer: str) -> None:
        """The peer is gone from one moment to the next."""
        host = self.hosts.pop(peer)
        host.nursery.cancel_scope.cancel()
        for stream in host.streams:
            stream.break_now()


@asynccontextmanager
async def open_memory_network() -> AsyncIterator[MemoryNetwork]:
    """A network, whose handlers have raised nothing but what they may when it ends."""
    async with open_background() as nursery:
        network = MemoryNetwork(nursery)
        yield network
    assert network.faults == []


class MemoryHost:
    """See `p2p.host.Host`."""

    def __init__(self, network: MemoryNetwork, peer: str, nursery: trio.Nursery) -> None:
        self._network = network
        self.peer = peer
        self.source = f"address of {peer}"  # as others see it; a test may set it
        self.nursery = nursery
        self.streams: list[MemoryStream] = []
        self._handlers: dict[str, tuple[Handler, float]] = {}
        self._met: set[str] = set()
        self._addresses: Sequence[str] = (f"/memory/{peer}/p2p/{peer}",)
        self._moving = trio.Event()

    def addresses(self) -> Sequence[str]:
        return self._addresses

    def reached(self) -> Reached:
        return Reached(Status.PUBLIC)

    def listening(self) -> Sequence[str]:
        return self._addresses

    async def moved(self, since: Sequence[str]) -> None:
        await trio.lowlevel.checkpoint()
        while self._addresses == since:
            await self._moving.wait()

    def move(self, addresses: Sequence[str]) -> None:
        """The test's: from now on the peer is elsewhere."""
        self._addresses = addresses
        self._moving.set()
        self._moving = trio.Event()

    def serve(self, protocol: str, handler: Handler, *, timeout_s: float = HANDLER_TIMEOUT_S) -> None:
        self._handlers[protocol] = handler, timeout_s

    def peers(self) -> Sequence[PeerState]:
        return [PeerState(peer) for peer in sorted(self._network.hosts) if peer != self.peer]

    def learn(self, peer: PeerAddress) -> None:
        """In memory a peer id is all that it takes."""

    async def connect(self, address: str) -> str:
        await trio.lowlevel.checkpoint()
        peer = address.rpartition("/p2p/")[2]
        if peer not in self._network.hosts:
            raise Unavailable(f"cannot connect to {address}")
        self._met.add(peer)
        return peer

    async def rejoin(self) -> int:
        await trio.lowlevel.checkpoint()
        return len(self._met & set(self._network.hosts))

    async def open(self, peer: str, protocol: str) -> Stream:
        await trio.lowlevel.checkpoint()
        other = self._network.hosts.get(peer)
        served = other._handlers.get(protocol) if other else None
        if other is None or served is None:
            raise Unavailable(f"cannot open {protocol} to {peer}")
        there, back = Pipe(), Pipe()
        tap, rtt_s = self._network.tap, self._network.rtt_s
        ours = MemoryStream(peer, other.source, back, there, partial(tap, self.peer, protocol), rtt_s)
        theirs = MemoryStream(self.peer, self.source, there, back, partial(tap, peer, protocol))
        self.streams.append(ours)
        other.streams.append(theirs)
        other.nursery.start_soon(other._handle, *served, theirs)
        return ours

    async def provide(self, key: str) -> None:
        await trio.lowlevel.checkpoint()
        self._require_dht()
        self._network.records[key][self.peer] = PeerAddress(self.peer, tuple(self.addresses()))

    async def withdraw(self, key: str) -> None:
        await trio.lowlevel.checkpoint()
        self._require_dht()
        if self.peer not in self._network.hosts:
            raise Unavailable("the dead withdraw nothing")
        self._network.records[key].pop(self.peer, None)

    async def find_providers(self, key: str, limit: int) -> Sequence[PeerAddress]:
        await trio.lowlevel.checkpoint()
        self._require_dht()
        return list(self._network.records[key].values())[:limit]

    async def publish(self, topic: str, payload: bytes) -> None:
        await trio.lowlevel.checkpoint()
        for peer, validator in list(self._network.topics[topic].items()):
            if peer != self.peer:
                validator(payload, self.peer)

    def subscribe(self, topic: str, validator: Validator) -> AbstractAsyncContextManager[None]:
        return self._subscribed(topic, validator)

    @asynccontextmanager
    async def _subscribed(self, topic: str, validator: Validator) -> AsyncIterator[None]:
        self._network.topics[topic][self.peer] = validator
        try:
            yield
        finally:
            del self._network.topics[topic][self.peer]

    async def _handle(self, handler: Handler, timeout_s: float, stream: MemoryStream) -> None:
        try:
            with trio.fail_after(timeout_s):
                await handler(stream)
        except (Error, trio.TooSlowError):
            await stream.reset()
        except Exception as error:
            self._network.faults.append(error)
            await stream.reset()
        else:
            await stream.drain()

    def _require_dht(self) -> None:
        if self._network.dht_is_down:
            raise Unavailable("the DHT cannot be reached")
