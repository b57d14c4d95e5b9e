"""An engine in a child process, so that its crash, its memory and its GIL are not ours. `child` is the other end."""

from __future__ import annotations

import itertools
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, TypeVar

import msgspec
import trio

from inference import link
from inference.admission import check_request
from inference.answer import Answer
from inference.backoff import Backoff
from inference.engine import Capacity, Delta, Finished, ModelInfo, Request, Scored
from inference.errors import EngineDied, EngineError
from inference.exllama.settings import ExLlama
from inference.frames import Inbox, drain, encode
from inference.nursery import open_background
from inference.pipes import processes_of, spawn

_MAX_JOBS = 1024
_PATIENCE_S = 2.0  # a request waits this long for a restart; beyond, it is refused at once
_HEALTH_S = 5.0
_START_S = 300.0
_COMPILE_S = 3600.0  # kernels, at the first start on a machine with few cores
_END_S = 2.0
_SESSION_END_S = 10.0
_PROGRAM = ["-m", "inference.child"]

_from_worker: msgspec.msgpack.Decoder[link.FromWorker] = msgspec.msgpack.Decoder(link.FromWorker)

Pipe = TypeVar("Pipe", bound=trio.abc.AsyncResource)


class _Child:
    """One run of the process, and the jobs that wait for it."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.worked = False
        self._over: EngineError | None = None
        # Each job puts two frames in at most, so `_MAX_JOBS` bounds this.
        self._outbox, self._frames = trio.open_memory_channel[bytes](2 * _MAX_JOBS)
        self._jobs: dict[int, tuple[link.Job, Answer[Any]]] = {}
        self._ids = itertools.count(1)

    def busy(self) -> int:
        """What takes a place in the worker, that included which was cancelled and is not yet confirmed."""
        return sum(isinstance(job, link.Generate | link.Prefill | link.Score) for job, _ in self._jobs.values())

    @contextmanager
    def job(self, make: Callable[[int], link.Job], limit: int) -> Iterator[Answer[Any]]:
        """Have a job done, of at most `limit` items. Leaving early cancels it."""
        if self._over is not None:
            raise self._over
        if len(self._jobs) >= _MAX_JOBS:
            raise EngineError("the engine has too many requests")
        job = make(next(self._ids))
        frame = encode(job)
        answer: Answer[Any] = Answer(limit)
        self._jobs[job.id] = job, answer
        self._outbox.send_nowait(frame)
        try:
            yield answer
        finally:
            if not answer.ended:
                answer.end()
                self._outbox.send_nowait(encode(link.Cancel(job.id)))

    async def run(self, inbox: Inbox[link.FromWorker]) -> None:
        """Until the worker ends, or breaks the protocol, which raises `EngineDied`."""
        async with open_background() as nursery:
            nursery.start_soon(drain, self._frames, _pipe(self.process.stdin))
            while (message := await inbox.next()) is not None:
                self._take(message)

    def fail(self, error: EngineError) -> None:
        """The process is over: so is every job, also those that come late."""
        self._over = error
        for _, answer in self._jobs.values():
            answer.end(error)
        self._jobs.clear()

    def _take(self, message: link.FromWorker) -> None:
        if isinstance(message, link.Ready) or message.id not in self._jobs:
            raise EngineDied("the worker spoke out of turn")
        job, answer = self._jobs[message.id]
        try:
            match job, message:
                case link.Generate(), link.Piece(delta=delta):
                    answer.put(delta)
                    return
                case link.Generate(), link.Done(finished=finished):
                    self.worked = True
                    answer.put(finished)
                    answer.end()
                case link.Health() | link.Count() | link.Prefill(), link.Value(value=value):
                    answer.put(value)
                    answer.end()
                case link.Score(), link.Read(scored=scored):
                    self.worked = True
                    answer.put(scored)
                    answer.end()
                case _, link.Failed():
                    answer.end(link.raised(message))
                case _, link.Cancelled() if answer.ended:
                    pass
                case _:
                    raise EngineDied("the worker spoke out of turn")
        except trio.WouldBlock:
            raise EngineDied("the worker said more than it was asked") from None
        del self._jobs[message.id]


class Worker:
    """See `inference.engine.Engine`. Made by `open_worker`.

    When the process dies, every request that it had fails with `EngineDied` and the next one starts it again. If it
    keeps dying, requests fail with `EngineError` for a while that doubles each time, up to 30 s.
    """

    def __init__(self, spec: link.Spec, nursery: trio.Nursery, start_timeout_s: float) -> None:
        self._spec = spec
        self._nursery = nursery
        self._start_timeout_s = start_timeout_s
        self._backoff = Backoff()
        self._starting = trio.Lock()
        self._one_at_a_time = trio.Lock()
        self._child: _Child | None = None
        self._ready: link.Ready | None = None

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return self._child.process.pid if self._child else None

    def models(self) -> tuple[ModelInfo, ...]:
        assert self._ready is not None
        return self._ready.models

    def capacity(self) -> Capacity:
        assert self._ready is not None
        total = self._ready.slots
        if self._child is not None:
            return Capacity(max(0, total - self._child.busy()), total)
        return Capacity(0 if self._refuses() else total, total)

    async def health(self) -> None:
        with trio.move_on_after(_HEALTH_S):
            await self._ask(link.Health)
            return
        raise EngineError("the engine's worker does not answer")

    async def count(self, request: Request) -> int:
        return await self._ask(lambda job: link.Count(job, request))

    async def prefill(self, request: Request, tokens: int) -> int:
        return await self._ask(lambda job: link.Prefill(job, request, tokens))

    @asynccontextmanager
    async def generate(self, request: Request) -> AsyncIterator[AsyncIterator[Delta | Finished]]:
        check_request(request)  # it bounds what we may have to keep
        child = await self.start()
        with child.job(lambda job: link.Generate(job, request), limit=request.max_tokens + 3) as answer:
            yield answer

    async def score(self, request: Request, text: str) -> Scored:
        check_request(request)
        child = await self.start()
        with child.job(lambda job: link.Score(job, request, text), limit=1) as answer:
            scored: Scored = await anext(answer)
            return scored

    async def start(self) -> _Child:
        """The running process, started if need be."""
        async with self._starting:
            if self._child is None:
                if self._refuses():
                    raise EngineError("the engine's process keeps dying; it is left alone for a while")
                await trio.sleep(self._backoff.wait_s(trio.current_time()))
                child: _Child = await self._nursery.start(self._live)
                return child
            return self._child

    def _refuses(self) -> bool:
        return self._backoff.wait_s(trio.current_time()) > _PATIENCE_S

    async def _ask(self, make: Callable[[int], link.Job]) -> int:
        child = await self.start()
        with child.job(make, limit=1) as answer:
            value: int = await anext(answer)
            return value

    async def _live(self, task_status: trio.TaskStatus[_Child]) -> None:
        """One run of the process. The next waits for its end: two would not fit into one GPU."""
        async with self._one_at_a_time:
            # What it leaves behind when it is ended in the middle of something goes with it.
            with tempfile.TemporaryDirectory(prefix="bombyx-engine-", ignore_cleanup_errors=True) as scratch:
                process = await spawn(_PROGRAM, own_session=True, TMPDIR=scratch)
                try:
                    inbox = Inbox(_pipe(process.stdout), _from_worker)
                    self._ready = await self._handshake(process, inbox)
                    self._child = _Child(process)
                    task_status.started(self._child)
                    await self._tend(self._child, inbox)
                finally:
                    await _end(process)

    async def _handshake(self, process: trio.Process, inbox: Inbox[link.FromWorker]) -> link.Ready:
        try:
            return await _greet(process, inbox, self._spec, self._start_timeout_s)
        except EngineError:
            self._backoff.died(trio.current_time())
            raise

    async def _tend(self, child: _Child, inbox: Inbox[link.FromWorker]) -> None:
        error = EngineDied("the engine's process ended")
        try:
            await child.run(inbox)
        except EngineDied as broken:
            error = broken
            child.process.kill()
        finally:
            self._child = None
            child.fail(error)
        if child.worked:
            self._backoff.worked()
        self._backoff.died(trio.current_time())


async def _greet(process: trio.Process, inbox: Inbox[link.FromWorker], spec: link.Spec, timeout_s: float) -> link.Ready:
    with trio.move_on_after(timeout_s):
        with suppress(trio.BrokenResourceError):  # what the worker said before it broke the pipe is worth more
            await _pipe(process.stdin).send_all(encode(link.Open(spec)))
        match await inbox.next():
            case link.Ready() as ready:
                return ready
            case link.Failed() as failed:
                raise link.raised(failed)
            case None:
                raise EngineDied("the engine's process ended while it started")
            case _:
                raise EngineDied("the worker spoke out of turn")
    raise EngineError(f"the engine did not start within {timeout_s:g} s")


async def _end(process: trio.Process) -> None:
    """Closing its stdin asks it to leave."""
    with trio.CancelScope(shield=True):
        await _pipe(process.stdin).aclose()
        with trio.move_on_after(_END_S):
            await process.wait()
        process.kill()
        await process.wait()
        await _pipe(process.stdout).aclose()
        await _session_ends(process.pid)


async def _session_ends(session: int) -> None:
    """What the worker started goes with it, and is waited for: it may have a GPU's memory."""
    with trio.move_on_after(_SESSION_END_S):
        while living := processes_of(session):
            for pid in living:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await trio.sleep(0.01)


def _pipe(stream: Pipe | None) -> Pipe:
    assert stream is not None, "opened with PIPE"
    return stream


@asynccontextmanager
async def open_worker(spec: link.Spec, *, start_timeout_s: float | None = None) -> AsyncIterator[Worker]:
    """Start a worker and its engine. Raises `ModelMissing`, or `EngineError` where it does not start in time."""
    start_timeout_s = start_timeout_s or (_COMPILE_S if isinstance(spec, ExLlama) else _START_S)
    async with open_background() as nursery:
        worker = Worker(spec, nursery, start_timeout_s)
        await worker.start()
        yield worker
