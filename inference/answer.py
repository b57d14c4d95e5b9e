"""The way an answer takes from whoever makes it to whoever reads it."""

from __future__ import annotations

from typing import Generic, Self, TypeVar

import trio

from inference.errors import EngineError

Item = TypeVar("Item")


class Reading(Generic[Item]):
    """An async iterator over what is sent, of which `limit` items are kept. Once the sender closes it ends: quietly, or
    with the `error` that is there by then.
    """

    def __init__(self, limit: int) -> None:
        self._send, self._received = trio.open_memory_channel[Item](limit)
        self.error: Exception | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        try:
            return await self._received.receive()
        except trio.EndOfChannel:
            if self.error is not None:
                raise self.error from None
            raise StopAsyncIteration from None


class Answer(Reading[Item]):
    """What an engine gives.

    The writer never waits: no engine can pause one answer alone, so a slow reader has at most `limit` items kept
    for it, which for an answer is bounded by its `max_tokens`.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.ended = False

    def put(self, item: Item) -> None:
        """Raises `trio.WouldBlock` beyond the limit. Does nothing once ended."""
        if not self.ended:
            self._send.send_nowait(item)

    def end(self, error: EngineError | None = None) -> None:
        """Nothing more will come; `error` is raised to the reader after the items. Only the first call counts."""
        if not self.ended:
            self.ended = True
            self.error = error
            self._send.close()
