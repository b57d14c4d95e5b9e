"""The engine: prompts become token ids, the generator's process makes more of them, and these become answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import msgspec
import trio

from inference.admission import check_features, check_fit, check_request, check_text, find_model
from inference.engine import Capacity, Delta, Finished, ModelInfo, Request, Scored
from inference.errors import EngineDied, EngineError
from inference.exllama.backend import Sampling, Schema, Words
from inference.exllama.folder import Folder, read_folder, weights_digest
from inference.exllama.jobs import Jobs
from inference.exllama.loading import check_installed
from inference.exllama.orders import Open, Report
from inference.exllama.process import Generator, open_generator
from inference.exllama.reading import NoReading, Reading, ScoreReading
from inference.exllama.settings import ExLlama
from inference.hermes import as_prose, forced
from inference.nursery import open_background
from inference.scoring import told_apart
from inference.templates import Template, open_template

OpenGenerator = Callable[[Open, Callable[[Report], None]], AbstractAsyncContextManager[Generator]]


class ExLlamaEngine:
    """See `inference.engine.Engine`. Made by `open_exllama`."""

    def __init__(self, folder: Folder, model: ModelInfo, template: Template, jobs: Jobs, slots: int) -> None:
        self._folder = folder
        self._model = model
        self._template = template
        self._jobs = jobs
        self._total = slots
        self._places = trio.Semaphore(slots)

    def models(self) -> tuple[ModelInfo, ...]:
        return (self._model,)

    def capacity(self) -> Capacity:
        return Capacity(self._places.value, self._total)

    async def health(self) -> None:
        await trio.lowlevel.checkpoint()
        self._jobs.check()

    async def count(self, request: Request) -> int:
        return len(await self._render(request))

    async def prefill(self, request: Request, tokens: int) -> int:
        part = (await self._admit(request))[: max(1, tokens)]
        # The generator works through a prompt only in order to go on: one token is drawn, and thrown away.
        async with self._places, self._jobs.job(part, Sampling(1, 0.0, 1.0, 0), NoReading()) as items:
            async for _ in items:
                pass
        return len(part)

    @asynccontextmanager
    async def generate(self, request: Request) -> AsyncIterator[AsyncIterator[Delta | Finished]]:
        prompt = await self._admit(request)
        schema = forced(request)
        sampling = Sampling(
            request.max_tokens,
            request.temperature,
            request.top_p,
            request.seed,
            request.top_logprobs,
            held=None if schema is None else Schema(json.dumps(schema)),
        )
        reading = Reading(request, len(prompt), self._folder.spelling(prompt))
        async with self._places, self._jobs.job(prompt, sampling, reading) as items:
            yield items

    async def score(self, request: Request, text: str) -> Scored:
        prompt = await self._admit(request)
        check_text(self._model, text)
        vocabulary = self._folder.vocabulary
        ids = await trio.to_thread.run_sync(vocabulary.ids, text)
        room = self._model.context - len(prompt)
        limit = min(len(ids) + 1, request.max_tokens + (len(ids) == request.max_tokens), room)  # the end is read, too
        sampling = Sampling(limit, 0.0, 1.0, 0, told_apart(request), Words(tuple(ids)))
        reading = ScoreReading(request, ids, vocabulary.spelt)
        async with self._places, self._jobs.job(prompt, sampling, reading) as items:
            async for scored in items:
                return scored
        raise EngineError("the generator ended the reading of a text without a finish")

    async def _admit(self, request: Request) -> list[int]:
        """The prompt's token ids, if the request is good and fits: the generator would only fail."""
        prompt = await self._render(request)
        check_fit(len(prompt), request.max_tokens, self._model.context)
        return prompt

    async def _render(self, request: Request) -> list[int]:
        model = find_model(self.models(), request.model)
        check_request(request)
        check_features(model, request)
        text = await self._template.render(as_prose(request))
        return await trio.to_thread.run_sync(self._folder.encode, text)


@asynccontextmanager
async def open_exllama(settings: ExLlama, start: OpenGenerator | None = None) -> AsyncIterator[ExLlamaEngine]:
    """Load a model, by `start`, or onto this machine's GPUs by a process of its own.

    Raises `ModelMissing`, `BadSettings`, or `EngineError` where it cannot be loaded. If the GPU fails, `EngineDied` is
    raised out of the context.
    """
    if start is None:
        check_installed(settings)
        start = open_generator
    folder = await trio.to_thread.run_sync(read_folder, settings)

    def report(said: Report) -> None:
        jobs.take(said)

    async with (
        open_template(folder.template, folder.marks) as template,
        start(Open(settings, folder.stop), report) as generator,
    ):
        jobs = Jobs(generator)
        digest = await trio.to_thread.run_sync(weights_digest, folder.weights)
        model = msgspec.structs.replace(folder.model, digest=digest)
        async with _ended_by(jobs.over):
            yield ExLlamaEngine(folder, model, template, jobs, settings.slots)


@asynccontextmanager
async def _ended_by(over: trio.Event) -> AsyncIterator[None]:
    """Cancel the body once the generator is over, and raise `EngineDied` in its place."""

    async def watch(scope: trio.CancelScope) -> None:
        await over.wait()
        scope.cancel()

    async with open_background() as nursery:
        nursery.start_soon(watch, nursery.cancel_scope)
        yield
    if over.is_set():
        raise EngineDied("the GPU failed; the engine must be started anew")
