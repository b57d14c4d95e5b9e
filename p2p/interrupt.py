"""Ctrl-C: at the first, what is under way ends in good order while all around it still works; at the second, all."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from inference.nursery import open_background


class Interrupt:
    """What SIGINT and SIGTERM do to a command."""

    def __init__(self) -> None:
        self.everything = trio.CancelScope()
        self.struck = 0  # the last signal's number
        self._next = self.everything

    @asynccontextmanager
    async def gently(self) -> AsyncIterator[None]:
        """Cancelled alone, so that it can still pay for what it got; only then comes the rest of the command."""
        with trio.CancelScope() as inside:
            self._next = inside
            try:
                yield
            finally:
                self._next = self.everything
        if inside.cancel_called:
            self.everything.cancel()
            # It need not reach here at once: the loop that asyncio's libraries run in hands it on a turn later.
            await trio.sleep_forever()

    async def first(self) -> None:
        """Wait for the first signal, and go on: the second ends everything."""
        with trio.CancelScope() as waiting:
            self._next = waiting
            try:
                await trio.sleep_forever()
            finally:
                self._next = self.everything

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """The body is what the signals end."""
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with open_background() as background:

                async def watch() -> None:
                    async for self.struck in signals:
                        scope, self._next = self._next, self.everything
                        scope.cancel()

                background.start_soon(watch)
                with self.everything:
                    yield
