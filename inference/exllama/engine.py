"""The engine: prompts become token ids, the owner's thread makes more of them, and these become answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import msgspec
import trio

from inference.admission import check_features, check_fit, check_request, check_text, find_model
from inference.engine import Capacity, Delta, Finished, ModelInfo, Request, Scored
from inference.errors import EngineDied, EngineError
from inference.exllama.backend import Backend, Sampling
from inference.exllama.folder import Folder, read_folder
from inference.exllama.jobs import Jobs
from inference.exllama.loading import check_machine, load_backend
from inference.exllama.owner import Owner, Report
from inference.exllama.reading import Reading, ScoreReading
from inference.exllama.settings import ExLlama
from inference.hermes import as_prose, forced
from inference.nursery import open_background
from inference.scoring import told_apart
from inference.templates import Template, open_template

MakeBackend = Callable[[ExLlama, Folder], Backend]


class ExLlamaEngine:
    """See `inference.engine.Engine`. Made by `open_exllama`."""

    def __init__(self, folder: Folder, template: Template, jobs: Jobs, slots: int) -> None:
        self._folder = folder
        self._template = template
        self._jobs = jobs
        self._total = slots
        self._places = trio.Semaphore(slots)

    def models(self) -> tuple[ModelInfo, ...]:
        return (self._folder.model,)

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
        one = msgspec.structs.replace(request, max_tokens=1, stop=(), top_logprobs=None)
        reading = Reading(one, len(part), self._folder.spelling(part))
        async with self._places, self._jobs.job(part, Sampling(1, 0.0, 1.0, 0), reading) as items:
            async for _ in items:
                pass
        return len(part)

    @asynccontextmanager
    async def generate(self, request: Request) -> AsyncIterator[AsyncIterator[Delta | Finished]]:
        prompt = await self._admit(request)
        sampling = Sampling(request.max_tokens, request.temperature, request.top_p, request.seed, request.top_logprobs)
        reading = Reading(request, len(prompt), self._folder.spelling(prompt))
        async with self._places:
            if (schema := forced(request)) is not None:
                rule = await trio.to_thread.run_sync(self._folder.vocabulary.held_to, schema)
                sampling = sampling._replace(rule=rule)
            async with self._jobs.job(prompt, sampling, reading) as items:
                yield items

    async def score(self, request: Request, text: str) -> Scored:
        prompt = await self._admit(request)
        check_text(self._folder.model, text)
        vocabulary = self._folder.vocabulary
        ids = await trio.to_thread.run_sync(vocabulary.ids, text)
        room = self._folder.model.context - len(prompt)
        limit = min(len(ids) + 1, request.max_tokens + (len(ids) == request.max_tokens), room)  # the end is read, too
        sampling = Sampling(limit, 0.0, 1.0, 0, told_apart(request), vocabulary.reading(ids))
        reading = ScoreReading(request, ids, vocabulary.spelt)
        async with self._places, self._jobs.job(prompt, sampling, reading) as items:
            async for scored in items:
                return scored
        raise EngineError("the generator ended the reading of a text without a finish")

    async def _admit(self, request: Request) -> list[int]:
        """The prompt's token ids, if the request is good and fits: the generator would only fail."""
        prompt = await self._render(request)
        check_fit(len(prompt), request.max_tokens, self._folder.model.context)
        return prompt

    async def _render(self, request: Request) -> list[int]:
        model = find_model(self.models(), request.model)
        check_request(request)
        check_features(model, request)
        text = await self._template.render(as_prose(request))
        return await trio.to_thread.run_sync(self._folder.encode, text)


@asynccontextmanager
async def open_exllama(settings: ExLlama, make: MakeBackend | None = None) -> AsyncIterator[ExLlamaEngine]:
    """Load a model, by `make`, or onto this machine's GPUs.

    Raises `ModelMissing`, `BadSettings`, or `EngineError` where it cannot be loaded. If the GPU fails, `EngineDied` is
    raised out of the context: a broken CUDA context ends with its process alone.
    """
    if make is None:  # before gigabytes are read for their digest
        await trio.to_thread.run_sync(check_machine, settings)
        make = load_backend
    folder = await trio.to_thread.run_sync(read_folder, settings)
    trio_token = trio.lowlevel.current_trio_token()

    def report(said: Report) -> None:  # in the owner's thread
        trio_token.run_sync_soon(jobs.take, said)

    async with open_template(folder.template, folder.marks) as template:
        owner = await trio.to_thread.run_sync(Owner, partial(make, settings, folder), report)
        jobs = Jobs(owner)
        try:
            async with _ended_by(jobs.over):
                yield ExLlamaEngine(folder, template, jobs, settings.slots)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(owner.close)


@asynccontextmanager
async def _ended_by(over: trio.Event) -> AsyncIterator[None]:
    """Cancel the body once the GPU has failed, and raise `EngineDied` in its place."""

    async def watch(scope: trio.CancelScope) -> None:
        await over.wait()
        scope.cancel()

    async with open_background() as nursery:
        nursery.start_soon(watch, nursery.cancel_scope)
        yield
    if over.is_set():
        raise EngineDied("the GPU failed; the engine must be started anew")
