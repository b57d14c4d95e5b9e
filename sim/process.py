"""Actors as coroutines on the kernel: no event loop, just gates that open at a virtual time."""

from __future__ import annotations

from collections.abc import Coroutine, Generator, Sequence
from typing import Any, Generic, TypeVar

from sim.kernel import Kernel

T = TypeVar("T")
Process = Coroutine[Any, Any, T]


class Gate(Generic[T]):
    """Opens once, with a value. Processes that await it go on at that instant, in the order in which they came."""

    def __init__(self) -> None:
        self.is_open = False
        self._value: T
        self._waiting: list[Process[None]] = []

    def open(self, value: T) -> None:
        """The first call counts; a later one, for example a time limit's, does nothing."""
        if self.is_open:
            return
        self.is_open, self._value = True, value
        waiting, self._waiting = self._waiting, []
        for process in waiting:
            _advance(process)

    def __await__(self) -> Generator[Gate[T], None, T]:
        if not self.is_open:
            yield self
        return self._value

    def admit(self, process: Process[None]) -> None:
        """Let a process wait here."""
        self._waiting.append(process)


def spawn(process: Process[None]) -> None:
    """Run a process up to its first wait; gates carry it on from there. What it raises ends the run."""
    _advance(process)


async def sleep(kernel: Kernel, delay_s: float) -> None:
    """Wait in virtual time."""
    gate = Gate[None]()
    kernel.after(delay_s, lambda: gate.open(None))
    await gate


async def gather(processes: Sequence[Process[T]]) -> list[T]:
    """Run all of them side by side; their results in the order given."""
    gates = [Gate[T]() for _ in processes]
    for process, gate in zip(processes, gates, strict=True):
        spawn(_into(gate, process))
    return [await gate for gate in gates]


async def _into(gate: Gate[T], process: Process[T]) -> None:
    gate.open(await process)


def _advance(process: Process[None]) -> None:
    try:
        gate: Gate[Any] = process.send(None)
    except StopIteration:
        return
    gate.admit(process)
