"""Core: slots kept for accepted quotes, capped per peer and in all, so that strangers cannot reserve every one."""

from __future__ import annotations

HOLD_S = 30
HOLDS_PER_PEER = 2


class Places:
    """Who was promised a slot until when. `free` is what is left of an engine's free slots."""

    def __init__(self) -> None:
        self._holds: dict[bytes, tuple[str, float]] = {}

    def hold(self, quote_id: bytes, peer: str, *, slots_free: int, now: float) -> bool:
        """Keep a slot for `HOLD_S`; False when there is none left, or the peer holds enough already."""
        self._expire(now)
        of_peer = sum(1 for holder, _ in self._holds.values() if holder == peer)
        if len(self._holds) >= slots_free or of_peer >= HOLDS_PER_PEER:
            return False
        self._holds[quote_id] = (peer, now + HOLD_S)
        return True

    def take(self, quote_id: bytes, now: float) -> bool:
        """Turn a hold into a session; False if there is none (any more)."""
        self._expire(now)
        return self._holds.pop(quote_id, None) is not None

    def free(self, slots_free: int, now: float) -> int:
        """Slots that are neither in use nor promised."""
        self._expire(now)
        return max(0, slots_free - len(self._holds))

    def _expire(self, now: float) -> None:
        self._holds = {quote_id: hold for quote_id, hold in self._holds.items() if hold[1] > now}
