"""The way an answer takes from whoever makes it to whoever reads it."""

from __future__ import annotations

from typing import Generic, TypeVar

import trio

from inference.errors import EngineError

Item = TypeVar("Item")


class Answer(Generic[Item]):
    """An async iterator over the items put in, which ends as it was ended: quietly or with an error.

    The writer never waits: no engine can pause one answer alone, so a slow reader has at most `limit` items kept
    for it, which for an answer is bounded by its `max_tokens`.
    """

    def __init__(self, limit: int) -> None:
        self._writer, self._reader = trio.open_memory_channel[Item](limit)
        self._error: EngineError | None = None
        self.ended = False

    def put(self, item: Item) -> None:
        """Raises `trio.WouldBlock` beyond the limit. Does nothing once ended."""
        if not self.ended:
            self._writer.send_nowait(item)

    def end(self, error: EngineError | None = None) -> None:
        """Nothing more will come; `error` is raised to the reader after the items. Only the first call counts."""
        if not self.ended:
            self.ended = True
            self._error = error
            self._writer.close()

    def __aiter__(self) -> Answer[Item]:
        return self

    async def __anext__(self) -> Item:
        try:
            return await self._reader.receive()
        except trio.EndOfChannel:
            if self._error is not None:
                raise self._error from None
            raise StopAsyncIteration from None
