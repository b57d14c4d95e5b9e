"""The Trio shell of the Yamux core, as libp2p's muxed connection and muxed stream.

Three tasks per connection, all children of `MuxedConn.start`: one reads, one writes, one keeps the connection alive.
Streams only change the core and wait for room, so every method of a stream may be cancelled at any point; what many
streams write within one turn of the scheduler leaves in one socket write.
"""

from __future__ import annotations

import logging
import math
import time
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from libp2p.abc import IMuxedConn, IMuxedStream, ISecureConn
from libp2p.custom_types import TProtocol
from libp2p.io.exceptions import IOException
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import (
    MuxedConnUnavailable,
    MuxedStreamClosed,
    MuxedStreamEOF,
    MuxedStreamReset,
)
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream

from p2p.net import yamux, yamux_stream
from p2p.net.address_group import address_of
from p2p.net.pace import Pace, Paces
from p2p.net.unread import Account, Unread
from p2p.net.yamux_stream import StreamEnded, StreamReset

PROTOCOL_ID = TProtocol(yamux.PROTOCOL)
WRITE_AHEAD_BYTES = 256 * 1024  # streams wait while this much is queued for the socket
ACCEPT_BACKLOG = 256  # streams that the peer opened and nobody has taken yet
WRITE_TIMEOUT_S = 30.0  # for what is queued, about `WRITE_AHEAD_BYTES`: a peer slower than 10 kB/s is as good as gone
TURN_S = (
    0.0005  # of work for one connection before it is others' turn: what is read at once can hold thousands of frames
)
TURN_BYTES_MIN, TURN_BYTES_MAX = 1024, 64 * 1024  # the most is what a socket gives at once
CLOSE_TIMEOUT_S = 1.0  # for what is queued to leave before a connection is closed

_log = logging.getLogger(__name__)


class MuxedStream(IMuxedStream):
    """One stream of a `MuxedConn`."""

    def __init__(self, muxed_conn: MuxedConn, state: yamux_stream.Stream) -> None:
        self.muxed_conn = muxed_conn
        self._core = muxed_conn.core
        self.state = state
        self._changes = trio.lowlevel.ParkingLot()  # reads and writes that cannot go on wait here

    async def read(self, n: int | None = None) -> bytes:
        """1 to `n` bytes, or all that is there. Raises `MuxedStreamEOF` at the end and `MuxedStreamReset`."""
        if n == 0:
            return b""
        await trio.lowlevel.checkpoint_if_cancelled()
        while (data := self._take(yamux_stream.WINDOW_BYTES if n is None else n)) is None:
            await self._changes.park()
        if not data:
            raise MuxedStreamEOF("the peer closed its side of the stream")
        self.muxed_conn.flush()
        return data

    def _take(self, max_bytes: int) -> bytes | None:
        try:
            return self._core.read(self.state, max_bytes)
        except StreamReset as error:
            raise MuxedStreamReset(str(error)) from error

    async def write(self, data: bytes) -> None:
        """Queue all of `data`, waiting for the peer's window and for the socket.

        A write that is cancelled has queued a prefix of `data`. Raises `MuxedStreamReset` and `MuxedStreamClosed`.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        rest = memoryview(data)
        while True:
            await self.muxed_conn.room_to_write()
            rest = rest[self._put(rest) :]
            if not rest:
                return
            if self.state.send_window == 0:
                await self._changes.park()

    def _put(self, data: memoryview) -> int:
        try:
            taken = self._core.write(self.state, data)
        except StreamReset as error:
            raise MuxedStreamReset(str(error)) from error
        except StreamEnded as error:
            raise MuxedStreamClosed(str(error)) from error
        self.muxed_conn.flush()
        return taken

    async def close(self) -> None:
        """Close our side; reading goes on."""
        self._core.end(self.state)
        self.muxed_conn.flush()
        self.wake()

    async def reset(self) -> None:
        """Abandon both directions."""
        self._core.reset(self.state)
        self.muxed_conn.flush()
        self.muxed_conn.retry_opening()
        self.wake()

    def wake(self) -> None:
        """Let every waiting read and write look again."""
        self._changes.unpark_all()

    def set_deadline(self, ttl: int) -> None:
        """Part of libp2p's interface that nothing calls: under Trio a deadline is a cancel scope."""
        raise NotImplementedError

    def get_remote_address(self) -> Any:
        return self.muxed_conn.get_remote_address()

    async def __aenter__(self) -> MuxedStream:
        return self


