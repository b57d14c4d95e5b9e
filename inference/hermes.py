"""Core: tools for models whose template or server knows of none, in the form that Hermes and Qwen were taught.

A system message says what there is, the model writes `<tool_call>{"name": ..., "arguments": ...}</tool_call>`, and what
came of it is told in `<tool_response>`. See the prompt format of github.com/NousResearch/Hermes-Function-Calling.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from inference.engine import Delta, Message, Request, Tool
from inference.records import Call, prose, written
from inference.schemas import read_schema

_BEGIN, _END = "<tool_call>", "</tool_call>"


def as_prose(request: Request) -> tuple[Message, ...]:
    """The messages in words that any template can take: no tools, no calls, no turns of tools."""
    said = tuple(_plain(message) for message in request.messages)
    if not request.tools or request.tool_choice == "none":
        return said
    told = _told(request)
    if said[0].role == "system":
        return (Message("system", f"{said[0].content}\n\n{told}"), *said[1:])
    return (Message("system", told), *said)


def in_prose(request: Request) -> Request:
    """The same, of a server that knows of no tools."""
    schema = forced(request)
    return msgspec.structs.replace(
        request,
        messages=as_prose(request),
        tools=(),
        tool_choice="auto",
        tool="",
        schema=json.dumps(schema) if schema is not None else "",
    )


def forced(request: Request) -> dict[str, Any] | None:
    """The JSON schema that an answer is held to: the request's own, or that of a call where one is required."""
    if request.schema:
        return read_schema(request.schema)
    if not is_forced(request):
        return None
    calls = [_call_schema(tool.name, tool.parameters) for tool in request.tools if request.tool in ("", tool.name)]
    return calls[0] if len(calls) == 1 else {"anyOf": calls}


def is_forced(request: Request) -> bool:
    """Whether the whole answer is one call."""
    return bool(request.tools) and request.tool_choice == "required"


def as_function(tool: Tool) -> dict[str, Any]:
    """As OpenAI's API has it."""
    return {"name": tool.name, "description": tool.description, "parameters": json.loads(tool.parameters)}


class CallFinder:
    """Makes records of the calls in a model's words, holds back what may be one, and drops the blanks around them."""

    def __init__(self) -> None:
        self._text = ""
        self._tokens = 0
        self._called = False  # just now, and nothing has followed

    def feed(self, delta: Delta) -> Delta | None:
        """What became final."""
        self._add(prose(delta.text))
        self._tokens += delta.tokens
        final = []
        while (begin := self._text.find(_BEGIN)) >= 0 and (end := self._text.find(_END, begin)) >= 0:
            call, rest = self._text[begin + len(_BEGIN) : end], self._text[end + len(_END) :]
            final += [self._text[:begin].rstrip(), _record(call) or f"{_BEGIN}{call}{_END}"]
            self._text, self._called = "", True
            self._add(rest)
        sure = len((self._text[:begin] if begin >= 0 else _sure(self._text)).rstrip())
        final.append(self._text[:sure])
        self._text = self._text[sure:]
        if self._text:
            return Delta("".join(final), 0) if any(final) else None
        return self._release("".join(final))

    def _add(self, text: str) -> None:
        self._text += text.lstrip() if self._called else text
        self._called = self._called and not self._text

    def flush(self) -> Delta | None:
        """The rest: at the end a call may lack its end mark."""
        text = self._text
        self._text = ""
        record = _record(text.lstrip().removeprefix(_BEGIN)) if text.lstrip().startswith(_BEGIN) else ""
        return self._release(record or text)

    def _release(self, text: str) -> Delta | None:
        tokens, self._tokens = self._tokens, 0
        return Delta(text, tokens) if text or tokens else None


def _plain(message: Message) -> Message:
    if message.role == "tool":
        return Message("user", f"<tool_response>\n{message.content}\n</tool_response>")
    calls = "".join(
        f'\n{_BEGIN}\n{{"name": {json.dumps(call.name)}, "arguments": {call.arguments}}}\n{_END}'
        for call in message.tool_calls
    )
    return Message(message.role, (message.content + calls).strip() if calls else message.content)


def _told(request: Request) -> str:
    listed = "\n".join(json.dumps({"type": "function", "function": as_function(tool)}) for tool in request.tools)
    return (
        f"You may call these functions to help with the user's question:\n<tools>\n{listed}\n</tools>\n"
        "For each call, return a JSON object with the function's name and its arguments:\n"
        f'{_BEGIN}\n{{"name": <name>, "arguments": <object>}}\n{_END}'
    )


def _call_schema(name: str, parameters: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"name": {"const": name}, "arguments": read_schema(parameters)},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _record(text: str) -> str:
    """The call as a record; empty if it is none."""
    try:
        call = msgspec.json.decode(text, type=Call)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return ""
    return written(call) if bytes(call.arguments).lstrip().startswith(b"{") else ""


def _sure(text: str) -> str:
    """The text without what may begin a call at its end."""
    unsure = next((size for size in range(len(_BEGIN) - 1, 0, -1) if text.endswith(_BEGIN[:size])), 0)
    return text[: len(text) - unsure]
