"""How processes of ours speak over a pair of pipes: in frames, each its length (32 bits, big-endian) and one
MessagePack map.
"""

from __future__ import annotations

import struct
from typing import BinaryIO, Generic, TypeVar

import msgspec
import trio

from inference.errors import BadRequest, EngineDied

MAX_FRAME_BYTES = 8 << 20

_HEADER = struct.Struct(">I")
_encoder = msgspec.msgpack.Encoder()


def encode(message: object) -> bytes:
    """A whole frame. Raises `BadRequest` for what cannot be encoded or is too large."""
    try:
        body = _encoder.encode(message)
    except (TypeError, ValueError, OverflowError):
        raise BadRequest("the request is malformed") from None
    if len(body) > MAX_FRAME_BYTES:
        raise BadRequest("the request is too large")
    return _HEADER.pack(len(body)) + body


Received = TypeVar("Received")


class Inbox(Generic[Received]):
    """Reads typed frames from a pipe."""

    def __init__(self, stream: trio.abc.ReceiveStream, decoder: msgspec.msgpack.Decoder[Received]) -> None:
        self._stream = stream
        self._decoder = decoder
        self._buffer = bytearray()

    async def next(self) -> Received | None:
        """The next message, or None at the end. Raises `EngineDied` for anything that is no message."""
        header = await self._take(_HEADER.size)
        if header is None:
            return None
        (length,) = _HEADER.unpack(header)
        if length > MAX_FRAME_BYTES:
            raise EngineDied("a frame on the pipe is too large")
        body = await self._take(length)
        if body is None:
            return None
        try:
            return self._decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise EngineDied("a frame on the pipe is no message") from None

    async def _take(self, size: int) -> bytes | None:
        while len(self._buffer) < size:
            try:
                received = await self._stream.receive_some()
            except trio.BrokenResourceError:
                return None
            if not received:
                return None
            self._buffer += received
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken


def receive(pipe: BinaryIO, decoder: msgspec.msgpack.Decoder[Received]) -> Received | None:
    """The next message from a pipe that may block; None at its end."""
    header = pipe.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    (length,) = _HEADER.unpack(header)
    body = pipe.read(length)
    return decoder.decode(body) if len(body) == length else None


async def drain(outbox: trio.MemoryReceiveChannel[bytes], stream: trio.abc.SendStream) -> None:
    """Write frames as they come, as many at once as there are; the pipe's only writer. Ends when the pipe breaks."""
    async for frame in outbox:
        frames = [frame]
        while outbox.statistics().current_buffer_used:
            frames.append(outbox.receive_nowait())
        try:
            await stream.send_all(b"".join(frames))
        except trio.BrokenResourceError:
            return
