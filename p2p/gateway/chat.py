"""Pure: `/v1/chat/completions`, from OpenAI's JSON to a `Request`, and from an answer back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec

from inference.engine import Message, Request
from p2p.gateway.calls import (
    DONE,
    MAX_CHOICES,
    SEEDS,
    Call,
    Choice,
    Defaults,
    Outcome,
    Positive,
    Probability,
    Stops,
    Temperature,
    data,
    read,
    refuse,
    stops,
)
from p2p.gateway.failures import Failure, invalid

NOTHING: Mapping[str, Any] = {}
NOT_YET = "is not supported by this gateway"


class Part(msgspec.Struct, frozen=True):
    """A piece of a message's content. Only text is understood."""

    type: str
    text: str = ""


class ChatMessage(msgspec.Struct, frozen=True):
    """A turn, as callers write it."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | tuple[Part, ...] | None = None


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None


class ChatBody(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked at of the body. `null` is as if it were not there, as OpenAI has it."""

    model: str
    messages: Annotated[tuple[ChatMessage, ...], msgspec.Meta(min_length=1)]
    max_tokens: Positive | None = None
    max_completion_tokens: Positive | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    seed: int | None = None
    stop: Stops | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=MAX_CHOICES)] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    tools: tuple[dict[str, Any], ...] | None = None
    response_format: dict[str, Any] | None = None


class Chat:
    """One call, and how its answer is said. See `calls.Dialect`."""

    def __init__(self, body: ChatBody, answer_id: str, created: int) -> None:
        """`answer_id` is what the caller will know the answer by; `created` in unix seconds."""
        self._body = body
        self._id = f"chatcmpl-{answer_id}"
        self._created = created
        self._usage = bool(body.stream_options and body.stream_options.include_usage)

    def whole(self, outcome: Outcome) -> dict[str, Any]:
        choices: list[dict[str, Any]] = [
            {
                "index": index,
                "message": {"role": "assistant", "content": choice.text, "refusal": None, "annotations": []},
                "logprobs": None,
                "finish_reason": choice.finish_reason,
            }
            for index, choice in enumerate(outcome.choices)
        ]
        usage = usage_of(outcome)
        return self._said("chat.completion", choices) | {"usage": usage, "bombyx": outcome.bombyx}

    def opening(self) -> Sequence[bytes]:
        delta = {"role": "assistant", "content": "", "refusal": None}
        return [self._chunk(index, delta) for index in range(self._body.n or 1)]

    def piece(self, index: int, text: str) -> Sequence[bytes]:
        return [self._chunk(index, {"content": text})]

    def closing(self, outcome: Outcome) -> Sequence[bytes]:
        said = {"bombyx": outcome.bombyx}
        events = [self._chunk(index, {}, choice, said) for index, choice in enumerate(outcome.choices)]
        if self._usage:
            events.append(data(self._said("chat.completion.chunk", []) | {"usage": usage_of(outcome)} | said))
        return [*events, DONE]

    def failed(self, failure: Failure) -> Sequence[bytes]:
        return [data(failure.body), DONE]

    def _chunk(
        self, index: int, delta: Mapping[str, Any], over: Choice | None = None, more: Mapping[str, Any] = NOTHING
    ) -> bytes:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": None,
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
            "system_fingerprint": None,
            "service_tier": "default",
        }


def read_chat(body: bytes, defaults: Defaults) -> tuple[Call, ChatBody]:
    """What is wanted. Raises `Rejected`."""
    asked = read(body, ChatBody)
    _refuse_what_would_be_ignored(asked)
    request = Request(
        model=asked.model,
        messages=tuple(map(_message, asked.messages)),
        max_tokens=asked.max_completion_tokens or asked.max_tokens or 0,
        temperature=1.0 if asked.temperature is None else asked.temperature,
        top_p=1.0 if asked.top_p is None else asked.top_p,
        seed=defaults.seed if asked.seed is None else asked.seed % SEEDS,
        stop=stops(asked.stop),
    )
    return Call(request, asked.n or 1, bool(asked.stream)), asked


def usage_of(outcome: Outcome) -> dict[str, Any]:
    return {
        "prompt_tokens": outcome.prompt_tokens,
        "completion_tokens": outcome.completion_tokens,
        "total_tokens": outcome.prompt_tokens + outcome.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _refuse_what_would_be_ignored(asked: ChatBody) -> None:
    refuse(
        {
            "frequency_penalty": asked.frequency_penalty,
            "presence_penalty": asked.presence_penalty,
            "logit_bias": asked.logit_bias,
            "logprobs": asked.logprobs,
            "tools": asked.tools,
            "response_format": asked.response_format if (asked.response_format or {}).get("type") != "text" else None,
        },
        NOT_YET,
    )


def _message(message: ChatMessage) -> Message:
    role: Literal["system", "user", "assistant"] = "system" if message.role == "developer" else message.role
    if message.content is None:
        return Message(role, "")
    if isinstance(message.content, str):
        return Message(role, message.content)
    for part in message.content:
        if part.type != "text":
            raise invalid(f"content of type {part.type[:40]!r} {NOT_YET}", param="messages", code="unsupported_content")
    return Message(role, "".join(part.text for part in message.content))
