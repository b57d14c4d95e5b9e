"""Pure: what callers ask for, whatever the endpoint, and what there is to tell them afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import msgspec

from inference.engine import FinishReason, Request
from inference.records import Begun, Embedding, Logprobs, Record, RecordReader, TokenLogprob
from inference.records import Call as ModelCall
from p2p.gateway.failures import Failure
from p2p.gateway.tool_calls import CallPart, CallReader, joined


@dataclass(frozen=True)
class Defaults:
    """What a request does not say."""

    seed: int
    answer_id: str  # by which the caller will know the answer
    created: int  # unix seconds


@dataclass(frozen=True)
class Call:
    """One HTTP request, understood: each of the `requests` is one choice of the answer.

    Their `max_tokens` is 0 where the caller does not say how long an answer may be.
    """

    requests: tuple[Request, ...]
    stream: bool = False

    @property
    def model(self) -> str:
        """The one model that all of them are for."""
        return self.requests[0].model

    def limited(self, max_tokens: Callable[[Request], int]) -> Call:
        """The same, with lengths where there were none."""
        known = [
            one if one.max_tokens else msgspec.structs.replace(one, max_tokens=max_tokens(one)) for one in self.requests
        ]
        return replace(self, requests=tuple(known))


@dataclass(frozen=True)
class Piece:
    """What came of one choice at a time: text, with the logprobs of its tokens if they were asked for, and calls."""

    text: str = ""
    tool_calls: tuple[CallPart, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    embeddings: tuple[Embedding, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.text or self.tool_calls or self.logprobs or self.embeddings)

    def __add__(self, more: Piece) -> Piece:
        return Piece(
            self.text + more.text,
            joined(self.tool_calls, more.tool_calls),
            self.logprobs + more.logprobs,
            self.embeddings + more.embeddings,
        )


class Pieces:
    """Parts one answer's text as it comes. Without I/O."""

    def __init__(self, request: Request, choice_id: str) -> None:
        """`choice_id` is what the ids of its calls begin with."""
        self._reader = RecordReader() if request.has_records else None
        self._choice_id = choice_id
        self._calls = 0
        self._call = self._next_call()

    def feed(self, text: str) -> Piece:
        """Raises `inference.errors.EngineError` for what is no record."""
        if self._reader is None:
            return Piece(text)
        return sum(map(self._piece, self._reader.bits(text)), Piece())

    def end(self) -> Piece:
        """What is left where the answer was cut off within a call."""
        record = self._reader.unfinished if self._reader else ""
        return Piece(tool_calls=self._call.cut(record)) if record else Piece()

    def _piece(self, item: str | Begun | Record) -> Piece:
        match item:
            case str():
                return Piece(item)
            case Begun(text):
                return Piece(tool_calls=self._call.feed(text))
            case ModelCall():
                rest = self._call.whole(item)
                self._calls += 1
                self._call = self._next_call()
                return Piece(tool_calls=rest)
        self._call = self._next_call()  # it was fed a record of another kind
        return Piece(logprobs=item.logprobs) if isinstance(item, Logprobs) else Piece(embeddings=(item,))

    def _next_call(self) -> CallReader:
        return CallReader(f"{self._choice_id}{self._calls + 1}")


@dataclass(frozen=True)
class Choice:
    """One finished answer."""

    whole: Piece
    reason: FinishReason

    @property
    def finish_reason(self) -> str:
        """In OpenAI's words."""
        return "tool_calls" if self.whole.tool_calls and self.reason == "stop" else self.reason


@dataclass(frozen=True)
class Outcome:
    """All of them, what they took, and what Bombyx has to say of them."""

    choices: Sequence[Choice]
    prompt_tokens: int
    completion_tokens: int
    bombyx: Mapping[str, Any]


class Dialect(Protocol):
    """How one endpoint says it: as one body, or as the data of server-sent events. Without I/O."""

    def whole(self, outcome: Outcome) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        ...

    def opening(self) -> Sequence[bytes]:
        """The events before the first piece."""
        ...

    def piece(self, index: int, piece: Piece) -> Sequence[bytes]:
        """More of one choice."""
        ...

    def begun(self, index: int, bombyx: Mapping[str, Any]) -> Sequence[bytes]:
        """A provider begins its part of one choice, or goes on for another that failed; before the text of it."""
        ...

    def closing(self, outcome: Outcome) -> Sequence[bytes]:
        """The events after the last piece."""
        ...

    def failed(self, failure: Failure) -> Sequence[bytes]:
        """The last events of a stream that broke off."""
        ...


def data(body: Mapping[str, Any], event: str = "") -> bytes:
    """One server-sent event, with a name where the endpoint's events have one."""
    return (f"event: {event}\n".encode() if event else b"") + b"data: " + msgspec.json.encode(body) + b"\n\n"


DONE = b"data: [DONE]\n\n"
