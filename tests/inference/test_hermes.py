from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from inference.engine import Delta, Message, Request, Tool, ToolCall
from inference.hermes import CallFinder, as_prose, forced
from inference.records import Call, RecordReader

WEATHER = Tool("weather", "The weather of a city", '{"type":"object","properties":{"city":{"type":"string"}}}')
TIME = Tool("time")
ASKED = Request(model="m", messages=(Message("user", "Paris?"),), max_tokens=9, tools=(WEATHER, TIME))
CALLED = Message("assistant", "I look.", (ToolCall("1", "weather", '{"city":"Paris"}'),))
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'


def found(text: str, *cuts: int) -> tuple[str, int]:
    """What becomes of a model's words, each piece of them a token."""
    finder, deltas = CallFinder(), []
    ends = sorted({*cuts, len(text)})
    for begin, end in zip([0, *ends], ends, strict=False):
        deltas.append(finder.feed(Delta(text[begin:end], 1)))
    deltas.append(finder.flush())
    there = [delta for delta in deltas if delta is not None]
    return "".join(delta.text for delta in there), sum(delta.tokens for delta in there)


def items(text: str) -> list[Any]:
    return [item.name if isinstance(item, Call) else item for item in RecordReader().feed(text)]


def test_tools_are_told_to_the_model() -> None:
    system, user = as_prose(ASKED)
    assert (system.role, user) == ("system", ASKED.messages[0])
    listed = system.content.split("<tools>\n")[1].split("\n</tools>")[0].splitlines()
    told = [json.loads(line)["function"] for line in listed]
    assert told[0]["parameters"] == json.loads(WEATHER.parameters)
    assert [one["name"] for one in told] == ["weather", "time"]
    (both, _) = as_prose(structs.replace(ASKED, messages=(Message("system", "Be brief."), *ASKED.messages)))
    assert both.content == f"Be brief.\n\n{system.content}"
    assert as_prose(structs.replace(ASKED, tool_choice="none")) == ASKED.messages
    assert as_prose(structs.replace(ASKED, tools=())) == ASKED.messages


def test_calls_and_what_came_of_them_are_told_in_words() -> None:
    came = Message("tool", "It rains.", tool_call_id="1")
    said = as_prose(structs.replace(ASKED, messages=(*ASKED.messages, CALLED, came), tool_choice="none"))
    assert [message.role for message in said] == ["user", "assistant", "user"]
    assert said[1].content == 'I look.\n<tool_call>\n{"name": "weather", "arguments": {"city":"Paris"}}\n</tool_call>'
    assert "It rains." in said[2].content


def test_a_call_that_is_required_is_had_by_a_schema() -> None:
    required = structs.replace(ASKED, tool_choice="required")
    schema = forced(required)
    assert schema is not None
    assert [one["properties"]["name"]["const"] for one in schema["anyOf"]] == ["weather", "time"]
    one = forced(structs.replace(required, tool="time"))
    assert one is not None
    assert one["properties"]["name"] == {"const": "time"}
    assert forced(structs.replace(ASKED, tools=(), schema='{"type":"object"}')) == {"type": "object"}
    assert forced(ASKED) is None


@given(st.lists(st.integers(0, 200), max_size=8))
def test_calls_are_found_wherever_the_text_is_cut(cuts: list[int]) -> None:
    text = f"Well <b>. {CALL} {CALL}\nDone."
    inside = [cut for cut in cuts if 0 < cut < len(text)]
    said, tokens = found(text, *inside)
    assert items(said) == ["Well <b>.", "weather", "weather", "Done."]
    assert tokens == len({*inside, len(text)})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no call", ["no call"]),
        ("half <tool_c", ["half <tool_c"]),
        (CALL.removesuffix("</tool_call>"), ["weather"]),
        ("<tool_call>{not JSON}</tool_call>", ["<tool_call>{not JSON}</tool_call>"]),
        (
            '<tool_call>{"name": "x", "arguments": 5}</tool_call>',
            ['<tool_call>{"name": "x", "arguments": 5}</tool_call>'],
        ),
        ("a\x1eb", ["ab"]),
        (f"{CALL} \n ", ["weather"]),
        ("", []),
    ],
)
def test_what_is_no_call_stays_prose(text: str, expected: list[str]) -> None:
    assert items(found(text)[0]) == expected


def test_what_is_sure_goes_on_at_once() -> None:
    finder = CallFinder()
    assert finder.feed(Delta("Well", 1)) == Delta("Well", 1)
    assert finder.feed(Delta(" a <", 2)) == Delta(" a", 0), "the tokens follow when all of their text is sure"
    assert finder.feed(Delta("b", 1)) == Delta(" <b", 3)
    assert finder.feed(Delta(" ", 1)) is None
    assert finder.flush() == Delta(" ", 1)
