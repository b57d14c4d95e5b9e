"""Typed messages over a byte stream: the rim's side of `p2p.protocol.wire`."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Generic, TypeVar

import msgspec
import trio

from p2p.errors import RemoteError, Unavailable
from p2p.host import Host, Stream
from p2p.protocol.wire import FrameReader, decode, frame
from p2p.trace import HEARD, SAID, Trace, silent

READ_BYTES = 1 << 16
ANSWER_TIMEOUT_S = 10.0

M = TypeVar("M")


class MessageStream(Generic[M]):
    """Reads messages of one union of types; writes any. Everything a peer can get wrong is a `RemoteError`."""

    def __init__(self, stream: Stream, inbound: Any, trace: Trace = silent) -> None:
        """`inbound` is what may come; `trace` is told the type of each message, both ways."""
        self._stream = stream
        self._inbound = inbound
        self._trace = trace
        self._frames = FrameReader()
        self._payloads: deque[bytes] = deque()

    @property
    def peer(self) -> str:
        """Who is at the other end."""
        return self._stream.peer

    async def send(self, *messages: msgspec.Struct) -> None:
        """Write all of them at once. Raises `Unavailable`."""
        for message in messages:
            self._trace(SAID, peer=self.peer, message=type(message).__name__)
        await self._stream.write(b"".join(frame(message) for message in messages))

    async def receive(self) -> M | None:
        """The next message, or `None` when the peer has finished. Raises `RemoteError` or `Unavailable`."""
        if self._payloads:
            await trio.lowlevel.checkpoint()  # one peer's many small messages must not hold up everybody else
        while not self._payloads:
            data = await self._stream.read(READ_BYTES)
            if not data:
                if self._frames.unfinished:
                    raise RemoteError("malformed", "the stream ended inside a frame")
                return None
            self._payloads.extend(self._frames.feed(data))
        message: M = decode(self._payloads.popleft(), self._inbound)
        self._trace(HEARD, peer=self.peer, message=type(message).__name__)
        return message

    async def answer(self, timeout_s: float = ANSWER_TIMEOUT_S) -> M:
        """The next message, which is owed to us. Raises `Unavailable` when none comes in time."""
        try:
            with trio.fail_after(timeout_s):
                message = await self.receive()
        except trio.TooSlowError:
            raise Unavailable(f"no answer within {timeout_s:g} s") from None
        if message is None:
            raise Unavailable("the peer closed without an answer")
        return message

    async def close(self) -> None:
        """Nothing more will be written."""
        await self._stream.close()

    async def finish(self, timeout_s: float) -> None:
        """Close, and swallow what still comes until the peer closes too, so that it hears all that we said."""
        await self._stream.close()
        with trio.move_on_after(timeout_s), suppress(Unavailable):
            while await self._stream.read(READ_BYTES):
                pass

    async def reset(self) -> None:
        """Abandon the stream."""
        await self._stream.reset()


@asynccontextmanager
async def open_messages(
    host: Host, peer: str, protocol: str, inbound: Any, trace: Trace = silent
) -> AsyncIterator[MessageStream[Any]]:
    """A new stream to `peer`, closed at the end and reset if anything was raised. Raises `Unavailable`."""
    stream = await host.open(peer, protocol)
    try:
        yield MessageStream(stream, inbound, trace)
    except BaseException:
        with trio.CancelScope(shield=True):
            await stream.reset()
        raise
    await stream.close()
