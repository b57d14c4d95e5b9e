"""The event kernel: a virtual clock, a heap of what happens when, and named streams of chance.

A run is a function of its seed. Events at the same instant happen in the order in which they were planned; nothing
here or above may depend on the order of a set, on `hash()` or on the machine's clock.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import math
import random
from collections.abc import Callable

Action = Callable[[], None]


class Kernel:
    """Plan actions with `at` and `after`, then `run`. Times are seconds since the start of the simulated world."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now = 0.0
        self.events = 0  # carried out so far
        self._planned: list[tuple[float, int, Action]] = []
        self._order = itertools.count()
        self._streams: dict[str, random.Random] = {}

    def at(self, time_s: float, action: Action) -> None:
        """Plan an action for an instant that has not passed."""
        assert time_s >= self.now, "the past cannot be planned"
        heapq.heappush(self._planned, (time_s, next(self._order), action))

    def after(self, delay_s: float, action: Action) -> None:
        """Plan an action for `delay_s` from now."""
        self.at(self.now + delay_s, action)

    def run(self, until_s: float = math.inf) -> None:
        """Carry out everything planned up to and including `until_s`, or until nothing is planned any more."""
        while self._planned and self._planned[0][0] <= until_s:
            self.now, _, action = heapq.heappop(self._planned)
            self.events += 1
            action()

    def stream(self, name: str) -> random.Random:
        """The stream of chance of this name, always the same one.

        Each is seeded from the run's seed and its own name, so what is drawn from one never shifts another.
        """
        if name not in self._streams:
            seed = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
            self._streams[name] = random.Random(int.from_bytes(seed, "big"))  # noqa: S311 (chance, not secrets)
        return self._streams[name]
