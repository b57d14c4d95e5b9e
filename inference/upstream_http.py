"""HTTP to a server of the user's own. Whatever it sends is bounded; its words never reach an error of ours.

Each request has a connection of its own: closing that is how an answer is called off, and one kept for the next request
may have been closed by the server meanwhile.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import trio

from inference.errors import BadSettings, EngineError, ServerRefused

_REPLY_MAX_BYTES = 32 << 20  # a tokenizer's reply to the longest prompt, with room


class UpstreamHttp:
    """Requests to one server. Made by `open_http`."""

    def __init__(self, client: httpx.AsyncClient, root: str) -> None:
        self._client = client
        self._root = root

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        within_s: float,
        reply_max_bytes: int = _REPLY_MAX_BYTES,
    ) -> bytes:
        """The reply, whole. Raises `ServerRefused` or `EngineError`."""
        reply = bytearray()

        def take(received: bytes) -> bool:
            reply.extend(received)
            if len(reply) > reply_max_bytes:
                raise EngineError(f"the server's reply to {path} is too large")
            return False

        with trio.move_on_after(within_s):
            await self.stream(method, path, body, take)
            return bytes(reply)
        raise EngineError(f"the server took more than {within_s:g} s for {path}")

    async def stream(self, method: str, path: str, body: object, take: Callable[[bytes], bool]) -> None:
        """Hand what comes to `take`, until that returns True or the reply ends. Raises what `take` does, too."""
        with _translated(self._root):
            async with self._client.stream(method, self._root + path, json=body) as response:
                if response.status_code != 200:
                    raise ServerRefused(path, response.status_code)
                if response.headers.get("content-encoding", "identity") != "identity":
                    raise EngineError("the server compresses what it was asked to send as it is")
                await _pour(response, take)


async def _pour(response: httpx.Response, take: Callable[[bytes], bool]) -> None:
    """The generators below `aiter_raw` are only unwound by what happens inside them: a cancel, not a `break`."""
    failed: EngineError | None = None
    with trio.CancelScope() as enough:
        async for received in response.aiter_raw():
            if enough.cancel_called:
                continue
            try:
                done = take(received)
            except EngineError as error:
                done, failed = True, error
            if done:
                enough.cancel()
    if failed is not None:
        raise failed


@contextmanager
def _translated(root: str) -> Iterator[None]:
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout):
        raise EngineError(f"no server answers at {root}: start it, or mend --upstream-url") from None
    except httpx.HTTPError:
        raise EngineError("the server broke the connection off") from None


def root_of(url: str) -> str:
    """The address below which a server has its `/v1`, which may be in `url` or not. Raises `BadSettings`."""
    wrong = BadSettings("upstream_url must be like http://127.0.0.1:8000/v1, without a name, a key or a query in it")
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        raise wrong from None
    if parsed.scheme not in {"http", "https"} or not parsed.host or parsed.userinfo or parsed.query or parsed.fragment:
        raise wrong
    return str(parsed).rstrip("/").removesuffix("/v1")


@asynccontextmanager
async def open_http(url: str, key: str, connect_s: float) -> AsyncIterator[UpstreamHttp]:
    """Nothing is sent yet. Proxies and other hints of the environment are not followed. Raises `BadSettings`."""
    root = root_of(url)
    secure = root.startswith("https:")  # without, the certificates are not even read, which takes a while
    headers: dict[str, Any] = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {key}"} if key else {})
    async with httpx.AsyncClient(
        headers=headers,
        timeout=httpx.Timeout(None, connect=connect_s),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        verify=secure,
        trust_env=False,
        follow_redirects=False,
    ) as client:
        yield UpstreamHttp(client, root)
