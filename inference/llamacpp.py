"""llama.cpp on the CPU, through xllamacpp: continuous batching, cancel, exact counts, cached prefixes.

Run it in a worker (see `worker`): loading holds the GIL, and a fault in C++ ends the process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio

from inference.admission import check_features, check_fit, check_request, check_text, find_model
from inference.answer import Answer
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
    Message,
    ModelInfo,
    Request,
    Scored,
    Usage,
)
from inference.errors import EngineError
from inference.hermes import as_prose
from inference.llamachunks import ChunkReader, answer_body, check_chunk, completion_body
from inference.llamascore import Reading
from inference.llamaserver import LlamaServer, Setup
from inference.models import Weights, embedded_model, gguf_model
from inference.nursery import open_background
from inference.records import embedding, written
from inference.slots import Slots


class GgufFile(msgspec.Struct, frozen=True):
    """A model file of the user's own, and the name and family to sell it under."""

    path: str
    id: str
    family: str


class LlamaCpp(msgspec.Struct, frozen=True, kw_only=True, tag="llamacpp"):
    """What to load and how. No `model` is the embedded one; `context` is in tokens for each slot; 0 threads: choose."""

    model: GgufFile | None = None
    slots: int = 4
    context: int = 4096
    threads: int = 0


class LlamaCppEngine:
    """See `inference.engine.Engine`. Made by `open_llamacpp`."""

    def __init__(
        self, server: LlamaServer, setup: Setup, model: ModelInfo, nursery: trio.Nursery, loaded: AsyncExitStack
    ) -> None:
        self._server = server
        self._model = model
        self._nursery = nursery
        self._setup = setup
        self._loaded = loaded
        self._places = trio.Semaphore(setup.slots)
        self._slots = Slots(setup.slots)
        self._threads = trio.CapacityLimiter(setup.slots)
        self._embedder: LlamaServer | None = None  # loaded when it is first asked for
        self._embedding = trio.Lock()

    def models(self) -> tuple[ModelInfo, ...]:
        return (self._model,)

    def capacity(self) -> Capacity:
        return Capacity(self._places.value, self._setup.slots)

    async def health(self) -> None:
        await self._server.call("GET", "/health")

    async def count(self, request: Request) -> int:
        self._check(request)
        return len(await self._render(request))

    async def prefill(self, request: Request, tokens: int) -> int:
        prompt = await self._admit(request)
        part = prompt[: max(1, tokens)]
        if request.embed:
            return len(part)
        async with self._slot(prompt) as slot:
            body = completion_body(part, slot)
            await trio.to_thread.run_sync(self._server.complete, body, _until_cancelled, limiter=self._threads)
        return len(part)

    @asynccontextmanager
    async def generate(self, request: Request) -> AsyncIterator[AsyncIterator[Delta | Finished]]:
        prompt = await self._admit(request)
        if request.embed:
            yield await self._embed(request, len(prompt))
            return
        async with self._slot(prompt) as slot:
            job = _Job(ChunkReader(request, len(prompt)), request.max_tokens)
            self._nursery.start_soon(self._run, answer_body(request, prompt, slot), job)
            try:
                yield job.answer
            finally:
                job.left = True
                with trio.CancelScope(shield=True):  # one token, or one batch of the prompt
                    await job.over.wait()

    async def _embed(self, request: Request, prompt_tokens: int) -> Answer[Delta | Finished]:
        """One text at a time, by a server of its own."""
        answer: Answer[Delta | Finished] = Answer(len(request.messages) + 1)
        async with self._places, self._embedding:
            if self._embedder is None:
                setup = msgspec.structs.replace(self._setup, slots=1, embeds=True)
                self._embedder = await _load(setup, self._loaded)
            for vector in await self._embedder.embed([message.content for message in request.messages]):
                answer.put(Delta(written(embedding(vector)), 0))
        answer.put(Finished("stop", Usage(prompt_tokens, 0, 0)))
        answer.end()
        return answer

    async def score(self, request: Request, text: str) -> Scored:
        prompt = await self._admit(request)
        check_text(self._model, text)
        reading = Reading(request, await self._server.tokenize(text))

        def on_chunk(chunk: dict[str, Any]) -> bool:
            trio.from_thread.check_cancelled()
            reading.feed(chunk)
            return reading.done

        async with self._slot(prompt) as slot:
            body = reading.body(prompt, slot)
            await trio.to_thread.run_sync(self._server.complete, body, on_chunk, limiter=self._threads)
        if not reading.done:
            raise EngineError("llama.cpp ended the reading of a text without a finish")
        return reading.scored

    def _check(self, request: Request) -> None:
        check_request(request)
        check_features(find_model(self.models(), request.model), request)

    async def _admit(self, request: Request) -> list[int]:
        """The prompt's token ids, if the request is good and fits."""
        self._check(request)
        prompt = await self._render(request)
        check_fit(len(prompt), request.max_tokens, self._model.context)
        return prompt

    async def _render(self, request: Request) -> list[int]:
        if request.embed:
            return [token for message in request.messages for token in await self._server.tokens(message.content)]
        return await self._server.tokens(await self._server.apply_template(as_prose(request)))

    @asynccontextmanager
    async def _slot(self, prompt: list[int]) -> AsyncIterator[int]:
        async with self._places:
            slot = self._slots.take(prompt)
            try:
                yield slot
            finally:
                self._slots.give_back(slot, prompt)

    async def _run(self, body: dict[str, Any], job: _Job) -> None:
        def on_chunk(chunk: dict[str, Any]) -> bool:
            return trio.from_thread.run_sync(job.take, chunk)

        error = EngineError("llama.cpp ended the answer without a finish")
        try:
            await trio.to_thread.run_sync(self._server.complete, body, on_chunk, limiter=self._threads)
        except EngineError as reported:
            error = reported
        finally:
            job.answer.end(None if job.reader.done else error)
            job.over.set()


