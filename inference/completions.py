"""Core: what is asked of an OpenAI-compatible server for one answer, and what the chunks of it mean.

Nothing of a server's is believed before it has its type, and no text of its errors is passed on: it may quote a
prompt.

How many tokens a chunk stands for, servers say in one of three ways. vLLM and SGLang can put the usage so far into
every chunk, llama-server its timings. The others say it once at the end; until then a chunk counts as one token, the
least that it can be, and what is missing comes with the end. Of those that never say it, only the chunks are known.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from inference.engine import Delta, Finished, FinishReason, Message, Request, Usage
from inference.errors import EngineError
from inference.form import Calls, HeldToJson, ToldLogprobs
from inference.hermes import as_function, in_prose
from inference.records import SEPARATOR, TokenLogprob, prose
from inference.schemas import read_schema
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


class _Function(msgspec.Struct, frozen=True):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct, frozen=True):
    index: int = 0
    function: _Function = _Function()


class _Delta(msgspec.Struct, frozen=True):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: tuple[_Call, ...] | None = None

    @property
    def hidden(self) -> bool:
        return bool(self.reasoning or self.reasoning_content)


class _Likely(msgspec.Struct, frozen=True):
    token: str
    logprob: float


class _Told(_Likely, frozen=True):
    top_logprobs: tuple[_Likely, ...] = ()


class _Logprobs(msgspec.Struct, frozen=True):
    content: tuple[_Told, ...] | None = None


class _Choice(msgspec.Struct, frozen=True):
    delta: _Delta = _Delta()
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None

    @property
    def told(self) -> Iterator[TokenLogprob]:
        """The logprobs of the chunk's tokens."""
        for one in (self.logprobs and self.logprobs.content) or ():
            yield TokenLogprob(one.token, one.logprob, tuple((top.token, top.logprob) for top in one.top_logprobs))


class _Chunk(msgspec.Struct, frozen=True):
    choices: tuple[_Choice, ...] = ()
    usage: Counted | None = None
    timings: _Timings | None = None
    error: Any = None
    object: str | None = None


_chunk = msgspec.json.Decoder(_Chunk)


def chat_body(name: str, request: Request) -> dict[str, Any]:
    """What names a prompt. For one that ends in an answer that is begun, in the words of vLLM and SGLang."""
    body: dict[str, Any] = {"model": name, "messages": [_message(message) for message in request.messages]}
    if request.tools:
        body["tools"] = [{"type": "function", "function": as_function(tool)} for tool in request.tools]
        named = {"type": "function", "function": {"name": request.tool}}
        body["tool_choice"] = named if request.tool else request.tool_choice
    if request.continues:
        body |= {"add_generation_prompt": False, "continue_final_message": True}
    return body


