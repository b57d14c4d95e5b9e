"""Core: which requests an engine takes. One rule for all engines, so that a request means the same on each."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from inference.engine import CONTINUE, EMBED, LOGPROBS, SCHEMA, SCORE, TOOLS, Message, ModelInfo, Request
from inference.errors import BadRequest, ContextOverflow, ModelMissing
from inference.records import TOP_LOGPROBS_MAX
from inference.schemas import read_object, read_schema

MAX_TEMPERATURE = 100  # beyond this every token is as likely as any other
MAX_SEED = 1 << 31  # what every engine's random generator takes
MAX_TOOLS = 128  # as OpenAI has it
MAX_TOOLS_BYTES = 1 << 18  # of all of them
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")

_LACKS = {
    CONTINUE: "does not go on with an answer",
    TOOLS: "calls no tools",
    SCHEMA: "cannot be held to a schema",
    LOGPROBS: "tells no logprobs",
    EMBED: "makes no embeddings",
}

_text = msgspec.msgpack.Decoder(str)
_request = msgspec.msgpack.Decoder(Request)


def find_model(models: Sequence[ModelInfo], model: str) -> ModelInfo:
    """The loaded model of that id. Raises `ModelMissing`."""
    for info in models:
        if info.id == model:
            return info
    raise ModelMissing("that model is not loaded here")


def check_features(model: ModelInfo, request: Request) -> None:
    """Raises `BadRequest` for what the model cannot do."""
    for feature in sorted(request.needs - {*model.features}):
        raise BadRequest(f"that model {_LACKS[feature]}")


def check_text(model: ModelInfo, text: str) -> None:
    """Raises `BadRequest` for a text that cannot be scored, or a model that scores none."""
    if SCORE not in model.features:
        raise BadRequest("that model does not score texts")
    if not text or "\0" in text:
        raise BadRequest("a text to be scored must not be empty, nor hold a NUL")
    _check_types(text, _text)


def check_request(request: Request) -> None:
    """Raises `BadRequest` unless every field has its type and a value that makes sense."""
    _check_types(request, _request)
    _check_messages(request.messages)
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
    if request.top_logprobs is not None and not 0 <= request.top_logprobs <= TOP_LOGPROBS_MAX:
        raise BadRequest(f"top_logprobs must be from 0 to {TOP_LOGPROBS_MAX}")
    _check_tools(request)
    _check_form(request)


def _check_messages(messages: tuple[Message, ...]) -> None:
    if not messages:
        raise BadRequest("there are no messages")
    if messages[-1] == Message("assistant", ""):
        raise BadRequest("an answer to go on with must not be empty")
    if [message.role for message in messages[-2:]] == ["assistant", "assistant"]:
        raise BadRequest("an answer to go on with must be one message")
    if messages[-1].tool_calls:
        raise BadRequest("the last message must not call a tool: what came of it has to follow")
    for message in messages:
        if message.tool_calls and message.role != "assistant":
            raise BadRequest("only the assistant calls tools")
        if (message.role == "tool") != bool(message.tool_call_id):
            raise BadRequest("a tool's message, and no other, says which call it answers")
        for call in message.tool_calls:
            read_object(call.arguments, "the arguments of a call")


def _check_tools(request: Request) -> None:
    names = [tool.name for tool in request.tools]
    if len(names) > MAX_TOOLS or len(names) != len({*names}):
        raise BadRequest(f"there may be {MAX_TOOLS} tools, each with a name of its own")
    for tool in request.tools:
        if not _TOOL_NAME.fullmatch(tool.name):
            raise BadRequest("a tool's name has 1 to 64 letters, digits, underscores and hyphens")
        read_object(tool.parameters, "a tool's parameters")
        if request.tool_choice == "required":
            read_schema(tool.parameters)
    if sum(len(f"{tool.description}{tool.parameters}".encode()) for tool in request.tools) > MAX_TOOLS_BYTES:
        raise BadRequest(f"the tools have {MAX_TOOLS_BYTES} bytes at most")
    if request.tool_choice == "required" and not names:
        raise BadRequest("a call is required, and there are no tools")
    if request.tool and (request.tool_choice != "required" or request.tool not in names):
        raise BadRequest("the tool to be called has to be among the tools, and required")


def _check_form(request: Request) -> None:
    if request.schema:
        read_schema(request.schema)
    if len(request.needs & {SCHEMA, TOOLS}) == 2 or request.needs >= {LOGPROBS, TOOLS}:
        raise BadRequest("tools go neither with a schema nor with logprobs")
    if (request.schema or request.tools) and request.continues:
        raise BadRequest("an answer that is begun cannot be held to a schema, nor be given tools")
    if request.embed and (request.needs != {EMBED} or request.stop):
        raise BadRequest("a text is embedded without tools, schema, logprobs and stop strings")
    if request.embed and not all(message.content for message in request.messages):
        raise BadRequest("a text to be embedded must not be empty")


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
