"""An answer as messages that grow as it comes, as fast as Telegram lets a bot edit, and as long as it lets one be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta

from telegram import Message
from telegram.constants import MessageLimit
from telegram.error import RetryAfter, TimedOut

PACE_S = 1.5  # between two edits; Telegram asks for about one message a second in a chat


def fitting(text: str, limit: int = MessageLimit.MAX_TEXT_LENGTH) -> int:
    """How many characters of `text` one message takes: all, or up to the last line, word or character that fits.

    Counted in UTF-16, which is never less than what Telegram counts.
    """
    encoded = text.encode("utf-16-le")
    if len(encoded) <= 2 * limit:
        return len(text)
    head = encoded[: 2 * limit].decode("utf-16-le", errors="ignore")
    at = max(head.rfind("\n"), head.rfind(" ")) + 1
    return at if head[:at].strip() else len(head)


class GrowingMessages:
    """Send and edit messages that answer `question`. Raises `telegram.error.TelegramError` if that cannot be done."""

    def __init__(self, question: Message, pace_s: float = PACE_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._question = question
        self._pace_s = pace_s
        self._clock = clock
        self._message: Message | None = None  # the one that grows
        self._text = ""  # that it is to have
        self._shown = ""  # that it has
        self._not_before_s = -float("inf")

    async def add(self, piece: str) -> None:
        """Shown now or later."""
        self._text += piece
        while (at := fitting(self._text)) < len(self._text):
            rest, self._text = self._text[at:], self._text[:at]
            await self.flush()
            self._message, self._text, self._shown = None, rest, ""
        if self._clock() >= self._not_before_s:
            try:
                await self._show()
            except RetryAfter as told:
                self._not_before_s = self._clock() + _seconds(told)
            except TimedOut:
                pass  # the next edit shows it, too

    async def flush(self) -> None:
        """Everything is shown, however long Telegram lets us wait."""
        while True:
            try:
                return await self._show()
            except RetryAfter as told:
                await asyncio.sleep(_seconds(told))

    async def _show(self) -> None:
        text = self._text.strip()  # as Telegram has it, which refuses an edit that changes nothing
        if text == self._shown or not text:
            return
        self._not_before_s = self._clock() + self._pace_s
        if self._message is None:
            self._message = await self._question.reply_text(text)
        else:
            await self._message.edit_text(text)
        self._shown = text


def _seconds(told: RetryAfter) -> float:
    wait = told.retry_after
    return wait.total_seconds() if isinstance(wait, timedelta) else wait
