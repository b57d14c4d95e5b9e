"""Coming back when a peer that said an honest no said when to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from p2p.errors import Refused

T = TypeVar("T")

RETRY_LEAST_S = 1.0  # a peer that names no time at all would have us ask without a pause


async def patiently(attempt: Callable[[], Awaitable[T]], patience_s: float) -> T:
    """What `attempt` gives, tried again at the times that refusals name, for so long at most.

    Raises what `attempt` raises, `Refused` only where it names no time or one that is too late.
    """
    deadline = trio.current_time() + patience_s
    while True:
        try:
            return await attempt()
        except Refused as no:
            if no.retry_after_s is None:
                raise
            again_at = trio.current_time() + max(no.retry_after_s, RETRY_LEAST_S)
            if again_at > deadline:
                raise
        await trio.sleep_until(again_at)
