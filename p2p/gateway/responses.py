"""Pure: `/v1/responses`, from OpenAI's JSON to a `Request`, and from an answer to items and events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec

from inference.engine import Message, Request, ToolCall
from p2p.gateway.bodies import NOT_YET, SEEDS, Body, Positive, read, refuse, schema_text, tool_of
from p2p.gateway.calls import Call, Defaults, Outcome, Piece, data
from p2p.gateway.chat import ROLES, Part, text_of
from p2p.gateway.failures import Failure, invalid
from p2p.gateway.tool_calls import CallPart

Object = dict[str, Any]


class Item(msgspec.Struct, frozen=True):
    """A turn, a call that the model made, or what came of one."""

    type: Literal["message", "function_call", "function_call_output"] = "message"
    role: Literal["system", "developer", "user", "assistant"] = "user"
    content: str | tuple[Part, ...] = ""
    call_id: str = ""
    name: str = ""
    arguments: str = "{}"
    output: str | tuple[Part, ...] = ""


class FunctionTool(msgspec.Struct, frozen=True):
    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: Object | None = None


class NamedTool(msgspec.Struct, frozen=True):
    name: str


class Format(msgspec.Struct, frozen=True):
    type: Literal["text", "json_object", "json_schema"] = "text"
    schema: Object | None = None


class Text(msgspec.Struct, frozen=True):
    format: Format = Format()


class ResponsesBody(Body, frozen=True, kw_only=True):
    """What is looked at of the body."""

    input: str | Annotated[tuple[Item, ...], msgspec.Meta(min_length=1)]
    instructions: str | None = None
    max_output_tokens: Positive | None = None
    tools: tuple[FunctionTool, ...] | None = None
    tool_choice: Literal["auto", "none", "required"] | NamedTool | None = None
    text: Text | None = None
    metadata: dict[str, str] | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    background: bool | None = None


class Response:
    """How its answer is said. See `calls.Dialect`."""

    def __init__(self, body: ResponsesBody, defaults: Defaults) -> None:
        self._body = body
        self._id = defaults.answer_id
        self._created = defaults.created
        self._said = 0  # events so far
        self._text: int | None = None  # the place of the item with the text, once there is one
        self._calls: dict[str, int] = {}  # the places of those with calls, by the calls' ids

    def whole(self, outcome: Outcome) -> Object:
        (choice,) = outcome.choices
        status = "incomplete" if choice.reason == "length" else "completed"
        return self._resource(status, self._output(choice.whole, status), outcome)

    def opening(self) -> Sequence[bytes]:
        begun = self._resource("in_progress", [])
        return [self._event(f"response.{what}", response=begun) for what in ("created", "in_progress")]

    def piece(self, index: int, piece: Piece) -> Sequence[bytes]:
        events: list[bytes] = []
        if piece.text:
            if self._text is None:
                events += self._begin_text()
            events.append(self._text_event("output_text.delta", delta=piece.text, logprobs=[]))
        for call in piece.tool_calls:
            if call.id not in self._calls:
                events += self._begin_call(call)
            events.append(self._call_event("delta", call, delta=call.arguments))
        return events

    def begun(self, index: int, bombyx: Mapping[str, Any]) -> Sequence[bytes]:
        return []

    def closing(self, outcome: Outcome) -> Sequence[bytes]:
        (choice,) = outcome.choices
        said = self.whole(outcome)
        events: list[bytes] = []
        for call in choice.whole.tool_calls:
            events.append(self._call_event("done", call, arguments=call.arguments, name=call.name))
        if self._text is not None:
            text = choice.whole.text
            events.append(self._text_event("output_text.done", text=text, logprobs=[]))
            events.append(self._text_event("content_part.done", part=_output_text(text)))
        if self._places:
            events += [
                self._event("response.output_item.done", output_index=at, item=item)
                for at, item in enumerate(said["output"])
            ]
        return [*events, self._event(f"response.{said['status']}", response=said)]

    def failed(self, failure: Failure) -> Sequence[bytes]:
        error = {"code": failure.code, "message": failure.message}
        broken = self._resource("failed", []) | {"error": error, **failure.extra}
        return [self._event("error", **error, param=failure.param), self._event("response.failed", response=broken)]

    @property
    def _places(self) -> int:
        """Those that are taken."""
        return len(self._calls) + (self._text is not None)

    def _begin_text(self) -> list[bytes]:
        self._text = self._places
        item = self._message("", "in_progress") | {"content": []}
        return [
            self._event("response.output_item.added", output_index=self._text, item=item),
            self._text_event("content_part.added", part=_output_text("")),
        ]

    def _begin_call(self, call: CallPart) -> list[bytes]:
        self._calls[call.id] = self._places
        item = _function_call(call) | {"arguments": "", "status": "in_progress"}
        return [self._event("response.output_item.added", output_index=self._calls[call.id], item=item)]

    def _call_event(self, what: str, call: CallPart, **fields: Any) -> bytes:
        place = {"output_index": self._calls[call.id], "item_id": _item_id(call)}
        return self._event(f"response.function_call_arguments.{what}", **place, **fields)

    def _output(self, whole: Piece, status: str) -> list[Object]:
        """The items in the order in which they came, where that is known."""
        items = [_function_call(call) for call in whole.tool_calls]
        if whole.text or not items:
            items.insert(self._text or 0, self._message(whole.text, status))
        return items

    def _message(self, text: str, status: str) -> Object:
        return {
            "type": "message",
            "id": f"msg_{self._id}",
            "role": "assistant",
            "status": status,
            "content": [_output_text(text)],
        }

    def _text_event(self, what: str, **fields: Any) -> bytes:
        place = {"item_id": f"msg_{self._id}", "output_index": self._text, "content_index": 0}
        return self._event(f"response.{what}", **place, **fields)

    def _event(self, kind: str, **fields: Any) -> bytes:
        number, self._said = self._said, self._said + 1
        return data({"type": kind, "sequence_number": number, **fields}, kind)

    def _resource(self, status: str, output: Sequence[Object], outcome: Outcome | None = None) -> Object:
        asked = self._body
        cut = status == "incomplete"
        return {
            "id": f"resp_{self._id}",
            "object": "response",
            "created_at": self._created,
            "completed_at": self._created if outcome else None,
            "status": status,
            "model": asked.model,
            "output": output,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            **asked.sampling,
            "tools": [_echoed(tool) for tool in asked.tools or ()],
            "tool_choice": _echoed_choice(asked.tool_choice),
            "text": {"format": msgspec.to_builtins(asked.text.format) if asked.text else {"type": "text"}},
            "metadata": asked.metadata or {},
            "usage": None if outcome is None else _usage(outcome),
            **({} if outcome is None else {"bombyx": outcome.bombyx}),
            **ALWAYS,
        }


# What this gateway has one answer to.
ALWAYS: Mapping[str, Any] = {
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "truncation": "disabled",
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "top_logprobs": 0,
    "reasoning": {"effort": None, "summary": None},
    "max_tool_calls": None,
    "store": False,
    "background": False,
    "service_tier": "default",
    "safety_identifier": None,
    "prompt_cache_key": None,
}


def read_response(body: bytes, defaults: Defaults) -> tuple[Call, Response]:
    """What is wanted. Raises `Rejected`."""
    asked = read(body, ResponsesBody)
    kept = {"previous_response_id": asked.previous_response_id, "conversation": asked.conversation}
    refuse(kept, "needs answers that are kept, and this gateway keeps none")
    refuse({"background": asked.background}, NOT_YET)
    request = Request(
        model=asked.model,
        messages=_messages(asked),
        max_tokens=asked.max_output_tokens or 0,
        seed=defaults.seed % SEEDS,
        tools=tuple(tool_of(tool.name, tool.description, tool.parameters) for tool in asked.tools or ()),
        schema="" if asked.text is None or asked.text.format.type == "text" else schema_text(asked.text.format.schema),
        **asked.sampling,
        **_tool_choice(asked),
    )
    return Call((request,), bool(asked.stream)), Response(asked, defaults)


def _messages(asked: ResponsesBody) -> tuple[Message, ...]:
    items = (Item(content=asked.input),) if isinstance(asked.input, str) else asked.input
    found = [Message("system", asked.instructions)] if asked.instructions else []
    for item in items:
        if item.type == "function_call":
            found.append(Message("assistant", "", (ToolCall(item.call_id, item.name, item.arguments),)))
        elif item.type == "function_call_output":
            found.append(Message("tool", text_of(item.output), (), item.call_id))
        else:
            found.append(Message(ROLES[item.role], text_of(item.content)))
    if not any(message.role != "system" for message in found):
        raise invalid("there is no turn of the user's", param="input")
    return tuple(found)


def _tool_choice(asked: ResponsesBody) -> dict[str, Any]:
    if isinstance(asked.tool_choice, NamedTool):
        return {"tool_choice": "required", "tool": asked.tool_choice.name}
    return {"tool_choice": asked.tool_choice} if asked.tools and asked.tool_choice else {}


def _output_text(text: str) -> Object:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _function_call(call: CallPart) -> Object:
    return {
        "type": "function_call",
        "id": _item_id(call),
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
        "status": "completed" if call.is_over else "incomplete",
    }


def _item_id(call: CallPart) -> str:
    return f"fc_{call.id}"


def _echoed(tool: FunctionTool) -> Object:
    return {**msgspec.structs.asdict(tool), "strict": None}


def _echoed_choice(choice: Literal["auto", "none", "required"] | NamedTool | None) -> str | Object:
    return {"type": "function", "name": choice.name} if isinstance(choice, NamedTool) else choice or "auto"


def _usage(outcome: Outcome) -> Object:
    return {
        "input_tokens": outcome.prompt_tokens,
        "output_tokens": outcome.completion_tokens,
        "total_tokens": outcome.prompt_tokens + outcome.completion_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
