"""Core: how often each of many may ask, by the generic cell rate algorithm (ITU-T I.371), one number for each."""

from __future__ import annotations

from collections.abc import Hashable


class RateLimit:
    """`per_s` requests a second each, and `burst` at once. Only the `remembered` last heard of are kept."""

    def __init__(self, *, per_s: float, burst: int, remembered: int) -> None:
        self._interval_s = 1 / per_s
        self._slack_s = (burst - 1) / per_s
        self._remembered = remembered
        self._due_at: dict[Hashable, float] = {}  # when each would be back at a full burst, the last heard at the end

    def allows(self, who: Hashable, now: float) -> bool:
        """Whether `who` may ask now; if so, it counts."""
        due_at = max(self._due_at.pop(who, now), now)
        allowed = due_at - now <= self._slack_s
        self._due_at[who] = due_at + self._interval_s if allowed else due_at
        if len(self._due_at) > self._remembered:
            del self._due_at[next(iter(self._due_at))]
        return allowed
