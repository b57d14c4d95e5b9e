"""What was said in each chat, kept in memory alone and only as much as a small model can read."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from inference.engine import Message

CHATS_MAX = 1000
CHARACTERS_MAX = 6000  # about 1,500 tokens


class Conversations:
    """The last turns of the chats that were used last."""

    def __init__(self) -> None:
        self._turns: OrderedDict[int, tuple[Message, ...]] = OrderedDict()

    def asked(self, chat: int, text: str) -> Sequence[Message]:
        """What to ask a model: what was said so far, and `text`."""
        turns = (*self._turns.get(chat, ()), Message("user", text))
        while len(turns) > 2 and sum(len(turn.content) for turn in turns) > CHARACTERS_MAX:
            turns = turns[2:]  # a question goes with its answer
        return turns

    def answered(self, chat: int, asked: Sequence[Message], text: str) -> None:
        """Remember an answer; the chat that was silent longest may be forgotten for it."""
        self._turns[chat] = (*asked, Message("assistant", text))
        self._turns.move_to_end(chat)
        if len(self._turns) > CHATS_MAX:
            self._turns.popitem(last=False)

    def forget(self, chat: int) -> None:
        self._turns.pop(chat, None)
