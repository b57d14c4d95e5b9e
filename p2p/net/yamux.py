"""Core: Yamux (`/yamux/1.0.0`), many streams over one reliable byte channel. No I/O, no clock, no tasks.

The wire is that of https://github.com/hashicorp/yamux/blob/master/spec.md, as go-libp2p and js-libp2p speak it.
A frame is a 12-byte header (version, type, flags, stream id, length; big-endian) and, for data only, a body.

Bytes from the peer go into `receive`, bytes for the peer come out of `data_to_send`. Both directions of every stream
are flow-controlled: `write` takes only what the peer's window allows, and a peer that sends more than ours allows has
broken the protocol. So the bytes that wait to be read never exceed a window per stream, nor `MAX_UNREAD_BYTES`.
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

from p2p.net.yamux_stream import WINDOW_BYTES, Move, ProtocolError, State, Stream, StreamReset, YamuxError

PROTOCOL = "/yamux/1.0.0"
MAX_BODY_BYTES = 65_507  # a full frame then fills one Noise message: 65535 - 16 (tag) - 12 (header)
MAX_INBOUND_STREAMS = 256
# Streams that we opened and the peer has not taken yet: libp2p's specification says how many it should have room for.
MAX_UNACKNOWLEDGED_STREAMS = 256
MAX_UNREAD_BYTES = 16 * 1024 * 1024  # of all streams together: 64 full windows
MAX_QUEUED_BYTES = 1024 * 1024  # a peer that lets this much wait does not read
KEEP_ALIVE_INTERVAL_S = 15.0  # after this long without a byte from the peer, ask
KEEP_ALIVE_TIMEOUT_S = 10.0  # and after this long without an answer, give up

_HEADER = struct.Struct(">BBHII")
_MAX_UINT32 = 0xFFFF_FFFF


class _Type(enum.IntEnum):
    DATA = 0
    WINDOW_UPDATE = 1
    PING = 2
    GO_AWAY = 3


_SYN, _ACK, _FIN, _RST = 1, 2, 4, 8
_KNOWN_FLAGS = _SYN | _ACK | _FIN | _RST


class GoAway(enum.IntEnum):
    """Why a connection is ended, as it is told to the peer. Others may have more codes."""

    NORMAL = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2


class ConnectionEnded(YamuxError):
    """The connection is over, so the call makes no sense any more."""


class Opened(NamedTuple):
    """The peer opened `stream`."""

    stream: Stream


class Readable(NamedTuple):
    """`stream` has bytes to read, or has ended."""

    stream: Stream


class Writable(NamedTuple):
    """The peer's window for `stream` grew."""

    stream: Stream


class Reset(NamedTuple):
    """`stream` was abandoned: by the peer, or because too much waited to be read."""

    stream: Stream


class Closed(NamedTuple):
    """The connection is over. Send what `data_to_send` still holds, then close the channel."""

    reason: str


Event = Opened | Readable | Writable | Reset | Closed


