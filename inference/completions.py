"""Core: what is asked of an OpenAI-compatible server for one answer, and what the chunks of it mean.

Nothing of a server's is believed before it has its type, and no text of its errors is passed on: it may quote a
prompt.

How many tokens a chunk stands for, servers say in one of three ways. vLLM and SGLang can put the usage so far into
every chunk, llama-server its timings. The others say it once at the end; until then a chunk counts as one token, the
least that it can be, and what is missing comes with the end. Of those that never say it, only the chunks are known.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from inference.engine import Delta, Finished, FinishReason, Message, Request, Usage
from inference.errors import EngineError
from inference.stopping import StopFilter

CHAT = "/v1/chat/completions"
_DONE = b"[DONE]"

Shape = TypeVar("Shape")


def read_reply(reply: bytes, shape: type[Shape]) -> Shape:
    """A whole reply as a struct that has the fields that matter. Raises `EngineError`."""
    try:
        return msgspec.json.decode(reply, type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise EngineError("the server's reply is not what an OpenAI-compatible one sends") from None


class _Cached(msgspec.Struct, frozen=True):
    cached_tokens: int | None = 0


class _Hidden(msgspec.Struct, frozen=True):
    reasoning_tokens: int | None = 0


class Counted(msgspec.Struct, frozen=True):
    """A server's usage report."""

    prompt_tokens: int
    completion_tokens: int | None = 0
    prompt_tokens_details: _Cached | None = None
    completion_tokens_details: _Hidden | None = None

    @property
    def cached_tokens(self) -> int:
        return (self.prompt_tokens_details and self.prompt_tokens_details.cached_tokens) or 0

    @property
    def hidden_tokens(self) -> int:
        return (self.completion_tokens_details and self.completion_tokens_details.reasoning_tokens) or 0


class _Timings(msgspec.Struct, frozen=True):
    predicted_n: int
    cache_n: int = 0


class _Delta(msgspec.Struct, frozen=True):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None

    @property
    def hidden(self) -> bool:
        return bool(self.reasoning or self.reasoning_content)


class _Choice(msgspec.Struct, frozen=True):
    delta: _Delta = _Delta()
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, frozen=True):
    choices: tuple[_Choice, ...] = ()
    usage: Counted | None = None
    timings: _Timings | None = None
    error: Any = None
    object: str | None = None


_chunk = msgspec.json.Decoder(_Chunk)


def chat_body(name: str, messages: tuple[Message, ...]) -> dict[str, Any]:
    """What names a prompt. For one that ends in an answer that is begun, in the words of vLLM and SGLang."""
    body: dict[str, Any] = {"model": name, "messages": msgspec.to_builtins(messages)}
    if messages[-1].role == "assistant":
        body |= {"add_generation_prompt": False, "continue_final_message": True}
    return body


def answer_body(name: str, request: Request) -> dict[str, Any]:
    """Answer `request`, streamed. What else may bend the drawing (top_k, min_p, a penalty) is switched off.

    Stop strings stay with us, so that they mean the same with every server.
    """
    return chat_body(name, request.messages) | {
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "timings_per_token": True,
    }


class CompletionReader:
    """Turns the payloads of one streamed answer into items. `done` after the last, when the server need not go on.

    `estimated` says, once it is done, that the server gave no count of the answer's tokens.
    """

    def __init__(self, request: Request, prompt_tokens: int) -> None:
        self._max_tokens = request.max_tokens
        self._prompt_tokens = prompt_tokens
        self._filter = StopFilter(request.stop)
        self._reason: FinishReason | None = None
        self._usage: Counted | None = None
        self.pieces = 0  # chunks that got the answer on; others, such as the first with the role, do not
        self._seen = 0  # tokens handed to the filter
        self._passed = 0  # tokens that were the server's when the last chunk came, hidden ones included
        self._cached = 0
        self._hides = False  # it thought, too, of which nothing is passed on
        self._delivered = 0
        self.estimated = True
        self.done = False

    def feed(self, payload: bytes) -> list[Delta | Finished]:
        """The items that `payload` completes. Raises `EngineError`."""
        if payload == _DONE:
            return self.end()
        chunk = _decoded(payload)
        choice = chunk.choices[0] if chunk.choices else _Choice()
        self._usage = chunk.usage or self._usage
        if chunk.timings is not None:
            self._cached = chunk.timings.cache_n
        items: list[Delta | Finished] = []
        if choice.delta.content or choice.delta.hidden:
            items = self._counted([self._piece(choice.delta, _running(chunk))])
        if choice.finish_reason is not None:
            self._reason = _reason(choice.finish_reason)
        if self._filter.stopped:
            self._reason = "stop"
            items.append(self._finish())
        return items

    def end(self) -> list[Delta | Finished]:
        """The server says no more. Raises `EngineError` if that is too early."""
        if self.done:
            return []
        if self._reason is None:
            raise EngineError("the server broke the answer off")
        items = self._counted([self._missing(self._reason), self._filter.flush()])
        return [*items, self._finish()]

    def _piece(self, delta: _Delta, running: int | None) -> Delta | None:
        self.pieces += 1
        total = self._passed + 1 if running is None else running
        tokens, self._passed = max(0, total - self._passed), max(total, self._passed)
        self.estimated = self.estimated and running is None
        if not delta.content:
            self._hides = True
            tokens = 0
        self._seen += tokens
        if self.pieces > self._max_tokens or self._seen > self._max_tokens:
            raise EngineError("the server said more than it was asked")
        return self._filter.feed(delta.content, tokens) if delta.content else None

    def _missing(self, reason: FinishReason) -> Delta | None:
        """What the usage has beyond what came, less an end token; hidden tokens are nobody's to pay."""
        if self._usage is None or self._usage.completion_tokens is None:
            return None
        self.estimated = False
        told = self._usage.completion_tokens
        if self._seen > told:
            raise EngineError("the server sent more pieces of an answer than it counts tokens")
        if self._hides or self._usage.hidden_tokens:
            return None
        missing = min(told - (reason == "stop"), self._max_tokens) - self._seen
        self._seen += max(0, missing)
        return self._filter.feed("", missing) if missing > 0 else None

    def _counted(self, deltas: Iterable[Delta | None]) -> list[Delta | Finished]:
        found = [delta for delta in deltas if delta is not None]
        self._delivered += sum(delta.tokens for delta in found)
        return [*found]

    def _finish(self) -> Finished:
        assert self._reason is not None
        self.done = True
        told = self._usage if self._usage is not None and self._usage.prompt_tokens > 0 else None
        prompt_tokens = told.prompt_tokens if told else self._prompt_tokens
        cached = max(0, self._cached, told.cached_tokens if told else 0)
        return Finished(self._reason, Usage(prompt_tokens, min(cached, prompt_tokens - 1), self._delivered))


def _decoded(payload: bytes) -> _Chunk:
    try:
        chunk = _chunk.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise EngineError("the server sent what is no part of an answer") from None
    if chunk.error is not None or chunk.object == "error":
        raise EngineError("the server failed in the middle of an answer")
    return chunk


def _running(chunk: _Chunk) -> int | None:
    """How many tokens there are so far, if the chunk says so."""
    if chunk.timings is not None:
        return chunk.timings.predicted_n
    return chunk.usage.completion_tokens if chunk.usage is not None else None


def _reason(told: str) -> FinishReason:
    if told == "stop":
        return "stop"
    if told == "length":
        return "length"
    raise EngineError("the server ended the answer for a reason of its own")
