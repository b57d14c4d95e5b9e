"""A nursery for background work that belongs to a context and never fails by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def open_background() -> AsyncIterator[trio.Nursery]:
    """Cancelled when the context is left. Errors of the context's body come out as they are, not as a group."""
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # Only the body can have raised: the tasks translate their errors into what their users see.
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from None
        raise
