"""The jobs that the generator has, and the answers that wait for them."""

from __future__ import annotations

import itertools
import traceback
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

import trio

from inference.answer import Answer
from inference.errors import BadRequest, EngineDied, EngineError
from inference.exllama.backend import Sampling, Step
from inference.exllama.orders import Broken, Cancel, Gone, NotHeld, Progress, Refused, Report, Start
from inference.exllama.process import Generator

Item = TypeVar("Item", covariant=True)


class Reader(Protocol[Item]):
    """Makes something of what a job gives."""

    done: bool
    """Nothing more comes of it: the job may be called off."""

    def feed(self, step: Step) -> Sequence[Item]:
        """What the step brings. Raises `EngineError`."""
        ...


class _Job:
    def __init__(self, reader: Reader[Any], max_tokens: int) -> None:
        self.answer: Answer[Any] = Answer(max_tokens + 2)
        self.over = trio.Event()
        self.is_called_off = False
        self._reader = reader

    def take(self, step: Step) -> None:
        if step.end:
            self.over.set()
        if self.answer.ended:
            return
        if step.end == "failed":
            self.answer.end(EngineError("the generator failed on that request"))
            return
        try:
            for item in self._reader.feed(step):
                self.answer.put(item)
        except EngineError as error:
            self.answer.end(error)
        except Exception as error:  # a fault of ours must not end the others' answers
            traceback.print_tb(error.__traceback__)  # and never the message: it may quote a prompt
            self.answer.end(EngineError(f"the engine failed with {type(error).__name__}"))
        if self._reader.done:
            self.answer.end()

    def end(self, error: EngineError | None) -> None:
        """The generator has forgotten it."""
        self.answer.end(error)
        self.over.set()


class Jobs:
    """Hands jobs to the generator and its reports to whom they concern."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._numbers = itertools.count(1)
        self._jobs: dict[int, _Job] = {}
        self.over = trio.Event()
        """The GPU failed, or the generator's process: nothing more comes of it."""

    @asynccontextmanager
    async def job(
        self, prompt: Sequence[int], sampling: Sampling, reader: Reader[Item]
    ) -> AsyncIterator[AsyncIterator[Item]]:
        """Have an answer made. Leaving cancels it, and waits until its place in the generator is free."""
        self.check()
        number, job = next(self._numbers), _Job(reader, sampling.max_tokens)
        self._generator.order(Start(number, [*prompt], sampling))
        self._jobs[number] = job
        try:
            yield job.answer
        finally:
            if not job.over.is_set():
                self._call_off(number, job)
                with trio.CancelScope(shield=True):  # one token, or one chunk of a prompt
                    await job.over.wait()
            del self._jobs[number]

    def check(self) -> None:
        """Raises `EngineDied` once the GPU has failed."""
        if self.over.is_set():
            raise EngineDied("the GPU failed; the engine must be started anew")

    def take(self, report: Report) -> None:
        """What the generator said."""
        match report:
            case Progress(steps):
                for step in steps:
                    self._step(step)
            case Broken(error, lost, over):
                for number in self._jobs if over else self._jobs.keys() & lost:
                    self._jobs[number].end(EngineError(f"the generator failed with {error}"))
                if over:
                    self.over.set()
            case Gone(number) | NotHeld(number) | Refused(number):
                if job := self._jobs.get(number):
                    job.end(_why(report))

    def _step(self, step: Step) -> None:
        job = self._jobs.get(step.job)
        if job is None:
            return
        job.take(step)
        if job.answer.ended and not step.end:  # a stop string: its place need not wait for whoever reads the answer
            self._call_off(step.job, job)

    def _call_off(self, number: int, job: _Job) -> None:
        if not job.is_called_off:
            job.is_called_off = True
            self._generator.order(Cancel(number))


def _why(report: Gone | NotHeld | Refused) -> EngineError | None:
    match report:
        case NotHeld():
            return BadRequest("an answer cannot be held to that schema")
        case Refused(error=error):
            return EngineError(f"the generator refused the request with {error}")
        case Gone():
            return None
