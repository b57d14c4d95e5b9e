"""A deterministic engine: the answers of `script` at a set pace on Trio's clock, so it also runs under a mock clock."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import msgspec
import trio

from inference.admission import check_features, check_fit, check_request, check_text, find_model
from inference.engine import (
    CONTINUE,
    EMBED,
    LOGPROBS,
    SCHEMA,
    SCORE,
    TOOLS,
    Capacity,
    Delta,
    Finished,
    ModelInfo,
    Request,
    Scored,
)
from inference.errors import EngineError
from inference.script import answer, count_tokens, scored

SCRIPTED_MODEL = ModelInfo(
    id="bombyx/scripted",
    family="scripted",
    quantisation="none",
    digest=hashlib.sha256(b"bombyx/scripted").hexdigest(),
    context=8192,
    features=(CONTINUE, SCORE, TOOLS, SCHEMA, LOGPROBS, EMBED),
)


class Scripted(msgspec.Struct, frozen=True, kw_only=True, tag="scripted"):
    """How the engine behaves. `fail_after` and `stall_after` count the tokens after which every answer goes wrong.

    `weights` name what answers really, where that is not the model that it says it is.
    """

    model: ModelInfo = SCRIPTED_MODEL
    weights: str = ""
    slots: int = 4
    ttft_s: float = 0.05  # of a prompt of which nothing is cached
    tokens_per_s: float = 100.0  # of each answer, whatever the others do
    fail_after: int | None = None
    stall_after: int | None = None


class ScriptedEngine:
    """See `inference.engine.Engine`. Requests beyond the slots wait their turn."""

    def __init__(self, settings: Scripted) -> None:
        self._settings = settings
        self._slots = trio.Semaphore(settings.slots)
        self._cache: OrderedDict[bytes, int] = OrderedDict()

    def models(self) -> tuple[ModelInfo, ...]:
        return (self._settings.model,)

    def capacity(self) -> Capacity:
        return Capacity(self._slots.value, self._settings.slots)

    async def health(self) -> None:
        await trio.lowlevel.checkpoint()

    async def count(self, request: Request) -> int:
        self._check(request)
        await trio.lowlevel.checkpoint()
        return count_tokens(request)

    async def prefill(self, request: Request, tokens: int) -> int:
        prompt_tokens = self._admit(request)
        done = min(max(1, tokens), prompt_tokens)
        async with self._slots:
            cached = self._cached(request)
            await trio.sleep(self._settings.ttft_s * max(0, done - cached) / prompt_tokens)
            self._remember(request, max(done, cached))
        return done

    @asynccontextmanager
    async def generate(self, request: Request) -> AsyncIterator[AsyncIterator[Delta | Finished]]:
        self._admit(request)
        async with self._slots, aclosing(self._paced(request)) as items:
            yield items

    async def score(self, request: Request, text: str) -> Scored:
        self._admit(request)
        check_text(self._settings.model, text)
        async with self._slots:
            await trio.sleep(self._settings.ttft_s)
        return scored(self._weighed(request), text)

    def _weighed(self, request: Request) -> Request:
        """The request as the weights see it."""
        return msgspec.structs.replace(request, model=self._settings.weights or request.model)

    def _admit(self, request: Request) -> int:
        model = self._check(request)
        prompt_tokens = count_tokens(request)
        check_fit(prompt_tokens, request.max_tokens, model.context)
        return prompt_tokens

    def _check(self, request: Request) -> ModelInfo:
        check_request(request)
        model = find_model(self.models(), request.model)
        check_features(model, request)
        return model

    async def _paced(self, request: Request) -> AsyncGenerator[Delta | Finished]:
        settings = self._settings
        prompt_tokens, cached = count_tokens(request), self._cached(request)
        due_s = trio.current_time() + settings.ttft_s * (prompt_tokens - cached) / prompt_tokens
        produced = 0
        for item in answer(self._weighed(request), cached):
            await trio.sleep_until(due_s + produced / settings.tokens_per_s)
            await self._misbehave(produced)
            if isinstance(item, Finished):
                self._remember(request, prompt_tokens)
            else:
                produced += item.tokens
            yield item

    async def _misbehave(self, produced: int) -> None:
        if self._settings.fail_after is not None and produced >= self._settings.fail_after:
            raise EngineError("the engine failed, as it was told to")
        if self._settings.stall_after is not None and produced >= self._settings.stall_after:
            await trio.sleep_forever()

    def _cached(self, request: Request) -> int:
        """At least one prompt token always needs work: it gives the first token of the answer."""
        return min(self._cache.get(_prompt_key(request), 0), count_tokens(request) - 1)

    def _remember(self, request: Request, tokens: int) -> None:
        """Each slot keeps the last prompt that it worked on."""
        self._cache[_prompt_key(request)] = tokens
        self._cache.move_to_end(_prompt_key(request))
        if len(self._cache) > self._settings.slots:
            self._cache.popitem(last=False)


def _prompt_key(request: Request) -> bytes:
    return hashlib.sha256(msgspec.msgpack.encode((request.model, request.messages, request.tools))).digest()


@asynccontextmanager
async def open_scripted(settings: Scripted | None = None) -> AsyncIterator[ScriptedEngine]:
    """A scripted engine, ready at once."""
    await trio.lowlevel.checkpoint()
    yield ScriptedEngine(settings or Scripted())
