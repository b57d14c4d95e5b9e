"""Runs a generator turn by turn: orders go in by a queue, what the turns give comes out by a callback."""

from __future__ import annotations

import queue
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

from inference.errors import BadRequest
from inference.exllama.backend import Backend, Held, Rule, Step, is_cuda_error
from inference.exllama.orders import Broken, Cancel, Gone, NotHeld, Order, Progress, Refused, Report, Start

_RULES_AT_ONCE = 2  # a grammar is made in a millisecond, and the worst in a second


class _Ruled(NamedTuple):
    """A job whose rule is made, or cannot be."""

    start: Start
    rule: Rule | Exception


class Owner:
    """Of a back end, which it alone touches, in the thread that calls `run`. `report` is called there, and must be
    quick and never raise. Orders come from any thread.
    """

    def __init__(self, backend: Backend, make_rule: Callable[[Held], Rule], report: Callable[[Report], None]) -> None:
        self._backend = backend
        self._make_rule = make_rule
        self._report = report
        self._orders: queue.SimpleQueue[Order | _Ruled | None] = queue.SimpleQueue()
        self._jobs: set[int] = set()
        self._unruled: set[int] = set()  # jobs whose rule is being made

    def order(self, order: Order) -> None:
        """A turn may pass before it is carried out."""
        self._orders.put(order)

    def close(self) -> None:
        """Have `run` return."""
        self._orders.put(None)

    def run(self) -> None:
        """Until it is closed, or there can be no other turn."""
        with ThreadPoolExecutor(_RULES_AT_ONCE) as pool, suppress(_Over):
            while self._obey(pool):
                self._turn()

    def _obey(self, pool: ThreadPoolExecutor) -> bool:
        """Carry out what was ordered, waiting for an order only if there is nothing else to do."""
        while not self._jobs or not self._orders.empty():
            match self._orders.get():
                case None:
                    return False
                case Cancel(job):
                    self._end(job)
                case Start(job, sampling=sampling) as start if sampling.held:
                    self._unruled.add(job)
                    pool.submit(self._rule, start, sampling.held)  # others need not wait for it
                case Start() as start:
                    self._begin(start, None)
                case _Ruled(start, rule):
                    self._ruled(start, rule)
        return True

    def _rule(self, start: Start, held: Held) -> None:
        try:
            self._orders.put(_Ruled(start, self._make_rule(held)))
        except Exception as error:
            self._orders.put(_Ruled(start, error))

    def _ruled(self, start: Start, rule: Rule | Exception) -> None:
        if start.job not in self._unruled:
            return  # it was cancelled meanwhile
        self._unruled.remove(start.job)
        if isinstance(rule, BadRequest):
            self._report(NotHeld(start.job))
        elif isinstance(rule, Exception):
            self._report(Refused(start.job, type(rule).__name__))
        else:
            self._begin(start, rule)

    def _begin(self, start: Start, rule: Rule | None) -> None:
        try:
            self._backend.start(start.job, start.prompt, start.sampling, rule)
        except Exception as error:
            self._report(Refused(start.job, type(error).__name__))
        else:
            self._jobs.add(start.job)

    def _end(self, job: int) -> None:
        """Ending one may move the others' pages, so that the GPU may fail here, too."""
        self._unruled.discard(job)
        try:
            if job in self._jobs:
                self._jobs.remove(job)
                self._backend.cancel(job)
        except Exception as error:
            self._mend(error)
        finally:
            self._report(Gone(job))

    def _turn(self) -> None:
        try:
            steps: list[Step] = self._backend.turn()
        except Exception as error:
            self._mend(error)
            return
        self._jobs.difference_update(step.job for step in steps if step.end)
        if steps:
            self._report(Progress(steps))

    def _mend(self, error: Exception) -> None:
        """Raises `_Over` where there can be no other turn."""
        traceback.print_tb(error.__traceback__)  # never the message: it may quote a prompt
        lost, self._jobs = frozenset(self._jobs), set()
        over = is_cuda_error(error)
        try:
            if not over:
                self._backend.rebuild()
        except Exception:
            over = True
        self._report(Broken(type(error).__name__, lost, over))
        if over:
            raise _Over


class _Over(Exception):
    """The process is of no more use."""