class Yamux:
    """One end of a connection. `now` is any monotonic clock in seconds, the same in every call."""

    def __init__(
        self,
        *,
        initiator: bool,
        now: float,
        max_inbound_streams: int = MAX_INBOUND_STREAMS,
        max_unread_bytes: int = MAX_UNREAD_BYTES,
    ) -> None:
        self._next_id = 1 if initiator else 2
        self._peer_parity = 0 if initiator else 1  # of the ids that the peer may open
        self._max_inbound_streams = max_inbound_streams
        self._max_unread_bytes = max_unread_bytes
        self._inbound_streams = 0
        self._unacknowledged = 0
        self.unread_bytes = 0  # of all streams
        self._streams: dict[int, Stream] = {}
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self._heard_at = now
        self._asked_at: float | None = None
        self._pings = 0
        self._pinged_at: float | None = None
        self.rtt_s: float | None = None  # as the last answer to a ping had it
        self.broken = False  # whether the peer broke the protocol
        self.left: str | None = None  # why there will be no more streams of ours, once the peer has said so
        self.closed: str | None = None  # why, once the connection is over

    # What the channel does

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take bytes from the peer, cut in any way. After a broken rule the only event left is `Closed`."""
        events: list[Event] = []
        if self.closed is not None:
            return events
        self._heard_at, self._asked_at = now, None
        try:
            self._incoming += data
            with memoryview(self._incoming) as view:
                taken = self._take_frames(view, events)
            del self._incoming[:taken]
            self._check_answers()
        except ProtocolError as error:
            self.broken = True
            events.append(self._close(GoAway.PROTOCOL_ERROR, str(error)))
        else:
            events += self._close_if_left()
        return events

    def close(self, reason: str, code: GoAway = GoAway.NORMAL) -> list[Event]:
        """End the connection for good; the peer is told after everything that is queued, if it still listens."""
        return [] if self.closed is not None else [self._close(code, reason)]

    @property
    def bytes_queued(self) -> int:
        """How much `data_to_send` would return."""
        return len(self._outgoing)

    def data_to_send(self) -> bytes:
        """Everything queued for the peer; it is the caller's from now on."""
        data = bytes(self._outgoing)
        self._outgoing.clear()
        return data

    def deadline(self) -> float:
        """When `tick` is next due. Hearing from the peer moves it back."""
        if self._asked_at is not None:
            return self._asked_at + KEEP_ALIVE_TIMEOUT_S
        return self._heard_at + KEEP_ALIVE_INTERVAL_S

    def tick(self, now: float) -> list[Event]:
        """Ask a silent peer whether it is there, and give up on one that does not answer."""
        if self.closed is not None or now < self.deadline():
            return []
        if left := self._close_if_left():
            return left
        if self._asked_at is not None:
            return [self._close(GoAway.INTERNAL_ERROR, "the peer fell silent")]
        self._asked_at = now
        self.ping(now)
        return []

    def ping(self, now: float) -> None:
        """Ask the peer to answer, which tells the round trip."""
        self._pings = (self._pings + 1) & _MAX_UINT32
        self._pinged_at = now
        self._send(_Type.PING, _SYN, 0, self._pings)

    # What the streams do

    def open(self) -> Stream | None:
        """A new stream, usable at once; `None` while the peer has not taken enough of the earlier ones.

        Raises `ConnectionEnded`.
        """
        if (ended := self.closed or self.left) is not None:
            raise ConnectionEnded(ended)
        if self._next_id > _MAX_UINT32:
            raise ConnectionEnded("all stream ids are used up")
        if self._unacknowledged >= MAX_UNACKNOWLEDGED_STREAMS:
            return None
        stream = self._streams[self._next_id] = Stream(self._next_id, acknowledged=False)
        self._next_id += 2
        self._unacknowledged += 1
        self._send(_Type.WINDOW_UPDATE, _SYN, stream.id, 0)
        return stream

    def read(self, stream: Stream, max_bytes: int) -> bytes | None:
        """1 to `max_bytes` bytes, `b""` at the end of the stream, `None` for nothing yet.

        Raises `StreamReset`; after the end of the connection only once everything that had arrived was read.
        """
        if stream.reset:
            raise StreamReset("the stream was reset")
        if not stream.received:
            if stream.remote_closed:
                return b""
            if self.closed is not None:
                raise StreamReset(self.closed)
            return None
        data = stream.take_out(max_bytes)
        self.unread_bytes -= len(data)
        if granted := stream.credit(len(data)):
            self._send(_Type.WINDOW_UPDATE, 0, stream.id, granted)
        if stream.over:
            self._forget(stream)
        return data

    def write(self, stream: Stream, data: memoryview) -> int:
        """Queue as much of `data` as one frame and the peer's window take; the number of bytes taken may be 0.

        Raises `StreamReset` or `StreamEnded`.
        """
        if self.closed is not None:
            raise StreamReset(self.closed)
        size = stream.spend(min(len(data), MAX_BODY_BYTES))
        if size:
            self._send(_Type.DATA, 0, stream.id, size, data[:size])
        return size

    def end(self, stream: Stream) -> None:
        """Say that nothing more will be written. Reading goes on."""
        before = stream.state
        stream.move(Move.CLOSE)
        if stream.state is not before:
            self._send(_Type.WINDOW_UPDATE, _FIN, stream.id, 0)
        if stream.over:
            self._forget(stream)

    def reset(self, stream: Stream) -> None:
        """Abandon both directions; whatever was received and not read is gone."""
        if not stream.reset:
            if stream.state is not State.CLOSED:  # otherwise the peer has finished with it
                self._send(_Type.WINDOW_UPDATE, _RST, stream.id, 0)
            stream.move(Move.RESET)
            self._drop(stream)

    # Frames in

    def _take_frames(self, view: memoryview, events: list[Event]) -> int:
        """Work through every whole frame in `view`; returns how many bytes they were."""
        start = 0
        while len(view) - start >= _HEADER.size and self.closed is None:
            version, kind, flags, stream_id, length = _HEADER.unpack_from(view, start)
            if version != 0 or kind > _Type.GO_AWAY or flags & ~_KNOWN_FLAGS:
                raise ProtocolError(f"unknown frame: version {version}, type {kind}, flags {flags:#x}")
            end = start + _HEADER.size
            if kind == _Type.DATA:
                self._check_room(stream_id, length)
                end += length
                if len(view) < end:
                    break
            if kind == _Type.PING:
                self._take_ping(flags, length)
            elif kind == _Type.GO_AWAY:
                self._take_go_away(length, events)
            elif (stream := self._stream_of(flags, stream_id, events)) is not None:
                if kind == _Type.DATA:
                    self._take_body(stream, view[start + _HEADER.size : end], events)
                else:
                    self._widen(stream, length, events)
                if flags & (_FIN | _RST):
                    self._take_ending(stream, flags, events)
            start = end
        return start

    def _check_room(self, stream_id: int, length: int) -> None:
        """Refuse a body that breaks flow control by its header, before any of it is kept."""
        stream = self._streams.get(stream_id)
        if length > (WINDOW_BYTES if stream is None else stream.receive_window):
            raise ProtocolError(f"{length} bytes exceed the window of stream {stream_id}")

    def _take_ping(self, flags: int, value: int) -> None:
        if flags & _SYN:
            self._send(_Type.PING, _ACK, 0, value)
        elif value == self._pings and self._pinged_at is not None:
            self.rtt_s, self._pinged_at = self._heard_at - self._pinged_at, None

    def _take_go_away(self, code: int, events: list[Event]) -> None:
        """A peer that leaves in good order lets the streams finish that there are."""
        if code == GoAway.NORMAL:
            self.left = "the peer went away"
        else:
            events.append(self._close(GoAway.NORMAL, f"the peer went away, code {code}"))

    def _stream_of(self, flags: int, stream_id: int, events: list[Event]) -> Stream | None:
        """The stream of a frame; `None` for one that we do not have, or not any more: this was under way."""
        if flags & _SYN:
            return self._accept(stream_id, events)
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.acknowledged:  # whatever the peer says of it, it has taken it
            self._acknowledge(stream)
        return stream

    def _accept(self, stream_id: int, events: list[Event]) -> Stream | None:
        """A stream that the peer opens; `None` for one too many, which is reset.

        It is acknowledged at once: whoever drives us hands it to a task of its own, and their number is bounded here.
        """
        if stream_id == 0 or stream_id & 1 != self._peer_parity or stream_id in self._streams:
            raise ProtocolError(f"the peer cannot open stream {stream_id}")
        if self._inbound_streams >= self._max_inbound_streams:
            self._send(_Type.WINDOW_UPDATE, _RST, stream_id, 0)
            return None
        self._inbound_streams += 1
        stream = self._streams[stream_id] = Stream(stream_id, acknowledged=True)
        self._send(_Type.WINDOW_UPDATE, _ACK, stream_id, 0)
        events.append(Opened(stream))
        return stream

    def _take_body(self, stream: Stream, body: memoryview, events: list[Event]) -> None:
        if not body:
            return
        stream.take_in(body)
        self.unread_bytes += len(body)
        if self.unread_bytes > self._max_unread_bytes:
            self.reset(stream)
            events.append(Reset(stream))
        else:
            events.append(Readable(stream))

    def _widen(self, stream: Stream, delta: int, events: list[Event]) -> None:
        if not delta:
            return
        stream.send_window += delta
        if stream.send_window > _MAX_UINT32:
            raise ProtocolError(f"the window of stream {stream.id} grew beyond 32 bits")
        events.append(Writable(stream))

    def _take_ending(self, stream: Stream, flags: int, events: list[Event]) -> None:
        if stream.reset:  # by us, just now
            return
        stream.move(Move.HEAR_RESET if flags & _RST else Move.HEAR_CLOSE)
        if stream.state is State.RESET:
            self._drop(stream)
            events.append(Reset(stream))
        else:
            events.append(Readable(stream))
            if stream.over:
                self._forget(stream)

    # Bookkeeping

    def _acknowledge(self, stream: Stream) -> None:
        stream.acknowledged = True
        self._unacknowledged -= 1

    def _drop(self, stream: Stream) -> None:
        """Nobody will read what is left of it."""
        self.unread_bytes -= len(stream.received)
        stream.received = bytearray()
        self._forget(stream)

    def _forget(self, stream: Stream) -> None:
        if self._streams.pop(stream.id, None) is None:
            return
        if stream.id & 1 == self._peer_parity:
            self._inbound_streams -= 1
        elif not stream.acknowledged:
            self._acknowledge(stream)

    def _close_if_left(self) -> list[Event]:
        """A connection that the peer has left ends with its last stream, as soon as anything happens on it."""
        if self.closed is None and self.left is not None and not self._streams:
            return [self._close(GoAway.NORMAL, self.left)]
        return []

    def _close(self, code: GoAway, reason: str) -> Closed:
        self._send(_Type.GO_AWAY, 0, 0, code)
        self.closed = reason
        self._streams.clear()
        self._incoming = bytearray()  # a new one, because the old may still be looked at
        return Closed(reason)

    def _check_answers(self) -> None:
        """End a connection whose peer asks (pings, streams that are refused) without reading the answers.

        Data is held back by whoever drains the queue; answers are all that can grow without it.
        """
        if len(self._outgoing) > MAX_QUEUED_BYTES:
            raise ProtocolError("the peer does not read")

    def _send(self, kind: _Type, flags: int, stream_id: int, length: int, body: memoryview | bytes = b"") -> None:
        if self.closed is None:
            self._outgoing += _HEADER.pack(0, kind, flags, stream_id, length)
            self._outgoing += body
