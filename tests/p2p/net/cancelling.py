"""Random cancels of reads, writes and opens over a live connection, while other streams are watched to the byte.

A scope is cancelled when its task comes to its n-th await, whatever that await is: so no await is too short to be hit,
and the numbers, not the machine's speed, decide. The full count is run by `make proof`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import trio
from libp2p.custom_types import TProtocol
from loopback import ECHO, a_host, echo, memory_pair, muxed_pair, raw, until

from p2p.host import Host, PeerAddress, Stream
from p2p.net.muxer import MuxedConn, MuxedStream
from p2p.net.stream import Libp2pStream
from p2p.net.yamux import Yamux
from p2p.net.yamux_stream import Stream as Core

TAPE = "/bombyx/tape/1"
WITNESSES = 3
SIZES = (10, 5_000, 100_000, 600_000)  # of what a trial writes: within a frame, within a window, and beyond
PATIENCE_S = 30.0
NEVER = 1_000_000
FILES = Path("/proc/self/fd")
DIAL_STEPS = 100  # about as many as a dial has, of several tasks


class AtAwait(trio.abc.Instrument):
    """Cancels scopes at the awaits of the tasks that entered them, or of any task."""

    def __init__(self) -> None:
        self._armed: dict[trio.lowlevel.Task | None, list[Any]] = {}
        self.cancelled: Counter[str] = Counter()

    @contextmanager
    def scope(self, what: str, number: int, *, of_any_task: bool = False) -> Iterator[trio.CancelScope]:
        """Cancelled at its `number`-th await; 0 is before it begins."""
        key = None if of_any_task else trio.lowlevel.current_task()
        with trio.CancelScope() as scope:
            if number:
                self._armed[key] = [scope, number]
            else:
                scope.cancel()
            try:
                yield scope
            finally:
                self._armed.pop(key, None)
        self.cancelled[what] += scope.cancelled_caught

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        for key in (task, None):
            if armed := self._armed.get(key):
                armed[1] -= 1
                if armed[1] == 0:
                    armed[0].cancel()


@contextmanager
def instrument() -> Iterator[AtAwait]:
    at_await = AtAwait()
    trio.lowlevel.add_instrument(at_await)
    try:
        yield at_await
    finally:
        trio.lowlevel.remove_instrument(at_await)


class Link(Protocol):
    """A live connection."""

    cores: tuple[Yamux, Yamux]
    awaits: int  # about as many as `streams` has

    async def streams(self) -> tuple[Libp2pStream, Libp2pStream]:
        """Both ends of a new stream. Leaves nothing behind if it is cancelled."""
        ...


class MemoryLink:
    """Two muxed connections back to back."""

    awaits = 2

    def __init__(self, conns: tuple[MuxedConn, MuxedConn]) -> None:
        self._conns = conns
        self.cores = (conns[0].core, conns[1].core)

    async def streams(self) -> tuple[Libp2pStream, Libp2pStream]:
        near = await self._conns[0].open_stream()
        try:
            while (far := await self._conns[1].accept_stream()).state.id != near.state.id:
                pass  # the opening of that one was cancelled
        except BaseException:
            await near.reset()
            raise
        return _seam(near), _seam(far)


class HostLink:
    """Two whole hosts, one of which has dialled the other."""

    awaits = 14

    def __init__(self, near: Host, far: Host) -> None:
        self._near, self._peer = near, far.peer
        self._arrived: dict[int, Libp2pStream] = {}
        self._news = trio.Condition()
        raw(far).set_stream_handler(TProtocol(TAPE), self._arrive)
        ends = [raw(host).get_network().get_connections()[0].muxed_conn.core for host in (near, far)]
        self.cores = (ends[0], ends[1])

    async def _arrive(self, net_stream: Any) -> None:
        self._arrived[net_stream.muxed_stream.state.id] = Libp2pStream(net_stream)
        async with self._news:
            self._news.notify_all()

    async def streams(self) -> tuple[Libp2pStream, Libp2pStream]:
        near = await self._near.open(self._peer, TAPE)
        assert isinstance(near, Libp2pStream)
        number = _core_of(near).id
        try:
            async with self._news:
                while number not in self._arrived:
                    await self._news.wait()
        except BaseException:
            await near.reset()
            raise
        return near, self._arrived.pop(number)


@asynccontextmanager
async def memory_link(dice: random.Random) -> AsyncIterator[Link]:
    async with muxed_pair(raws=memory_pair(dice)) as conns:
        yield MemoryLink(conns)


@asynccontextmanager
async def host_link() -> AsyncIterator[Link]:
    async with a_host("near") as near, a_host("far") as far:
        await near.connect(far.addresses()[0])
        yield HostLink(near, far)


@dataclass
class Report:
    """What was done, and what others saw of it: nothing."""

    cancelled: Counter[str] = field(default_factory=Counter)
    trials: int = 0
    witnessed_bytes: int = 0


async def run(link: Link, count: int, dice: random.Random) -> Report:
    """`count` cancels at least. Raises `AssertionError` for the first byte that is lost, and for what is left over."""
    report = Report()
    queued = _count_queued(link.cores)
    with instrument() as at_await:
        async with trio.open_nursery() as nursery:
            for number in range(WITNESSES):
                near, far = await link.streams()
                nursery.start_soon(echo, far)
                nursery.start_soon(_witness, near, random.Random(number), report)
            known = [{*core._streams} for core in link.cores]
            while at_await.cancelled.total() < count:
                with trio.fail_after(PATIENCE_S):
                    await _trial(link, at_await, queued, dice)
                report.trials += 1
            assert [core.closed for core in link.cores] == [None, None]
            # Well before the far end would give up on a stream that was opened and forgotten.
            await until(lambda: all({*core._streams} <= ids for core, ids in zip(link.cores, known, strict=True)), 3)
            seen = report.witnessed_bytes
            await until(lambda: report.witnessed_bytes > seen)  # they live
            nursery.cancel_scope.cancel()
    report.cancelled = at_await.cancelled
    return report


async def run_dials(count: int, dice: random.Random) -> Report:
    """`count` dials at least, cancelled anywhere on their way. Raises `AssertionError` for what is left over."""
    report = Report()
    with instrument() as at_await:
        async with a_host("far") as far, a_host("near", listen=()) as near:
            far.serve(ECHO, echo)
            near.learn(PeerAddress(far.peer, tuple(far.addresses())))
            swarm = raw(near).get_network()
            before = _open_things()
            while at_await.cancelled.total() < count:
                with at_await.scope("dial", dice.randrange(DIAL_STEPS), of_any_task=True), trio.fail_after(PATIENCE_S):
                    await near.open(far.peer, ECHO)
                for connection in list(swarm.get_connections()):
                    await connection.close()
                report.trials += 1
            await until(lambda: all(now <= then for now, then in zip(_open_things(), before, strict=True)))
            stream = await near.open(far.peer, ECHO)
            await stream.write(b"and yet")
            assert await stream.read(100) == b"and yet"
    report.cancelled = at_await.cancelled
    return report


def _open_things() -> tuple[int, int]:
    """Files, sockets among them, and tasks."""
    return len([*FILES.iterdir()]), trio.lowlevel.current_statistics().tasks_living


async def _trial(link: Link, at_await: AtAwait, queued: Counter[Core], dice: random.Random) -> None:
    """A write that is cut off, a reader that is cut off again and again: what was queued arrives, and no more."""
    if dice.random() < 0.3:
        with at_await.scope("open", dice.randrange(link.awaits)):
            near, _ = await link.streams()
            await near.reset()
    near, far = await link.streams()
    if dice.random() < 0.5:
        near, far = far, near
    before = queued[_core_of(near)]  # the negotiation of the protocol
    data = dice.randbytes(dice.choice(SIZES))
    got = bytearray()

    async def write() -> None:
        with at_await.scope("write", dice.choice([0, 1, 1, 2, 3, 5, NEVER])):
            await near.write(data)
        await near.close()

    async def read() -> None:
        while True:
            with at_await.scope("read", dice.choice([0, 1, 1, NEVER, NEVER, NEVER, NEVER])):
                piece = await far.read(dice.choice([10_000, 65_536]))
                if not piece:
                    return
                got.extend(piece)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        nursery.start_soon(read)
    assert got == data[: queued[_core_of(near)] - before]
    with at_await.scope("close", 0):  # has no await, so it is done all the same
        await (far.close() if dice.random() < 0.5 else far.reset())
    await near.reset()


async def _witness(stream: Stream, dice: random.Random, report: Report) -> None:
    """Bytes that nobody cancels come back as they were sent."""
    while True:
        data = dice.randbytes(dice.choice([1, 100, 40_000]))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.write, data)
            with trio.fail_after(PATIENCE_S):
                for start in range(0, len(data), 1000):
                    piece = data[start : start + 1000]
                    assert await _exactly(stream, len(piece)) == piece
        report.witnessed_bytes += len(data)
        await trio.sleep(0.002)  # so that most of the time goes into what is cancelled


async def _exactly(stream: Stream, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = await stream.read(size - len(data))
        assert piece, "a witness's stream ended"
        data += piece
    return bytes(data)


def _seam(muxed: MuxedStream) -> Libp2pStream:
    """As libp2p would hand it over, less what it counts."""
    return Libp2pStream(
        SimpleNamespace(muxed_stream=muxed, muxed_conn=muxed.muxed_conn, close=muxed.close, reset=muxed.reset)
    )


def _core_of(stream: Any) -> Core:
    core: Core = stream._muxed.state
    return core


def _count_queued(cores: tuple[Yamux, Yamux]) -> Counter[Core]:
    """How many bytes each stream's writes really queued, whether or not they were cancelled later."""
    queued: Counter[Core] = Counter()
    for core in cores:

        def write(stream: Core, data: memoryview, plain: Callable[[Core, memoryview], int] = core.write) -> int:
            taken = plain(stream, data)
            queued[stream] += taken
            return taken

        core.write = write  # type: ignore[method-assign]
    return queued
