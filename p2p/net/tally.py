"""Core: how many of something each peer holds, so that however many try, something is left for one who comes later."""

from __future__ import annotations

from collections import Counter

SHARE = 8  # nobody holds more than this fraction of what is free: Choudhury and Hahne's dynamic thresholds (1998)


class Tally:
    """Up to `per_key` for each key; less as the `in_all` are used up, but never nothing."""

    def __init__(self, *, per_key: int, in_all: int) -> None:
        self._per_key = per_key
        self._in_all = in_all
        self._held: Counter[str] = Counter()
        self.total = 0

    def take(self, key: str) -> bool:
        """Whether there is one more for `key`, which holds it then until it is given back."""
        if self._held.get(key, 0) >= min(self._per_key, (self._in_all - self.total) / SHARE):
            return False
        self._held[key] += 1
        self.total += 1
        return True

    def give_back(self, key: str) -> None:
        """One that was taken."""
        self.total -= 1
        self._held[key] -= 1
        if not self._held[key]:
            del self._held[key]
