"""A service of the library's kind that starts tasks, as its own do for each peer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio
from libp2p.tools.anyio_service import Service

MANY = 1001  # more than one task of the library's may start


class Tasks(Service):  # type: ignore[misc]
    """Starts `count` of them from one task."""

    def __init__(self, count: int, do: Callable[[], Awaitable[Any]]) -> None:
        self._count = count
        self._do = do
        self.started = trio.Event()

    async def run(self) -> None:
        for _ in range(self._count):
            self.manager.run_task(self._do)
        self.started.set()
        await trio.sleep_forever()


async def fail() -> None:
    """As a task may that talks to a peer."""
    await trio.lowlevel.checkpoint()
    raise KeyError("a task's own fault")
