"""Pure: calls of tools, told on as the model writes them: the end of a call may be long in coming, or never come."""

from __future__ import annotations

import re
from dataclasses import dataclass

import msgspec

from inference.errors import EngineError
from inference.records import Call

_HEAD = re.compile(r'[ \t\r\n]*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:')
_HEAD_MAX = 1024  # characters, in which a record must say which tool it calls, or it is told when it is whole
_ENDS = " \t\r\n}"  # of the arguments and of the record alike, so they are held back until more is known


@dataclass(frozen=True)
class CallPart:
    """The next of a call: `arguments` is more of the text of a JSON object, and complete once the call `is_over`."""

    id: str
    name: str
    arguments: str
    is_over: bool = False


def joined(parts: tuple[CallPart, ...], more: tuple[CallPart, ...]) -> tuple[CallPart, ...]:
    """Both, with neighbouring parts of the same call as one."""
    if not (parts and more and parts[-1].id == more[0].id):
        return parts + more
    last, first = parts[-1], more[0]
    return (*parts[:-1], CallPart(last.id, last.name, last.arguments + first.arguments, first.is_over), *more[1:])


class CallReader:
    """Parts the record of one call."""

    def __init__(self, call_id: str) -> None:
        self._id = call_id
        self._head = ""
        self._name: str | None = None
        self._held = ""
        self._said: list[str] = []

    def feed(self, text: str) -> tuple[CallPart, ...]:
        """What more is known of the call, from the next of the record's text. Nothing of a record of another kind."""
        if self._name is None:
            text = self._after_head(text)
        if self._name is None:
            return ()
        text = self._held + text
        if not any(self._said):
            text = text.lstrip()
        sure = text.rstrip(_ENDS)
        self._held = text[len(sure) :]
        is_news = sure or not self._said  # the name is, even while there is no argument
        return (self._part(sure, is_over=False),) if is_news else ()

    def whole(self, call: Call) -> tuple[CallPart, ...]:
        """The rest, once the record is read. Raises `EngineError` where it said something else before."""
        said = "".join(self._said)
        if not call.text.startswith(said) or self._name not in (None, call.name):
            raise EngineError("a record in the answer that is none")
        self._name = call.name
        return (self._part(call.text[len(said) :], is_over=True),)

    def cut(self, record: str) -> tuple[CallPart, ...]:
        """The rest where the answer ended within `record`."""
        try:
            return self.whole(msgspec.json.decode(record, type=Call))
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return (self._part(self._held, is_over=False),) if self._held else ()

    def _after_head(self, text: str) -> str:
        """The first of the arguments, once it is known which tool is called."""
        if len(self._head) > _HEAD_MAX:
            return ""
        self._head += text
        found = _HEAD.match(self._head)
        if found is None:
            return ""
        try:
            self._name = msgspec.json.decode(found[1], type=str)
        except (msgspec.MsgspecError, UnicodeError):
            raise EngineError("a record in the answer that is none") from None
        return self._head[found.end() :]

    def _part(self, arguments: str, *, is_over: bool) -> CallPart:
        assert self._name is not None
        self._said.append(arguments)
        return CallPart(self._id, self._name, arguments, is_over)
