"""Core: what an engine's words become where more than prose was asked for: records of calls and of logprobs."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from inference.engine import Delta, FinishReason, Request
from inference.errors import EngineError
from inference.hermes import CallFinder, is_forced
from inference.records import SEPARATOR, Logprobs, TokenLogprob, prose, written


class ToldLogprobs:
    """The logprobs of one answer's tokens on their way behind the text: pieces may be held back meanwhile."""

    def __init__(self, request: Request) -> None:
        self._top = request.top_logprobs
        self._waiting: list[TokenLogprob] = []

    def heard(self, told: Iterable[TokenLogprob]) -> None:
        """Of the next tokens."""
        if self._top is not None:
            self._waiting += (msgspec.structs.replace(one, top=one.top[: self._top]) for one in told)

    def behind(self, delta: Delta) -> Delta:
        """The piece with the logprobs of its tokens."""
        told = tuple(self._waiting[: delta.tokens])
        del self._waiting[: delta.tokens]
        return Delta(delta.text + written(Logprobs(told)), delta.tokens) if told else delta


class HeldToJson:
    """Looks at an answer that is held to a schema: an engine that can make no grammar of one says nothing, and answers
    as it likes.
    """

    def __init__(self, request: Request) -> None:
        self._is_held = bool(request.schema) or is_forced(request)
        self._text: list[str] = []

    def heard(self, text: str, end: FinishReason | None = None) -> None:
        """Of the model's own words, the next; `end` with the last. Raises `EngineError` for what is no JSON."""
        if not self._is_held:
            return
        if text.strip():
            begins = self._text or text.lstrip()[0] in '{["-0123456789tfn'
            self._text.append(text)
            if not begins:
                raise EngineError("the engine did not hold the answer to its schema")
        if end == "stop":
            try:
                msgspec.json.decode("".join(self._text))
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                raise EngineError("the engine did not hold the answer to its schema") from None


class Calls:
    """Makes records of the calls in one answer that a model writes by itself: the whole of it where one is required,
    else what `CallFinder` finds.
    """

    def __init__(self, request: Request) -> None:
        self._has_records = request.has_records
        self._is_call = is_forced(request)
        self._begun = False
        self._finder = CallFinder() if request.tools and request.tool_choice == "auto" else None

    def found(self, deltas: Iterable[Delta | None], end: FinishReason | None) -> list[Delta]:
        """The pieces that are final. Where the answer is cut off, a call that it consists of stays unfinished."""
        there = [delta for delta in deltas if delta is not None]
        if not self._has_records:
            return there
        if self._finder is None:
            closed = [Delta(SEPARATOR, 0)] if end == "stop" and self._is_call else []
            return [Delta(self._opened(prose(delta.text)), delta.tokens) for delta in there] + closed
        found = [self._finder.feed(delta) for delta in there] + ([self._finder.flush()] if end else [])
        return [delta for delta in found if delta is not None]

    def _opened(self, text: str) -> str:
        if not self._is_call or self._begun or not text:
            return text
        self._begun = True
        return SEPARATOR + text
