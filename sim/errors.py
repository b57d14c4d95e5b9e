"""What can go wrong with a simulation, apart from what it simulates."""

from __future__ import annotations


class SimulationError(Exception):
    """The root of this package's errors."""


class ScenarioError(SimulationError):
    """The scenario is unknown, malformed or impossible; the text is one line for whoever wrote it."""


class Violation(SimulationError):
    """A promise of the protocol was broken in the simulated world: a bug, here or in a core."""

    def __init__(self, seed: int, time_s: float, what: str) -> None:
        super().__init__(f"violation with seed {seed} at {time_s:.6f} s: {what}")
