"""Core: a provider's slots: who was promised one, how long those in use will be, and who waits for one."""

from __future__ import annotations

import math
from collections import defaultdict

HOLD_S = 30
HOLDS_PER_PEER = 2  # or half of what is free, where that is more
# Whoever was told to come back counts as waiting for so much longer than that, and then has gone elsewhere.
WAITING_GRACE_S = 5
MAX_WAITING = 1024
# What is said where nothing tells how long, and the longest that anybody is sent away for: answers end early, too.
BUSY_RETRY_S = 5
BUSY_RETRY_MAX_S = 30
# What a peer was promised it takes at once, and then may be promised more.
HELD_RETRY_S = 1


class Places:
    """Who was promised a slot until when. `free` is what is left of an engine's free slots.

    Promises are capped, per peer and in all, so that strangers cannot reserve every slot.
    """

    def __init__(self) -> None:
        self._holds: dict[bytes, tuple[str, float]] = {}
        # When the answers under way should be over, by their quote: a standing quote has several at a time.
        self._ends: defaultdict[bytes, list[float]] = defaultdict(list)

    def hold(self, quote_id: bytes, peer: str, *, slots_free: int, now: float) -> bool:
        """Keep a slot for `HOLD_S`; False when there is none left, or the peer holds enough already."""
        self._expire(now)
        of_peer = sum(1 for holder, _ in self._holds.values() if holder == peer)
        if len(self._holds) >= slots_free or of_peer >= max(HOLDS_PER_PEER, slots_free // 2):
            return False
        self._holds[quote_id] = (peer, now + HOLD_S)
        return True

    def take(self, quote_id: bytes, now: float) -> bool:
        """Turn a hold into a session; False if there is none (any more)."""
        self._expire(now)
        return self._holds.pop(quote_id, None) is not None

    def give_back(self, quote_id: bytes, peer: str) -> bool:
        """The slot is not needed after all, says who may be the one that it is kept for. Whether it was."""
        hold = self._holds.get(quote_id)
        if hold is None or hold[0] != peer:
            return False
        del self._holds[quote_id]
        return True

    def free(self, slots_free: int, now: float) -> int:
        """Slots that are neither in use nor promised."""
        self._expire(now)
        return max(0, slots_free - len(self._holds))

    def begin(self, quote_id: bytes, until: float) -> None:
        """An answer is under way that should be over by then."""
        self._ends[quote_id].append(until)

    def end(self, quote_id: bytes) -> None:
        """It is over."""
        ends = self._ends.pop(quote_id, [])
        if ends[1:]:
            self._ends[quote_id] = sorted(ends)[1:]

    def retry_after_s(self, now: float) -> int:
        """When it is worth asking again: once the first answer under way should be over.

        A promised slot may be given back, or taken by an answer that says more, at any moment.
        """
        self._expire(now)
        ends = [end - now for some in self._ends.values() for end in some if end > now]
        soonest = min(ends, default=BUSY_RETRY_S)
        return math.ceil(min(soonest, BUSY_RETRY_S if self._holds else BUSY_RETRY_MAX_S))

    def _expire(self, now: float) -> None:
        self._holds = {quote_id: hold for quote_id, hold in self._holds.items() if hold[1] > now}


class Queue:
    """Who was sent away for want of a slot and may be expected back. In bounded room: the first to come goes first."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def sent_away(self, peer: str, retry_after_s: int, now: float) -> None:
        """It was told to come back."""
        self._until.pop(peer, None)
        self._until[peer] = now + retry_after_s + WAITING_GRACE_S
        if len(self._until) > MAX_WAITING:
            del self._until[next(iter(self._until))]

    def came_back(self, peer: str) -> None:
        """It waits no more."""
        self._until.pop(peer, None)

    def waiting(self, now: float) -> int:
        """How many are expected."""
        self._until = {peer: until for peer, until in self._until.items() if until > now}
        return len(self._until)
