"""Core: who holds which conversation in its cache. Hashes only, in memory, in bounded room."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from inference.engine import Message

MAX_CONVERSATIONS = 1024


class Conversations:
    """A request continues an earlier one if it begins with all its messages."""

    def __init__(self) -> None:
        self._holders: dict[bytes, str] = {}  # by what was asked, the oldest first

    def answered(self, messages: Sequence[Message], provider: str) -> None:
        """This provider worked through these messages, and answered."""
        for whole in list(_prefixes(messages))[-1:]:
            self._holders.pop(whole, None)
            self._holders[whole] = provider
        if len(self._holders) > MAX_CONVERSATIONS:
            del self._holders[next(iter(self._holders))]

    def holder(self, messages: Sequence[Message]) -> str | None:
        """Who answered the longest part of this conversation, if anybody did."""
        known = [self._holders[prefix] for prefix in _prefixes(messages) if prefix in self._holders]
        return known[-1] if known else None


def _prefixes(messages: Sequence[Message]) -> Iterator[bytes]:
    """A hash of the first message, of the first two, and so on."""
    running = hashlib.sha256()
    for message in messages:
        for part in (message.role, message.content):
            encoded = part.encode()
            running.update(len(encoded).to_bytes(8, "big") + encoded)
        yield running.digest()
