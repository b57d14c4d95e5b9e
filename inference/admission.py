"""Core: which requests an engine takes. One rule for all engines, so that a request means the same on each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from inference.engine import CONTINUE, SCORE, Message, ModelInfo, Request
from inference.errors import BadRequest, ContextOverflow, ModelMissing

MAX_TEMPERATURE = 100  # beyond this every token is as likely as any other
MAX_SEED = 1 << 31  # what every engine's random generator takes

_messages = msgspec.msgpack.Decoder(tuple[Message, ...])
_text = msgspec.msgpack.Decoder(str)
_request = msgspec.msgpack.Decoder(Request)


def find_model(models: Sequence[ModelInfo], model: str) -> ModelInfo:
    """The loaded model of that id. Raises `ModelMissing`."""
    for info in models:
        if info.id == model:
            return info
    raise ModelMissing("that model is not loaded here")


def check_messages(messages: tuple[Message, ...]) -> None:
    """Raises `BadRequest` for no messages, an unknown role, text that is not Unicode, or an answer badly begun."""
    _check_types(messages, _messages)
    if not messages:
        raise BadRequest("there are no messages")
    if messages[-1] == Message("assistant", ""):
        raise BadRequest("an answer to go on with must not be empty")
    if [message.role for message in messages[-2:]] == ["assistant", "assistant"]:
        raise BadRequest("an answer to go on with must be one message")


def check_begun(model: ModelInfo, messages: tuple[Message, ...]) -> None:
    """Raises `BadRequest` for an answer that is begun where the model cannot go on with one."""
    if messages[-1].role == "assistant" and CONTINUE not in model.features:
        raise BadRequest("that model does not go on with an answer")


def check_text(model: ModelInfo, text: str) -> None:
    """Raises `BadRequest` for a text that cannot be scored, or a model that scores none."""
    if SCORE not in model.features:
        raise BadRequest("that model does not score texts")
    if not text or "\0" in text:
        raise BadRequest("a text to be scored must not be empty, nor hold a NUL")
    _check_types(text, _text)


def check_request(request: Request) -> None:
    """Raises `BadRequest` unless every field has its type and a value that makes sense."""
    check_messages(request.messages)
    _check_types(request, _request)
    if request.max_tokens < 1:
        raise BadRequest("max_tokens must be at least 1")
    if not (math.isfinite(request.temperature) and 0 <= request.temperature <= MAX_TEMPERATURE):
        raise BadRequest(f"temperature must be from 0 to {MAX_TEMPERATURE}")
    if not 0 <= request.seed < MAX_SEED:
        raise BadRequest("seed must be from 0 to 2^31 - 1")
    if not 0 < request.top_p <= 1:
        raise BadRequest("top_p must be above 0 and at most 1")
    if "" in request.stop:
        raise BadRequest("a stop string must not be empty")


def check_fit(prompt_tokens: int, max_tokens: int, context: int) -> None:
    """Raises `ContextOverflow` unless the prompt and the longest answer fit together."""
    if prompt_tokens + max_tokens > context:
        raise ContextOverflow(prompt_tokens, context)


def _check_types(value: object, decoder: msgspec.msgpack.Decoder[Any]) -> None:
    """What cannot be encoded and decoded as its type could not reach a worker either."""
    try:
        decoder.decode(msgspec.msgpack.encode(value))
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError):
        # What they say quotes the value, and that may be a prompt.
        raise BadRequest("the request is malformed") from None
