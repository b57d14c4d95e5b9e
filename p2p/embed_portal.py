"""`p2p.embed.Client` for programs that do not run under Trio: plain synchronous ones, and those on asyncio.

Both run the light peer in a thread of its own. They may be used from any thread, and by many tasks at once.

    with SyncClient() as client:
        with client.chat("Tell me of silk.") as reply:
            for piece in reply:
                print(piece, end="")

    async with AsyncioClient() as client:
        reply = await client.complete("What is silk?")
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from chain.records import Receipt
from p2p.config import Config
from p2p.embed import Client, Conversation, Offer, Reply, Spending
from p2p.errors import LocalError
from p2p.trace import Trace, silent

T = TypeVar("T")


@contextmanager
def _running(config: Config | None, trace: Trace) -> Iterator[tuple[BlockingPortal, Client]]:
    with (
        start_blocking_portal("trio") as portal,
        portal.wrap_async_context_manager(Client(config, trace=trace)) as client,
    ):
        yield portal, client


def _keep_asyncio() -> None:
    """trio-asyncio, which we need for TON, has `asyncio.run` run on Trio in every thread that has not set a policy."""
    asyncio.set_event_loop_policy(asyncio.get_event_loop_policy())


class SyncReply:
    """As `Reply`, for a `for` loop."""

    def __init__(self, portal: BlockingPortal, reply: Reply) -> None:
        self._portal = portal
        self.reply = reply

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        piece = self._portal.call(_next, self.reply)
        if piece is None:
            raise StopIteration
        return piece


class SyncClient:
    """A light peer for a program without an event loop: a context manager. Its methods block; see `Client` for each."""

    def __init__(self, config: Config | None = None, *, trace: Trace = silent) -> None:
        self._start = partial(_running, config, trace)
        self._stack = ExitStack()
        self._opened: tuple[BlockingPortal, Client] | None = None

    def __enter__(self) -> Self:
        self._opened = self._stack.enter_context(self._start())
        _keep_asyncio()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._stack.__exit__(kind, error, trace)

    @contextmanager
    def chat(self, conversation: Conversation, **wishes: Any) -> Iterator[SyncReply]:
        """`with client.chat(…) as reply`, then `for piece in reply`; `wishes` as `Client.chat` takes them."""
        portal, client = self._running
        with portal.wrap_async_context_manager(client.chat(conversation, **wishes)) as reply:
            yield SyncReply(portal, reply)

    def complete(self, conversation: Conversation, **wishes: Any) -> Reply:
        return self._call(Client.complete, conversation, **wishes)

    def summarize(self, text: str, **wishes: Any) -> Reply:
        return self._call(Client.summarize, text, **wishes)

    def draft(self, instruction: str, context: str = "", **wishes: Any) -> Reply:
        return self._call(Client.draft, instruction, context, **wishes)

    def embed(self, texts: Sequence[str], *, model: str | None = None) -> Sequence[Sequence[float]]:
        return self._call(Client.embed, texts, model=model)

    def quotes(self, model: str | None = None) -> Sequence[Offer]:
        return self._call(Client.quotes, model)

    def budget(self) -> Spending:
        return self._call(Client.budget)

    def receipts(self) -> Sequence[Receipt]:
        return self._call(Client.receipts)

    def _call(self, work: Callable[..., Awaitable[T]], *arguments: Any, **wishes: Any) -> T:
        portal, client = self._running
        return portal.call(partial(work, client, *arguments, **wishes))

    @property
    def _running(self) -> tuple[BlockingPortal, Client]:
        if self._opened is None:
            raise LocalError("the client is not open: `with SyncClient() as client`")
        return self._opened


class AsyncioClient:
    """A light peer for a program on asyncio: an async context manager. See `Client` for each method.

    Cancelling a task that waits for an answer ends the answer, and what came is paid.
    """

    def __init__(self, config: Config | None = None, *, trace: Trace = silent) -> None:
        self._start = partial(_running, config, trace)
        self._context: AbstractContextManager[tuple[BlockingPortal, Client]] | None = None
        self._opened: tuple[BlockingPortal, Client] | None = None

    async def __aenter__(self) -> Self:
        self._context = self._start()
        self._opened = await asyncio.to_thread(self._context.__enter__)
        _keep_asyncio()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._context is not None
        await asyncio.to_thread(self._context.__exit__, None, None, None)

    @asynccontextmanager
    async def chat(self, conversation: Conversation, **wishes: Any) -> AsyncIterator[AsyncioReply]:
        """`async with client.chat(…) as reply`, then `async for piece in reply`; `wishes` as `Client.chat` takes."""
        portal, client = self._running
        context = portal.wrap_async_context_manager(client.chat(conversation, **wishes))
        reply = await asyncio.to_thread(context.__enter__)
        try:
            yield AsyncioReply(portal, reply)
        finally:
            await asyncio.shield(asyncio.to_thread(context.__exit__, None, None, None))

    async def complete(self, conversation: Conversation, **wishes: Any) -> Reply:
        return await self._call(Client.complete, conversation, **wishes)

    async def summarize(self, text: str, **wishes: Any) -> Reply:
        return await self._call(Client.summarize, text, **wishes)

    async def draft(self, instruction: str, context: str = "", **wishes: Any) -> Reply:
        return await self._call(Client.draft, instruction, context, **wishes)

    async def embed(self, texts: Sequence[str], *, model: str | None = None) -> Sequence[Sequence[float]]:
        return await self._call(Client.embed, texts, model=model)

    async def quotes(self, model: str | None = None) -> Sequence[Offer]:
        return await self._call(Client.quotes, model)

    async def budget(self) -> Spending:
        return await self._call(Client.budget)

    async def receipts(self) -> Sequence[Receipt]:
        return await self._call(Client.receipts)

    async def _call(self, work: Callable[..., Awaitable[T]], *arguments: Any, **wishes: Any) -> T:
        portal, client = self._running
        return await asyncio.wrap_future(portal.start_task_soon(partial(work, client, *arguments, **wishes)))

    @property
    def _running(self) -> tuple[BlockingPortal, Client]:
        if self._opened is None:
            raise LocalError("the client is not open: `async with AsyncioClient() as client`")
        return self._opened


class AsyncioReply:
    """As `Reply`, on asyncio."""

    def __init__(self, portal: BlockingPortal, reply: Reply) -> None:
        self._portal = portal
        self.reply = reply

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        piece = await asyncio.wrap_future(self._portal.start_task_soon(_next, self.reply))
        if piece is None:
            raise StopAsyncIteration
        return piece


async def _next(reply: Reply) -> str | None:
    """The next piece; `None` at the end, since StopAsyncIteration cannot be handed from thread to thread."""
    return await anext(reply, None)
