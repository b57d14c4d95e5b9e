"""How long each step of a task holds up Trio's loop, be it busy or asleep; what it waits for a core does not count.

A machine that has other work makes every step late, so that plain lag says little there. The kernel counts the time
that a thread was ready and had no core (`schedstat`, nanoseconds), and that is taken off.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

SCHEDSTAT = Path("/proc/thread-self/schedstat")


class _Steps(trio.abc.Instrument):
    def __init__(self) -> None:
        self.held_s: list[float] = []
        self._began = _own_time_s()  # of the step that sets it up

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._began = _own_time_s()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.held_s.append(_own_time_s() - self._began)


def _own_time_s() -> float:
    return time.perf_counter() - int(SCHEDSTAT.read_text().split()[1]) / 1e9


@contextmanager
def steps() -> Iterator[list[float]]:
    """Seconds for each step while the context lasts."""
    instrument = _Steps()
    trio.lowlevel.add_instrument(instrument)
    try:
        yield instrument.held_s
    finally:
        trio.lowlevel.remove_instrument(instrument)
