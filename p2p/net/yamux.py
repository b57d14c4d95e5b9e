"""Core: Yamux (`/yamux/1.0.0`), many streams over one reliable byte channel. No I/O, no clock, no tasks.

The wire is that of https://github.com/hashicorp/yamux/blob/master/spec.md, as go-libp2p and js-libp2p speak it.
A frame is a 12-byte header (version, type, flags, stream id, length; big-endian) and, for data only, a body.

Bytes from the peer go into `receive`, bytes for the peer come out of `data_to_send`. Both directions of every stream
are flow-controlled: `write` takes only what the peer's window allows, and a peer that sends more than ours allows has
broken the protocol. So the bytes that wait to be read never exceed a window per stream.
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

PROTOCOL = "/yamux/1.0.0"
WINDOW_BYTES = 256 * 1024  # the initial window that the specification fixes; we never enlarge ours
MAX_BODY_BYTES = 65_507  # a full frame then fills one Noise message: 65535 - 16 (tag) - 12 (header)
MAX_INBOUND_STREAMS = 256
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
    """Why a connection is ended, as it is told to the peer."""

    NORMAL = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2


class YamuxError(Exception):
    """The root of this module's errors."""


class ConnectionEnded(YamuxError):
    """The connection is over, so the call makes no sense any more."""


class StreamReset(YamuxError):
    """One of the ends abandoned the stream, or its connection ended."""


class StreamEnded(YamuxError):
    """A write after we said that nothing more would be written."""


class _ProtocolError(YamuxError):
    """The peer broke the protocol. Never leaves `receive`."""


class Stream:
    """The state of one stream. Made by `Yamux.open` or handed over in `Opened`; only `Yamux` changes it."""

    __slots__ = ("ended", "id", "peer_ended", "receive_window", "received", "reset", "send_window", "uncredited")

    def __init__(self, stream_id: int) -> None:
        self.id = stream_id
        self.received = bytearray()  # arrived and not yet read
        self.send_window = WINDOW_BYTES  # what the peer will still take
        self.receive_window = WINDOW_BYTES  # what the peer may still send
        self.uncredited = 0  # read, and not yet given back to the peer's window
        self.ended = False  # we said that we write no more
        self.peer_ended = False  # the peer said so
        self.reset = False

    def __repr__(self) -> str:
        return f"Stream({self.id})"


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
    """The peer abandoned `stream`."""

    stream: Stream


class Closed(NamedTuple):
    """The connection is over. Send what `data_to_send` still holds, then close the channel."""

    reason: str


Event = Opened | Readable | Writable | Reset | Closed