def _message(message: Message) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_call_id:
        body["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        body["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return body


def answer_body(name: str, request: Request) -> dict[str, Any]:
    """Answer `request`, streamed. What else may bend the drawing (top_k, min_p, a penalty) is switched off.

    Stop strings stay with us, so that they mean the same with every server.
    """
    return (
        chat_body(name, request)
        | _form(request)
        | {
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
    )


def _form(request: Request) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if request.schema:
        schema = {"name": "answer", "schema": read_schema(request.schema), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if request.top_logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": max(1, request.top_logprobs)}
    return body


class CompletionReader:
    """Turns the payloads of one streamed answer into items. `done` after the last, when the server need not go on.

    `estimated` says, once it is done, that the server gave no count of the answer's tokens.
    """

    def __init__(self, request: Request, prompt_tokens: int, *, tools_in_prose: bool = False) -> None:
        """`tools_in_prose`: the server was told of the tools as `in_prose` does."""
        sent = in_prose(request) if tools_in_prose else request
        self._held = HeldToJson(replace(sent, tools=(), tool_choice="auto"))
        self._in_prose = Calls(request) if tools_in_prose else None
        self._max_tokens = request.max_tokens
        self._prompt_tokens = prompt_tokens
        self._filter = StopFilter(request.stop)
        self._has_records = request.has_records
        self._calls = _Calls()
        self._logprobs = ToldLogprobs(request)
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
        self._logprobs.heard(choice.told)
        self._held.heard(choice.delta.content or "")
        items: list[Delta | Finished] = []
        if choice.delta.content or choice.delta.hidden or choice.delta.tool_calls:
            items = self._counted(self._piece(choice.delta, _running(chunk)))
        if choice.finish_reason is not None:
            self._reason = _reason(choice.finish_reason)
            self._held.heard("", self._reason)
        if self._filter.stopped:
            self._reason = "stop"
            items += [*self._counted([], "stop"), self._finish()]
        return items

    def end(self) -> list[Delta | Finished]:
        """The server says no more. Raises `EngineError` if that is too early."""
        if self.done:
            return []
        if self._reason is None:
            raise EngineError("the server broke the answer off")
        closed = Delta("" if self._reason == "length" else self._calls.end(), 0)
        items = self._counted([self._missing(self._reason), self._filter.flush(), closed], self._reason)
        return [*items, self._finish()]

    def _piece(self, delta: _Delta, running: int | None) -> list[Delta | None]:
        self.pieces += 1
        total = self._passed + 1 if running is None else running
        tokens, self._passed = max(0, total - self._passed), max(total, self._passed)
        self.estimated = self.estimated and running is None
        if not (delta.content or delta.tool_calls):
            self._hides = True
            tokens = 0
        self._seen += tokens
        if self.pieces > self._max_tokens or self._seen > self._max_tokens:
            raise EngineError("the server said more than it was asked")
        text = delta.content or ""
        said = self._filter.feed(prose(text) if self._has_records else text, 0 if delta.tool_calls else tokens)
        if not delta.tool_calls:
            return [said]
        return [said, self._filter.flush(), Delta(self._calls.text(delta.tool_calls), tokens)]

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

    def _counted(self, deltas: Iterable[Delta | None], end: FinishReason | None = None) -> list[Delta | Finished]:
        said = [delta for delta in deltas if delta is not None and (delta.text or delta.tokens)]
        found = self._in_prose.found(said, end) if self._in_prose else said
        self._delivered += sum(delta.tokens for delta in found)
        return [self._logprobs.behind(delta) for delta in found]

    def _finish(self) -> Finished:
        assert self._reason is not None
        self.done = True
        told = self._usage if self._usage is not None and self._usage.prompt_tokens > 0 else None
        prompt_tokens = told.prompt_tokens if told else self._prompt_tokens
        cached = max(0, self._cached, told.cached_tokens if told else 0)
        return Finished(self._reason, Usage(prompt_tokens, min(cached, prompt_tokens - 1), self._delivered))


class _Calls:
    """The server's calls, which come bit by bit, as records."""

    def __init__(self) -> None:
        self._index: int | None = None
        self._has_arguments = False

    def text(self, calls: Iterable[_Call]) -> str:
        """What more there is of the records."""
        return "".join(self._texts(calls))

    def end(self) -> str:
        """The end of the last, if there was one."""
        if self._index is None:
            return ""
        self._index = None
        return f"{'' if self._has_arguments else '{}'}}}{SEPARATOR}"

    def _texts(self, calls: Iterable[_Call]) -> Iterator[str]:
        for call in calls:
            if call.index != self._index:
                yield self.end()
                yield f'{SEPARATOR}{{"name": {json.dumps(call.function.name or "")}, "arguments": '
                self._index, self._has_arguments = call.index, False
            arguments = prose(call.function.arguments or "")
            self._has_arguments = self._has_arguments or bool(arguments)
            yield arguments


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
    if told in {"stop", "tool_calls"}:
        return "stop"
    if told == "length":
        return "length"
    raise EngineError("the server ended the answer for a reason of its own")
