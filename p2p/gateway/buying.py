"""One answer for one caller: within the caller's budget, and on the tally before anything is bought."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import trio

from inference.engine import Request
from p2p.errors import LocalError, Refused
from p2p.failover import LastingAnswer
from p2p.gateway.checks import Audits
from p2p.gateway.keys import EVERYBODY, Key, Keys
from p2p.gateway.wishes import Wishes, narrowed
from p2p.peer import LightPeer

MINUTE_S = 60.0


class Buying:
    """Buys for all callers of a gateway."""

    def __init__(self, peer: LightPeer, keys: Keys, *, day_max_nano: int | None, free: bool) -> None:
        """`day_max_nano` is the most that all answers of a day may cost. Where it is `free`, nothing is ever paid."""
        self._peer = peer
        self._keys = keys
        self._day_max_nano = day_max_nano
        self._free = free
        self._asked: defaultdict[str, deque[float]] = defaultdict(deque)

    def admit(self, key: Key) -> None:
        """Count one request. Raises `Refused` for more than the key allows in a minute."""
        most, now = key.may.requests_per_minute, trio.current_time()
        if most is None:
            return
        asked = self._asked[key.name]
        while asked and asked[0] <= now - MINUTE_S:
            asked.popleft()
        if len(asked) >= most:
            wait_s = int(asked[0] + MINUTE_S - now) + 1 if asked else int(MINUTE_S)
            raise Refused("rate_limit", f"this key may ask {most} times a minute", retry_after_s=wait_s)
        asked.append(now)

    async def audits(self, providers: Collection[str]) -> Audits:
        """What audits of these came to; nothing where the book cannot be read: answers are given all the same."""
        try:
            return await self._peer.audits(providers)
        except LocalError:
            return {}

    @asynccontextmanager
    async def ask(self, key: Key, wishes: Wishes, request: Request) -> AsyncIterator[LastingAnswer]:
        """Raises as `LightPeer.ask`; `Refused` for what is over the budget comes from iterating, too."""
        budget = narrowed(self._peer.budget, key.may.wishes, wishes)
        limits = [(key.name, key.may.budget_nano_per_day)] if key.name else []
        limits.append((EVERYBODY, self._day_max_nano))
        names, day, reserved_nano = [name for name, _ in limits], self._keys.today(), 0

        async def allow(worst_nano: int) -> None:
            nonlocal reserved_nano
            more_nano = worst_nano - reserved_nano
            if more_nano > 0:
                await trio.to_thread.run_sync(self._keys.spend, limits, day, more_nano)
            elif more_nano < 0:
                await trio.to_thread.run_sync(self._keys.give_back, names, day, -more_nano)
            reserved_nano = worst_nano

        answer: LastingAnswer | None = None
        try:
            async with self._peer.ask(request, free=self._free, budget=budget, allow=allow) as answer:
                yield answer
        finally:
            cost_nano = answer.cost_nano if answer is not None else 0
            with trio.CancelScope(shield=True):
                await allow(min(reserved_nano, cost_nano))
