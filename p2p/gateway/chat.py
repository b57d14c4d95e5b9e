"""Pure: `/v1/chat/completions`, from OpenAI's JSON to a `Request`, and from an answer back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec

from inference.engine import Message, Request, Tool, ToolCall
from inference.records import TOP_LOGPROBS_MAX, TokenLogprob
from p2p.gateway.bodies import NOT_YET, ChoicesBody, Positive, read, schema_text, tool_of
from p2p.gateway.calls import DONE, Call, Choice, Defaults, Outcome, Piece, data
from p2p.gateway.failures import Failure, invalid
from p2p.gateway.tool_calls import CallPart

ROLES: Mapping[str, Literal["system", "user", "assistant", "tool"]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
TEXTS = {"text", "input_text", "output_text"}
"""Kinds of content that are nothing but text, in chat completions and in responses."""
NOTHING: Mapping[str, Any] = {}


class Part(msgspec.Struct, frozen=True):
    """A piece of a message's content. Only text is understood."""

    type: str
    text: str = ""


class Function(msgspec.Struct, frozen=True):
    """Of a tool, or of a call: `arguments` is then the text of a JSON object."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    arguments: str = "{}"


class FunctionTool(msgspec.Struct, frozen=True):
    function: Function
    type: Literal["function"] = "function"


class FunctionCall(msgspec.Struct, frozen=True):
    id: str
    function: Function


class ChosenTool(msgspec.Struct, frozen=True):
    function: Function


class ChatMessage(msgspec.Struct, frozen=True):
    """A turn, as callers write it."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | tuple[Part, ...] | None = None
    tool_calls: tuple[FunctionCall, ...] | None = None
    tool_call_id: str | None = None


class NamedSchema(msgspec.Struct, frozen=True):
    schema: dict[str, Any] | None = None


class ResponseFormat(msgspec.Struct, frozen=True):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None

    @property
    def schema(self) -> str:
        """As an engine takes it; empty for free text."""
        if self.type == "text":
            return ""
        return schema_text(self.json_schema.schema if self.json_schema else None)


class ChatBody(ChoicesBody, frozen=True, kw_only=True):
    """What is looked at of the body."""

    messages: Annotated[tuple[ChatMessage, ...], msgspec.Meta(min_length=1)]
    max_tokens: Positive | None = None
    max_completion_tokens: Positive | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=TOP_LOGPROBS_MAX)] | None = None
    tools: tuple[FunctionTool, ...] | None = None
    tool_choice: Literal["auto", "none", "required"] | ChosenTool | None = None
    response_format: ResponseFormat | None = None


class Chat:
    """One call, and how its answer is said. See `calls.Dialect`."""

    def __init__(self, body: ChatBody, defaults: Defaults) -> None:
        self._body = body
        self._id = f"chatcmpl-{defaults.answer_id}"
        self._created = defaults.created
        self._calls: list[list[str]] = [[] for _ in range(body.n or 1)]  # of tools that were said, by each choice
        self._usage = body.wants_usage

    def whole(self, outcome: Outcome) -> dict[str, Any]:
        choices: list[dict[str, Any]] = [
            {
                "index": index,
                "message": _said_message(choice.whole),
                "logprobs": self._logprobs(choice.whole),
                "finish_reason": choice.finish_reason,
            }
            for index, choice in enumerate(outcome.choices)
        ]
        usage = usage_of(outcome)
        return self._said("chat.completion", choices) | {"usage": usage, "bombyx": outcome.bombyx}

    def opening(self) -> Sequence[bytes]:
        delta = {"role": "assistant", "content": "", "refusal": None}
        return [self._chunk(index, delta) for index in range(self._body.n or 1)]

    def piece(self, index: int, piece: Piece) -> Sequence[bytes]:
        delta: dict[str, Any] = {"content": piece.text} if piece.text else {}
        if piece.tool_calls:
            delta["tool_calls"] = [self._more_of(call, self._calls[index]) for call in piece.tool_calls]
        return [self._chunk(index, delta, logprobs=self._logprobs(piece))]

    def begun(self, index: int, bombyx: Mapping[str, Any]) -> Sequence[bytes]:
        return [self._chunk(index, {}, more={"bombyx": bombyx})]

    def closing(self, outcome: Outcome) -> Sequence[bytes]:
        said = {"bombyx": outcome.bombyx}
        events = [self._chunk(index, {}, choice, said) for index, choice in enumerate(outcome.choices)]
        if self._usage:
            events.append(data(self._said("chat.completion.chunk", []) | {"usage": usage_of(outcome)} | said))
        return [*events, DONE]

    def failed(self, failure: Failure) -> Sequence[bytes]:
        return [data(failure.body), DONE]

    def _more_of(self, call: CallPart, known: list[str]) -> dict[str, Any]:
        if call.id in known:
            return {"index": known.index(call.id), "function": {"arguments": call.arguments}}
        known.append(call.id)
        return {"index": len(known) - 1, **_said_call(call)}

    def _logprobs(self, piece: Piece) -> Mapping[str, Any] | None:
        if not self._body.logprobs:
            return None
        return {"content": [_said_logprob(token) for token in piece.logprobs], "refusal": None}

    def _chunk(
        self,
        index: int,
        delta: Mapping[str, Any],
        over: Choice | None = None,
        more: Mapping[str, Any] = NOTHING,
        logprobs: Mapping[str, Any] | None = None,
    ) -> bytes:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": None if over is None else over.finish_reason,
        }
        usage = {"usage": None} if self._usage else NOTHING
        return data({**self._said("chat.completion.chunk", [choice]), **usage, **more})

    def _said(self, kind: str, choices: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._body.model,
            "choices": choices,
            "service_tier": "default",
        }


