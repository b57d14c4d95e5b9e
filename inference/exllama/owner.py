"""The thread that alone touches a generator: orders go in by a queue, what its turns give comes out by a callback."""

from __future__ import annotations

import queue
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from inference.exllama.backend import Backend, Sampling, Step, is_cuda_error


class Start(NamedTuple):
    job: int
    prompt: Sequence[int]
    sampling: Sampling


class Cancel(NamedTuple):
    job: int


class Progress(NamedTuple):
    """What a turn gave."""

    steps: list[Step]


class Gone(NamedTuple):
    """A job that was called off is forgotten, and what it held is free."""

    job: int


class Refused(NamedTuple):
    """A job could not be queued, though it had been checked; the others are none the worse."""

    job: int
    error: str  # a class's name: what it says may quote the prompt


class Broken(NamedTuple):
    """The generator failed, and with it its jobs. It was made anew, unless `over`: then the process must be."""

    error: str
    jobs: frozenset[int]
    over: bool


Report = Progress | Gone | Refused | Broken


class Owner:
    """Runs a back end until it is closed. `report` is called in its thread, and must be quick and never raise."""

    def __init__(self, open_backend: Callable[[], Backend], report: Callable[[Report], None]) -> None:
        """Loads the model: blocks for seconds to minutes, and raises what `open_backend` raises."""
        self._report = report
        self._orders: queue.SimpleQueue[Start | Cancel | None] = queue.SimpleQueue()
        self._jobs: set[int] = set()
        self._loaded: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, args=(open_backend,), name="exllama", daemon=True)
        self._thread.start()
        if error := self._loaded.get():
            raise error

    def start(self, job: int, prompt: Sequence[int], sampling: Sampling) -> None:
        """Its end is reported as a step's, or as `Refused` or `Broken`, if it is not cancelled before."""
        self._orders.put(Start(job, prompt, sampling))

    def cancel(self, job: int) -> None:
        """Answered by `Gone`, whether or not the job has ended by itself. A turn may pass before."""
        self._orders.put(Cancel(job))

    def close(self) -> None:
        """Unload the model. Blocks for a turn."""
        self._orders.put(None)
        self._thread.join()

    def _run(self, open_backend: Callable[[], Backend]) -> None:
        try:
            backend = open_backend()
        except BaseException as error:
            self._loaded.put(error)
            return
        self._loaded.put(None)
        with suppress(_Over):  # what unloads a model would wait for a GPU that does not answer
            while self._obey(backend):
                self._turn(backend)
            backend.close()

    def _obey(self, backend: Backend) -> bool:
        """Carry out what was ordered, waiting for an order only if there is nothing else to do."""
        while not self._jobs or not self._orders.empty():
            order = self._orders.get()
            if order is None:
                return False
            if isinstance(order, Cancel):
                self._end(backend, order.job)
            else:
                self._begin(backend, order)
        return True

    def _begin(self, backend: Backend, order: Start) -> None:
        try:
            backend.start(order.job, order.prompt, order.sampling)
        except Exception as error:
            self._report(Refused(order.job, type(error).__name__))
        else:
            self._jobs.add(order.job)

    def _end(self, backend: Backend, job: int) -> None:
        """Ending one may move the others' pages, so that the GPU may fail here, too."""
        try:
            if job in self._jobs:
                self._jobs.remove(job)
                backend.cancel(job)
        except Exception as error:
            self._mend(backend, error)
        finally:
            self._report(Gone(job))

    def _turn(self, backend: Backend) -> None:
        try:
            steps = backend.turn()
        except Exception as error:
            self._mend(backend, error)
            return
        self._jobs.difference_update(step.job for step in steps if step.end)
        if steps:
            self._report(Progress(steps))

    def _mend(self, backend: Backend, error: Exception) -> None:
        """Raises `_Over` where there can be no other turn."""
        traceback.print_tb(error.__traceback__)  # never the message: it may quote a prompt
        lost, self._jobs = frozenset(self._jobs), set()
        over = is_cuda_error(error)
        try:
            if not over:
                backend.rebuild()
        except Exception:
            over = True
        self._report(Broken(type(error).__name__, lost, over))
        if over:
            raise _Over


class _Over(Exception):
    """The process is of no more use."""