class _Job:
    """One answer on its way from the C++ thread to its reader."""

    def __init__(self, reader: ChunkReader, max_tokens: int) -> None:
        self.reader = reader
        self.answer: Answer[Delta | Finished] = Answer(max_tokens + 2)
        self.left = False
        self.over = trio.Event()

    def take(self, chunk: dict[str, Any]) -> bool:
        """Whether the server is to stop."""
        if not self.left:
            for item in self.reader.feed(chunk):
                self.answer.put(item)
        return self.left or self.reader.done


def _until_cancelled(chunk: dict[str, Any]) -> bool:
    trio.from_thread.check_cancelled()
    check_chunk(chunk)
    return False


def _find(model: GgufFile | None) -> Weights:
    return embedded_model() if model is None else gguf_model(Path(model.path), model.id, model.family)


async def _features(server: LlamaServer) -> tuple[str, ...]:
    """What goes on with an answer is tried out: a template can refuse, close or trim one that is begun."""
    asked, begun = Message("user", "Say hello."), Message("assistant", "Hello, ")
    try:
        goes_on = await server.apply_template((asked, begun)) == await server.apply_template((asked,)) + begun.content
    except EngineError:
        goes_on = False
    return (*[CONTINUE] * goes_on, SCORE, TOOLS, SCHEMA, LOGPROBS, EMBED)


@asynccontextmanager
async def open_llamacpp(settings: LlamaCpp | None = None) -> AsyncIterator[LlamaCppEngine]:
    """Load a model. Raises `ModelMissing`, or `EngineError` where it cannot be loaded."""
    settings = settings or LlamaCpp()
    weights = await trio.to_thread.run_sync(_find, settings.model)
    setup = Setup(path=weights.path, slots=settings.slots, context=settings.context, threads=settings.threads)
    async with AsyncExitStack() as loaded:
        server = await _load(setup, loaded)
        about = (await server.call("GET", "/v1/models"))["data"][0]["meta"]
        model = ModelInfo(
            id=weights.id,
            family=weights.family,
            quantisation=about["ftype"],
            digest=weights.digest,
            context=about["n_ctx"],
            features=await _features(server),
        )
        nursery = await loaded.enter_async_context(open_background())
        yield LlamaCppEngine(server, setup, model, nursery, loaded)


async def _load(setup: Setup, loaded: AsyncExitStack) -> LlamaServer:
    """Load a model, to be unloaded along with the others."""
    server = await trio.to_thread.run_sync(LlamaServer, setup)
    loaded.callback(server.close)
    return server
