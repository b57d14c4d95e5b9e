"""Core: how long to wait before starting a process again that keeps dying."""

from __future__ import annotations

_FIRST_S = 0.1
_LONGEST_S = 30.0


class Backoff:
    """The wait doubles with every death that no success comes between."""

    def __init__(self) -> None:
        self._deaths = 0
        self._ready_at = 0.0

    def died(self, now: float) -> None:
        """It died, or did not start."""
        self._ready_at = now + min(_LONGEST_S, _FIRST_S * 2**self._deaths)
        self._deaths += 1

    def worked(self) -> None:
        """It did what it is for."""
        self._deaths = 0

    def wait_s(self, now: float) -> float:
        """How long from `now` it should be left alone; 0 for not at all."""
        return max(0.0, self._ready_at - now)
