"""Providers on whom there is no relying: `python -m cheats KIND provide FLAGS`.

Each is `p2p.node` as it ships but for its engine, which is where somebody who cheats would begin:

    slow      promises what it gave when it was idle, and gives a tenth of that
    mortal    dies by SIGKILL in the middle of an answer, once it has given CHEAT_EVERY
    liar      counts three tokens for every two, of prompts and of answers
    impostor  has something cheaper to run answer under the name of the model that it claims
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial

import trio

from inference.engine import Capacity, Delta, Engine, Finished, ModelInfo, Request, Scored, Usage
from inference.link import Spec
from inference.scripted import Scripted
from inference.worker import open_worker
from p2p import node, provide_command

TOKEN_S = 0.1  # of the slow one
Items = AsyncIterator[Delta | Finished]


class Behind:
    """An engine that does as the one behind it, for somebody to do otherwise. See `inference.engine.Engine`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def models(self) -> tuple[ModelInfo, ...]:
        return self._engine.models()

    def capacity(self) -> Capacity:
        return self._engine.capacity()

    async def health(self) -> None:
        await self._engine.health()

    async def count(self, request: Request) -> int:
        return await self._engine.count(request)

    async def prefill(self, request: Request, tokens: int) -> int:
        return await self._engine.prefill(request, tokens)

    async def score(self, request: Request, text: str) -> Scored:
        return await self._engine.score(request, text)

    @asynccontextmanager
    async def generate(self, request: Request) -> AsyncIterator[Items]:
        async with self._engine.generate(request) as items:
            yield self._altered(request, items)

    def _altered(self, request: Request, items: Items) -> Items:
        raise NotImplementedError


class Slow(Behind):
    """Its first answer is the one by which its speed is measured."""

    _begun = 0

    async def _altered(self, request: Request, items: Items) -> Items:
        self._begun += 1
        pause_s = TOKEN_S if self._begun > 1 else 0
        async for item in items:
            await trio.sleep(pause_s)
            yield item


class Mortal(Behind):
    """So is its first."""

    _begun = -1

    async def _altered(self, request: Request, items: Items) -> Items:
        self._begun += 1
        last, given = self._begun == int(os.environ["CHEAT_EVERY"]), 0
        async for item in items:
            if last and 2 * given >= request.max_tokens:
                os.kill(os.getpid(), signal.SIGKILL)
            given += 1
            yield item


class Liar(Behind):
    """It never counts more than were asked for, which would be seen at once."""

    async def count(self, request: Request) -> int:
        return _half_as_many_again(await super().count(request))

    async def prefill(self, request: Request, tokens: int) -> int:
        await super().prefill(request, max(1, tokens * 2 // 3))
        return tokens

    async def _altered(self, request: Request, items: Items) -> Items:
        true = told = 0
        async for item in items:
            if isinstance(item, Finished):
                yield item
                return
            true += item.tokens
            before, told = told, min(_half_as_many_again(true), request.max_tokens)
            yield Delta(item.text, told - before)
            if told == request.max_tokens:
                break
        yield Finished("length", Usage(0, 0, told))


def _half_as_many_again(tokens: int) -> int:
    return tokens + tokens // 2


ALTERED: Mapping[str, Callable[[Engine], Behind]] = {"slow": Slow, "mortal": Mortal, "liar": Liar}


def main(kind: str) -> None:
    @asynccontextmanager
    async def opened(spec: Spec) -> AsyncIterator[Engine]:
        async with open_worker(spec) as engine:
            if kind != "impostor":
                yield ALTERED[kind](engine)
                return
            (claimed,) = engine.models()
        async with open_worker(Scripted(model=claimed, weights="others", slots=spec.slots)) as engine:
            yield engine

    node.COMMANDS["provide"] = partial(provide_command.run, open_engine=opened)
    node.main()


if __name__ == "__main__":
    main(sys.argv.pop(1))
