"""From the engine through two real hosts to one who reads slowly: the engine waits, and little is kept between them."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from market import MODEL, question
from town import open_town

from inference.engine import Delta, Finished, Request, Usage
from inference.scripted import Scripted, ScriptedEngine
from p2p.host import Host, Stream
from p2p.net.yamux_stream import WINDOW_BYTES
from p2p.protocol.price import Prices

pytestmark = pytest.mark.slow

TOKENS = 2500
TOKEN_BYTES = 900
SIP_BYTES = 8000
FREE = Prices(0, 0, 0)  # so that no bill holds the engine back


class Eager(ScriptedEngine):
    """Long tokens, each as soon as the one before it was taken."""

    def __init__(self) -> None:
        super().__init__(Scripted(slots=1))
        self.produced = 0

    @asynccontextmanager
    async def generate(self, request: Request) -> AsyncIterator[AsyncIterator[Delta | Finished]]:
        async with self._slots, aclosing(self._items(request.max_tokens)) as items:
            yield items

    async def _items(self, count: int) -> AsyncGenerator[Delta | Finished]:
        for _ in range(count):
            await trio.lowlevel.checkpoint()
            self.produced += 1
            yield Delta("x" * TOKEN_BYTES, 1)
        yield Finished("length", Usage(1, 0, count))


class Reluctant:
    """A host whose streams give a few bytes at a time, and none while `may_read` is unset."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.may_read = trio.Event()
        self.may_read.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)

    async def open(self, peer: str, protocol: str) -> Stream:
        stream = await self._host.open(peer, protocol)
        read = stream.read

        async def sip(max_bytes: int) -> bytes:
            await self.may_read.wait()
            return await read(min(max_bytes, SIP_BYTES))

        stream.read = sip  # type: ignore[method-assign]
        return stream


async def until_it_waits(engine: Eager) -> None:
    """It has made nothing for a while."""
    produced = -1
    while produced != engine.produced:
        produced = engine.produced
        await trio.sleep(0.3)


async def test_a_slow_reader_makes_the_engine_wait_and_fills_no_memory(tmp_path: Path) -> None:
    """How far the engine is ahead of the reader is all that is kept anywhere between them."""
    engine, request, ahead = Eager(), question(max_tokens=TOKENS), []
    hosts: list[Reluctant] = []

    def reluctant(host: Host) -> Any:
        hosts.append(Reluctant(host))
        return hosts[0]

    async with (
        open_town(tmp_path) as town,
        town.provider(engine=engine, prices=FREE),
        town.client(reluctant) as client,
    ):
        deal = await client.agree(await client.find(MODEL), request)
        async with client.answer(deal, request) as answer:
            await anext(answer)
            hosts[0].may_read = trio.Event()
            await until_it_waits(engine)
            assert (engine.produced - answer.completion_tokens) * TOKEN_BYTES < 2 * WINDOW_BYTES
            hosts[0].may_read.set()
            tracemalloc.start()
            async for _ in answer:
                ahead.append(engine.produced - answer.completion_tokens)
            _, peak_bytes = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert answer.completion_tokens == engine.produced == TOKENS
    assert max(ahead) * TOKEN_BYTES < 2 * WINDOW_BYTES
    assert peak_bytes < TOKENS * TOKEN_BYTES * 3 // 4, "more was allocated than can have been under way"