def _turn_after(turn_bytes: int, work_s: float) -> int:
    """How much to take in next time, so that it comes to about `TURN_S` of work."""
    return max(turn_bytes // 2, TURN_BYTES_MIN) if work_s > TURN_S else min(2 * turn_bytes, TURN_BYTES_MAX)


class Shared:
    """What all connections of a host have in common."""

    def __init__(self) -> None:
        self.unread = Unread()
        self.paces = Paces()


class MuxedConn(IMuxedConn):
    """Many streams over one secure connection. libp2p runs `start` for as long as the connection lasts."""

    def __init__(self, conn: ISecureConn, peer_id: ID, shared: Shared | None = None) -> None:
        self.peer_id = peer_id
        self.event_started = trio.Event()
        self.core = yamux.Yamux(initiator=conn.is_initiator, now=trio.current_time())
        self._conn = conn
        shared = shared or Shared()
        self._unread = Account(shared.unread)
        self._pace = Pace(address_of(self), shared.paces)
        # Weak: a stream that nobody holds has nobody to wake, and forgetting it needs no bookkeeping.
        self._streams: weakref.WeakValueDictionary[int, MuxedStream] = weakref.WeakValueDictionary()
        self._backlog = trio.open_memory_channel[MuxedStream](ACCEPT_BACKLOG)
        self._outgoing = trio.lowlevel.ParkingLot()  # the writing task waits here for something to send
        self._room = trio.lowlevel.ParkingLot()  # streams wait here until the socket has taken some
        self._taken = trio.lowlevel.ParkingLot()  # those who open streams wait here for the peer to take earlier ones
        self._write_deadline = math.inf  # for what the socket is taking
        self._scope = trio.CancelScope()  # around the three tasks
        self._stopped = trio.Event()

    @property
    def raw(self) -> Any:
        """What libp2p made of the socket, or of the stream through a relay, below the encryption."""
        return self._conn.raw

    @property
    def is_initiator(self) -> bool:
        return bool(self._conn.is_initiator)

    @property
    def is_established(self) -> bool:
        return self.event_started.is_set() and not self.is_closed

    @property
    def is_closed(self) -> bool:
        """Whether no more streams can be opened. Those that there are may still finish."""
        return self.core.closed is not None or self.core.left is not None

    async def open_stream(self) -> MuxedStream:
        """A new stream, usable at once; waits while the peer is behind with taking others.

        Raises `MuxedConnUnavailable`.
        """
        try:
            while (state := self.core.open()) is None:
                await self._taken.park()
        except yamux.ConnectionEnded as error:
            raise MuxedConnUnavailable(str(error)) from error
        self.flush()
        return self._adopt(state)

    async def accept_stream(self) -> MuxedStream:
        """The next stream that the peer opened. Raises `MuxedConnUnavailable` once there will be no more."""
        try:
            return await self._backlog[1].receive()
        except trio.EndOfChannel as error:
            raise MuxedConnUnavailable(self.core.closed) from error

    async def close(self) -> None:
        """End every stream, give what is queued a moment to leave, and close the channel."""
        self._lose("we closed the connection")
        try:
            if self.event_started.is_set():
                await self._stopped.wait()
        finally:
            await self._conn.close()

    async def start(self) -> None:
        """Carry bytes until the connection is over. Never raises anything but `Cancelled`."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self.event_started.set()
                    self.core.ping(trio.current_time())
                    for task in (self._read, self._write, self._keep_alive):
                        nursery.start_soon(self._carry_on, task)
        finally:
            self._lose("the connection was closed")
            self._stopped.set()
            self._unread.set(0)  # whoever still holds a stream may read on
            with trio.CancelScope(shield=True):
                await self._conn.close()

    async def wait_stopped(self) -> None:
        """Return once the connection is over and nothing of it is left to be sent."""
        await self._stopped.wait()

    async def _carry_on(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run one of the three tasks; when one of them ends, the channel is of no use to the others."""
        try:
            await task()
        except (IOException, OSError) as error:
            self._lose(str(error))
        except Exception:
            _log.exception("a fault of ours ended a connection")  # one connection, not the node
            self._lose("internal error", yamux.GoAway.INTERNAL_ERROR)
        self._scope.cancel()

    async def _read(self) -> None:
        turn_bytes = TURN_BYTES_MAX
        while self.core.closed is None:
            await self._unread.room()
            data = await self._conn.read()
            while data:
                turn, data = data[:turn_bytes], data[turn_bytes:]
                work_s = self._take_in(turn)
                turn_bytes = _turn_after(turn_bytes, work_s)
                await self._pace.keep(work_s)
                if data:
                    await trio.lowlevel.checkpoint()
        await trio.sleep_forever()  # until the writing task has sent the reason

    def _take_in(self, data: bytes) -> float:
        """Do what it says; the seconds of work that it was."""
        began_at = time.thread_time()
        self._handle(self.core.receive(data, trio.current_time()))
        return time.thread_time() - began_at

    async def _write(self) -> None:
        while True:
            if data := self.core.data_to_send():
                self._room.unpark_all()
                self._write_deadline = trio.current_time() + WRITE_TIMEOUT_S
                await self._conn.write(data)
                self._write_deadline = math.inf
            elif self.core.closed is not None:
                return
            else:
                await self._outgoing.park()

    async def _keep_alive(self) -> None:
        while self.core.closed is None:
            await trio.sleep_until(min(self.core.deadline(), self._write_deadline))
            if trio.current_time() >= self._write_deadline:
                self._lose("the peer does not read")
            self._handle(self.core.tick(trio.current_time()))
        await trio.sleep_forever()

    def _lose(self, reason: str, code: yamux.GoAway = yamux.GoAway.NORMAL) -> None:
        self._handle(self.core.close(reason, code))

    def _handle(self, events: list[yamux.Event]) -> None:
        for event in events:
            match event:
                case yamux.Opened(state):
                    self._offer(self._adopt(state))
                case yamux.Closed():
                    self._wind_down()
                case yamux.Readable(state) | yamux.Writable(state) | yamux.Reset(state):
                    if stream := self._streams.get(state.id):
                        stream.wake()
        self.retry_opening()
        self.flush()

    def _adopt(self, state: yamux_stream.Stream) -> MuxedStream:
        stream = self._streams[state.id] = MuxedStream(self, state)
        return stream

    def _offer(self, stream: MuxedStream) -> None:
        try:
            self._backlog[0].send_nowait(stream)
        except trio.WouldBlock:
            self.core.reset(stream.state)

    def _wind_down(self) -> None:
        """The core is closed: let everyone notice, and give the writing task a moment for what is queued."""
        self._scope.deadline = min(self._scope.deadline, trio.current_time() + CLOSE_TIMEOUT_S)
        self._backlog[0].close()
        self._room.unpark_all()
        for stream in list(self._streams.values()):
            stream.wake()
        self.flush()

    def flush(self) -> None:
        """Have what the core has queued sent at the next turn. Called after every change of the core."""
        if not self._stopped.is_set():
            self._unread.set(self.core.unread_bytes)
        if self.core.bytes_queued or self.core.closed is not None:
            self._outgoing.unpark_all()

    def retry_opening(self) -> None:
        """Let those who wait for the peer to take streams look again."""
        self._taken.unpark_all()

    async def room_to_write(self) -> None:
        """Wait while the socket is behind. The caller then writes at once, so that a crowd cannot overshoot."""
        while self.core.bytes_queued >= WRITE_AHEAD_BYTES and self.core.closed is None:
            await self._room.park()

    # Part of libp2p's interface; its types are opaque to us, so these hand on what the layer below says.

    def get_remote_address(self) -> Any:
        return self._conn.get_remote_address()

    def get_transport_addresses(self) -> Any:
        return self._conn.get_transport_addresses()

    def get_connection_type(self) -> Any:
        return self._conn.get_connection_type()


class YamuxNegotiation(MuxerMultistream):
    """libp2p's muxer negotiation, ending in our muxer: 0.8.1 ignores the class given for Yamux in `muxer_opt`.

    The one place where our muxer is plugged in: `swarm.upgrader.muxer_multistream = YamuxNegotiation()`.
    """

    def __init__(self) -> None:
        super().__init__({PROTOCOL_ID: MuxedConn})
        self._shared = Shared()

    async def new_conn(self, conn: ISecureConn, peer_id: ID) -> MuxedConn:
        protocol, _ = await self._selector.select(conn, conn.is_initiator, self.negotiate_timeout)
        muxed: MuxedConn = self._annotate_connection(MuxedConn(conn, peer_id, self._shared), conn, protocol)
        return muxed