class Yamux:
    """One end of a connection. `now` is any monotonic clock in seconds, the same in every call."""

    def __init__(self, *, initiator: bool, now: float, max_inbound_streams: int = MAX_INBOUND_STREAMS) -> None:
        self._next_id = 1 if initiator else 2
        self._peer_parity = 0 if initiator else 1  # of the ids that the peer may open
        self._max_inbound_streams = max_inbound_streams
        self._inbound_streams = 0
        self._streams: dict[int, Stream] = {}
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self._heard_at = now
        self._asked_at: float | None = None
        self._pings = 0
        self.closed: str | None = None  # why, once the connection is over

    # What the channel does

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take bytes from the peer, cut in any way. After a broken rule the only event left is `Closed`."""
        events: list[Event] = []
        if self.closed is not None:
            return events
        self._heard_at, self._asked_at = now, None
        self._incoming += data
        try:
            self._take_frames(events)
            self._check_answers()
        except _ProtocolError as error:
            events.append(self._close(GoAway.PROTOCOL_ERROR, str(error)))
        return events

    def connection_lost(self, reason: str) -> list[Event]:
        """The channel itself ended, for example because the peer closed it."""
        return [] if self.closed is not None else [self._close(GoAway.NORMAL, reason)]

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
        if self._asked_at is not None:
            return [self._close(GoAway.INTERNAL_ERROR, "the peer fell silent")]
        self._asked_at = now
        self._pings = (self._pings + 1) & _MAX_UINT32
        self._send(_Type.PING, _SYN, 0, self._pings)
        return []

    # What the streams do

    def open(self) -> Stream:
        """A new stream, usable at once. Raises `ConnectionEnded`."""
        if self.closed is not None:
            raise ConnectionEnded(self.closed)
        if self._next_id > _MAX_UINT32:
            raise ConnectionEnded("all stream ids are used up")
        stream = self._streams[self._next_id] = Stream(self._next_id)
        self._next_id += 2
        self._send(_Type.WINDOW_UPDATE, _SYN, stream.id, 0)
        return stream

    def read(self, stream: Stream, max_bytes: int) -> bytes | None:
        """1 to `max_bytes` bytes, `b""` at the end of the stream, `None` for nothing yet.

        Raises `StreamReset`; after the end of the connection only once everything that had arrived was read.
        """
        if stream.reset:
            raise StreamReset("the stream was reset")
        if not stream.received:
            if stream.peer_ended:
                return b""
            if self.closed is not None:
                raise StreamReset(self.closed)
            return None
        data = bytes(stream.received[:max_bytes])
        del stream.received[: len(data)]
        self._credit(stream, len(data))
        self._forget_if_over(stream)
        return data

    def write(self, stream: Stream, data: memoryview) -> int:
        """Queue as much of `data` as one frame and the peer's window take; the number of bytes taken may be 0.

        Raises `StreamReset` or `StreamEnded`.
        """
        if stream.reset or self.closed is not None:
            raise StreamReset(self.closed or "the stream was reset")
        if stream.ended:
            raise StreamEnded("the stream was closed for writing")
        size = min(len(data), stream.send_window, MAX_BODY_BYTES)
        if size:
            stream.send_window -= size
            self._send(_Type.DATA, 0, stream.id, size, data[:size])
        return size

    def end(self, stream: Stream) -> None:
        """Say that nothing more will be written. Reading goes on."""
        if stream.reset or stream.ended:
            return
        stream.ended = True
        self._send(_Type.WINDOW_UPDATE, _FIN, stream.id, 0)
        self._forget_if_over(stream)

    def reset(self, stream: Stream) -> None:
        """Abandon both directions; whatever was received and not read is gone."""
        if stream.reset:
            return
        if not (stream.ended and stream.peer_ended):  # otherwise the peer has finished with it
            self._send(_Type.WINDOW_UPDATE, _RST, stream.id, 0)
        self._abandon(stream)

    def go_away(self) -> None:
        """End the connection in good order: the peer is told after everything that is queued."""
        if self.closed is None:
            self._close(GoAway.NORMAL, "we closed the connection")

    # Frames in

    def _take_frames(self, events: list[Event]) -> None:
        """Work through every whole frame in `_incoming`."""
        buffer, start = self._incoming, 0
        while len(buffer) - start >= _HEADER.size and self.closed is None:
            version, kind, flags, stream_id, length = _HEADER.unpack_from(buffer, start)
            if version != 0 or kind > _Type.GO_AWAY or flags & ~_KNOWN_FLAGS:
                raise _ProtocolError(f"unknown frame: version {version}, type {kind}, flags {flags:#x}")
            end = start + _HEADER.size
            if kind == _Type.DATA:
                self._check_room(stream_id, length)
                end += length
                if len(buffer) < end:
                    break
            self._take_frame(kind, flags, stream_id, length, buffer[start + _HEADER.size : end], events)
            start = end
        del buffer[:start]

    def _check_room(self, stream_id: int, length: int) -> None:
        """Refuse a body that breaks flow control by its header, before any of it is kept."""
        stream = self._streams.get(stream_id)
        if length > (WINDOW_BYTES if stream is None else stream.receive_window):
            raise _ProtocolError(f"{length} bytes exceed the window of stream {stream_id}")

    def _take_frame(
        self, kind: int, flags: int, stream_id: int, length: int, body: bytearray, events: list[Event]
    ) -> None:
        if kind == _Type.PING:
            self._take_ping(flags, length)
        elif kind == _Type.GO_AWAY:
            events.append(self._close(GoAway.NORMAL, f"the peer went away, code {length}"))
        else:
            stream = self._accept(stream_id, events) if flags & _SYN else self._streams.get(stream_id)
            if stream is not None:  # otherwise it was reset, and this was under way
                if kind == _Type.DATA:
                    self._take_body(stream, body, events)
                else:
                    self._widen(stream, length, events)
                self._take_endings(stream, flags, events)

    def _take_ping(self, flags: int, value: int) -> None:
        if flags & _SYN:
            self._send(_Type.PING, _ACK, 0, value)

    def _accept(self, stream_id: int, events: list[Event]) -> Stream | None:
        """A stream that the peer opens; `None` for one too many, which is reset."""
        if stream_id == 0 or stream_id & 1 != self._peer_parity or stream_id in self._streams:
            raise _ProtocolError(f"the peer cannot open stream {stream_id}")
        if self._inbound_streams >= self._max_inbound_streams:
            self._send(_Type.WINDOW_UPDATE, _RST, stream_id, 0)
            return None
        self._inbound_streams += 1
        stream = self._streams[stream_id] = Stream(stream_id)
        self._send(_Type.WINDOW_UPDATE, _ACK, stream_id, 0)
        events.append(Opened(stream))
        return stream

    def _take_body(self, stream: Stream, body: bytearray, events: list[Event]) -> None:
        if not body:
            return
        if stream.peer_ended:
            raise _ProtocolError(f"data after the end of stream {stream.id}")
        stream.receive_window -= len(body)
        stream.received += body
        events.append(Readable(stream))

    def _widen(self, stream: Stream, delta: int, events: list[Event]) -> None:
        if not delta:
            return
        stream.send_window += delta
        if stream.send_window > _MAX_UINT32:
            raise _ProtocolError(f"the window of stream {stream.id} grew beyond 32 bits")
        events.append(Writable(stream))

    def _take_endings(self, stream: Stream, flags: int, events: list[Event]) -> None:
        if flags & _RST:
            self._abandon(stream)
            events.append(Reset(stream))
        elif flags & _FIN and not stream.peer_ended:
            stream.peer_ended = True
            events.append(Readable(stream))
            self._forget_if_over(stream)

    # Bookkeeping

    def _credit(self, stream: Stream, size: int) -> None:
        """Give read bytes back to the peer's window, by half windows: an update per read would double the frames."""
        stream.uncredited += size
        if stream.uncredited >= WINDOW_BYTES // 2 and not stream.peer_ended and self.closed is None:
            self._send(_Type.WINDOW_UPDATE, 0, stream.id, stream.uncredited)
            stream.receive_window += stream.uncredited
            stream.uncredited = 0

    def _forget_if_over(self, stream: Stream) -> None:
        """Both ends have finished and everything was read. Until then the stream counts."""
        if stream.ended and stream.peer_ended and not stream.received:
            self._forget(stream)

    def _abandon(self, stream: Stream) -> None:
        stream.reset = True
        stream.received = bytearray()
        self._forget(stream)

    def _forget(self, stream: Stream) -> None:
        if self._streams.pop(stream.id, None) is not None and stream.id & 1 == self._peer_parity:
            self._inbound_streams -= 1

    def _close(self, code: GoAway, reason: str) -> Closed:
        self._send(_Type.GO_AWAY, 0, 0, code)
        self.closed = reason
        self._streams.clear()
        self._incoming.clear()
        return Closed(reason)

    def _check_answers(self) -> None:
        """End a connection whose peer asks (pings, streams that are refused) without reading the answers.

        Data is held back by whoever drains the queue; answers are all that can grow without it.
        """
        if len(self._outgoing) > MAX_QUEUED_BYTES:
            raise _ProtocolError("the peer does not read")

    def _send(self, kind: _Type, flags: int, stream_id: int, length: int, body: memoryview | bytes = b"") -> None:
        if self.closed is None:
            self._outgoing += _HEADER.pack(0, kind, flags, stream_id, length)
            self._outgoing += body
