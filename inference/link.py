"""What an engine's worker and its owner say to each other over a pair of pipes.

A frame is its length (32 bits, big-endian) and one MessagePack map. The owner sends `Open` first and nothing else
until `Ready`. Then every message with an id gets exactly one final word: `Done`, `Value`, `Read`, `Failed` or
`Cancelled`.
"""

from __future__ import annotations

import struct
from typing import Generic, Literal, TypeVar

import msgspec
import trio

from inference.engine import Delta, Finished, ModelInfo, Request, Scored
from inference.errors import BadRequest, BadSettings, ContextOverflow, EngineDied, EngineError, ModelMissing
from inference.exllama.settings import ExLlama
from inference.llamacpp import LlamaCpp
from inference.scripted import Scripted
from inference.upstream import Upstream

MAX_FRAME_BYTES = 8 << 20

Spec = LlamaCpp | ExLlama | Upstream | Scripted
"""Which engine a worker opens, and how."""


class Open(msgspec.Struct, frozen=True, tag="open"):
    spec: Spec


class Health(msgspec.Struct, frozen=True, tag="health"):
    id: int


class Count(msgspec.Struct, frozen=True, tag="count"):
    id: int
    request: Request


class Prefill(msgspec.Struct, frozen=True, tag="prefill"):
    id: int
    request: Request
    tokens: int


class Generate(msgspec.Struct, frozen=True, tag="generate"):
    id: int
    request: Request


class Score(msgspec.Struct, frozen=True, tag="score"):
    id: int
    request: Request
    text: str


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    id: int


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    models: tuple[ModelInfo, ...]
    slots: int


class Piece(msgspec.Struct, frozen=True, tag="piece"):
    id: int
    delta: Delta


class Done(msgspec.Struct, frozen=True, tag="done"):
    id: int
    finished: Finished


class Value(msgspec.Struct, frozen=True, tag="value"):
    id: int
    value: int


class Read(msgspec.Struct, frozen=True, tag="read"):
    id: int
    scored: Scored


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """`id` 0 is the start itself. `text` never quotes a prompt."""

    id: int
    kind: Literal["engine", "model_missing", "bad_request", "bad_settings", "context_overflow"]
    text: str
    prompt_tokens: int = 0
    context: int = 0


class Cancelled(msgspec.Struct, frozen=True, tag="cancelled"):
    id: int


Job = Health | Count | Prefill | Generate | Score
ToWorker = Open | Job | Cancel
FromWorker = Ready | Piece | Done | Value | Read | Failed | Cancelled

_HEADER = struct.Struct(">I")
_encoder = msgspec.msgpack.Encoder()


def encode(message: ToWorker | FromWorker) -> bytes:
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
            raise EngineDied("a frame on the worker's pipe is too large")
        body = await self._take(length)
        if body is None:
            return None
        try:
            return self._decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise EngineDied("a frame on the worker's pipe is no message") from None

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


_KINDS: dict[type[EngineError], Literal["model_missing", "bad_request", "bad_settings"]] = {
    BadSettings: "bad_settings",
    ModelMissing: "model_missing",
    BadRequest: "bad_request",
}


def failed(job: int, error: EngineError) -> Failed:
    """The message that carries `error`."""
    if isinstance(error, ContextOverflow):
        return Failed(job, "context_overflow", str(error), error.prompt_tokens, error.context)
    return Failed(job, _KINDS.get(type(error), "engine"), str(error))


def raised(message: Failed) -> EngineError:
    """The error that `message` carries."""
    match message.kind:
        case "context_overflow":
            return ContextOverflow(message.prompt_tokens, message.context)
        case "model_missing":
            return ModelMissing(message.text)
        case "bad_request":
            return BadRequest(message.text)
        case "bad_settings":
            return BadSettings(message.text)
        case "engine":
            return EngineError(message.text)
