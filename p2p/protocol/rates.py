"""Core: token buckets, one for each key. No I/O and no clock.

A bucket holds `burst` tokens at first and earns `per_s` every second until it is full again. A full bucket needs no
memory, so a flood of new keys is forgotten as fast as it is forgiven.
"""

from __future__ import annotations

from typing import NamedTuple

_SWEEP_MIN = 256  # below so many buckets it is not worth looking which are full


class _Bucket(NamedTuple):
    tokens: float  # below 0 in debt
    at: float


class Rates:
    """`now` is any clock in seconds that does not run backwards, the same in every call."""

    def __init__(self, *, per_s: float, burst: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._buckets: dict[str, _Bucket] = {}
        self._sweep_at = _SWEEP_MIN

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: str, now: float, cost: float = 1.0) -> bool:
        """Whether there were `cost` tokens, which are gone then; otherwise nothing is taken."""
        tokens = self._tokens(key, now) - cost
        if tokens < 0:
            return False
        self._put(key, tokens, now)
        return True

    def spend(self, key: str, now: float, cost: float = 1.0) -> float:
        """Take `cost` tokens, on credit if need be; returns for how many seconds the bucket is in debt."""
        tokens = self._tokens(key, now) - cost
        self._put(key, tokens, now)
        return max(0.0, -tokens / self._per_s)

    def _tokens(self, key: str, now: float) -> float:
        bucket = self._buckets.get(key)
        if bucket is None:
            return self._burst
        return min(self._burst, bucket.tokens + (now - bucket.at) * self._per_s)

    def _put(self, key: str, tokens: float, now: float) -> None:
        self._buckets[key] = _Bucket(tokens, now)
        if len(self._buckets) > self._sweep_at:
            self._buckets = {key: one for key, one in self._buckets.items() if self._tokens(key, now) < self._burst}
            self._sweep_at = max(_SWEEP_MIN, 2 * len(self._buckets))
