"""One HTTP exchange: reading what is bounded, one body or a stream of events, and noticing that the caller has left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

import msgspec
import trio
from starlette.types import Receive, Scope, Send

from p2p.gateway.failures import Failure, invalid

BODY_MAX_BYTES = 8 << 20  # above any prompt that a model of today takes
KEEP_ALIVE_S = 15.0

JSON = {"content-type": "application/json"}
EVENTS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache", "x-accel-buffering": "no"}


class Wire:
    """Says one response. Once it is `open`, nothing but events can follow."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._turn = trio.Lock()
        self._said_at = 0.0
        self.is_open = False

    async def body(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        """All of it, as JSON."""
        content = msgspec.json.encode(body)
        length = {"content-length": str(len(content))}
        async with self._turn:
            await self._start(status, {**JSON, **length, **(headers or {})})
            await self._send({"type": "http.response.body", "body": content})

    async def fail(self, failure: Failure, headers: Mapping[str, str] | None = None) -> None:
        """In place of an answer."""
        await self.body(failure.status, failure.body, {**failure.headers, **(headers or {})})

    async def open(self, headers: Mapping[str, str]) -> None:
        """Begin a stream of events."""
        async with self._turn:
            await self._open(headers)

    async def events(self, events: Iterable[bytes]) -> None:
        """In one piece."""
        data = b"".join(events)
        if data:
            async with self._turn:
                await self._write(data)

    async def close(self) -> None:
        """No more events."""
        async with self._turn:
            await self._send({"type": "http.response.body", "body": b""})

    async def keep_alive(self) -> None:
        """Say something that means nothing whenever nothing was said for a while, for ever."""
        self._said_at = trio.current_time()
        while True:
            await trio.sleep_until(self._said_at + KEEP_ALIVE_S)
            if trio.current_time() >= self._said_at + KEEP_ALIVE_S:
                async with self._turn:
                    await self._open({})
                    await self._write(b": still here\n\n")

    async def _open(self, headers: Mapping[str, str]) -> None:
        if not self.is_open:
            self.is_open = True
            await self._start(200, {**EVENTS, **headers})

    async def _write(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
        self._said_at = trio.current_time()

    async def _start(self, status: int, headers: Mapping[str, str]) -> None:
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """The whole of a request's JSON. Raises `Rejected`, and `Left` if the caller does."""
    kind = dict(scope["headers"]).get(b"content-type", b"").split(b";")[0].strip().lower()
    if kind != b"application/json":  # what a web page may send without being asked whether it may
        raise invalid("send application/json", code="unsupported_media_type", status=415)
    body = bytearray()
    while True:
        message: MutableMapping[str, Any] = await receive()
        if message["type"] == "http.disconnect":
            raise Left
        body += message.get("body", b"")
        if len(body) > BODY_MAX_BYTES:
            raise invalid(f"the body has more than {BODY_MAX_BYTES} bytes", code="body_too_large", status=413)
        if not message.get("more_body", False):
            return bytes(body)


async def drain(receive: Receive) -> None:
    """Take the body of a request that is refused unread, up to what any may have: the connection can be used again."""
    size = 0
    while size <= BODY_MAX_BYTES:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body", False):  # the last of it, or the caller has left
            return


async def cancel_when_left(receive: Receive, scope: trio.CancelScope) -> None:
    """As soon as the caller is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


class Left(Exception):
    """The caller is gone before it said what it wanted."""