def read_chat(body: bytes, defaults: Defaults) -> tuple[Call, Chat]:
    """What is wanted. Raises `Rejected`."""
    asked = read(body, ChatBody)
    asked.refuse_penalties()
    request = Request(
        model=asked.model,
        messages=tuple(map(_message, asked.messages)),
        max_tokens=asked.max_completion_tokens or asked.max_tokens or 0,
        tools=tuple(_tool(tool) for tool in asked.tools or ()),
        schema=asked.response_format.schema if asked.response_format else "",
        top_logprobs=(asked.top_logprobs or 0) if asked.logprobs else None,
        **_tool_choice(asked),
    )
    return Call(asked.choices(request, defaults.seed), bool(asked.stream)), Chat(asked, defaults)


def usage_of(outcome: Outcome) -> dict[str, Any]:
    return {
        "prompt_tokens": outcome.prompt_tokens,
        "completion_tokens": outcome.completion_tokens,
        "total_tokens": outcome.prompt_tokens + outcome.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _tool(tool: FunctionTool) -> Tool:
    return tool_of(tool.function.name, tool.function.description, tool.function.parameters)


def _tool_choice(asked: ChatBody) -> dict[str, Any]:
    if isinstance(asked.tool_choice, ChosenTool):
        return {"tool_choice": "required", "tool": asked.tool_choice.function.name}
    return {"tool_choice": asked.tool_choice} if asked.tools and asked.tool_choice else {}


def _message(message: ChatMessage) -> Message:
    role = ROLES[message.role]
    calls = tuple(ToolCall(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ())
    return Message(role, text_of(message.content), calls, message.tool_call_id or "")


def text_of(content: str | Sequence[Part] | None) -> str:
    """A message's text. Raises `Rejected` for what is none."""
    if content is None or isinstance(content, str):
        return content or ""
    for part in content:
        if part.type not in TEXTS:
            raise invalid(f"content of type {part.type[:40]!r} {NOT_YET}", param="messages", code="unsupported_content")
    return "".join(part.text for part in content)


def _said_message(whole: Piece) -> dict[str, Any]:
    content = whole.text if whole.text or not whole.tool_calls else None
    said: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None, "annotations": []}
    return said | ({"tool_calls": [_said_call(call) for call in whole.tool_calls]} if whole.tool_calls else {})


def _said_call(call: CallPart) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _said_logprob(one: TokenLogprob) -> dict[str, Any]:
    top = [{"token": token, "logprob": logprob, "bytes": list(token.encode())} for token, logprob in one.top]
    return {"token": one.token, "logprob": one.logprob, "bytes": list(one.token.encode()), "top_logprobs": top}
