"""Calls of tools as they come, wherever the text is cut."""

from __future__ import annotations

import json
from functools import reduce
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engine import Message, Request, Tool
from inference.errors import EngineError
from inference.records import SEPARATOR, Logprobs, TokenLogprob, embedding, written
from p2p.gateway.calls import Choice, Defaults, Outcome, Piece, Pieces
from p2p.gateway.chat import read_chat
from p2p.gateway.responses import read_response
from p2p.gateway.tool_calls import CallPart

REQUEST = Request(model="m", messages=(Message("user", "hi"),), max_tokens=9, tools=(Tool("weather"),))
ARGUMENTS = '{"city": "Paris", "days": {"from": {}, "to": {"a": [1, "}"]}}}'
RECORD = f'{{"name": "weather", "arguments": {ARGUMENTS}}}'
CALL = f"{SEPARATOR}{RECORD}{SEPARATOR}"
DEFAULTS = Defaults(9, "id", 1_800_000_000)


def pieces_of(*texts: str) -> list[Piece]:
    pieces = Pieces(REQUEST, "call_")
    return [*map(pieces.feed, texts), pieces.end()]


def whole(*texts: str) -> Piece:
    return sum(pieces_of(*texts), Piece())


@given(st.data())
def test_a_call_is_the_same_wherever_its_text_is_cut(data: st.DataObject) -> None:
    text = f"Well.{CALL} So {CALL}"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    cut = [text[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    calls = (CallPart("call_1", "weather", ARGUMENTS, True), CallPart("call_2", "weather", ARGUMENTS, True))
    assert whole(*cut) == Piece("Well. So ", calls)


def test_it_is_told_bit_by_bit() -> None:
    said = [[part.arguments for part in piece.tool_calls] for piece in pieces_of(*CALL)]
    assert [SEPARATOR, *RECORD, SEPARATOR] == list(CALL)
    assert len(list(filter(None, (text for texts in said for text in texts)))) > len(ARGUMENTS) / 2
    assert not pieces_of(*CALL)[0].tool_calls  # nothing before its name is known


@pytest.mark.parametrize("kept", range(1, len(RECORD) + 1))
def test_what_there_is_of_one_that_is_cut_off(kept: int) -> None:
    said = whole(SEPARATOR, RECORD[:kept]).tool_calls
    if kept <= RECORD.index(":", RECORD.index("arguments")):
        assert said == ()
        return
    (call,) = said
    assert call.name == "weather"
    assert ARGUMENTS.startswith(call.arguments)
    assert len(call.arguments) == min(max(0, kept - RECORD.index(ARGUMENTS)), len(ARGUMENTS))
    assert call.is_over == (kept == len(RECORD))


@pytest.mark.parametrize("gap", ["", " ", "\n "])
def test_the_layout_is_the_models(gap: str) -> None:
    record = f'{gap}{{{gap}"name"{gap}:{gap}"weather"{gap},{gap}"arguments"{gap}:{gap}{{"a":{gap}1{gap}}}{gap}}}{gap}'
    (call,) = whole(*f"{SEPARATOR}{record}{SEPARATOR}").tool_calls
    assert (call.name, json.loads(call.arguments), call.is_over) == ("weather", {"a": 1}, True)


def test_one_that_says_its_name_last_comes_as_a_whole() -> None:
    *before, last, end = pieces_of(*f'{SEPARATOR}{{"arguments": {{"a": 1}}, "name": "weather"}}{SEPARATOR}')
    assert not any(before)
    assert last.tool_calls == (CallPart("call_1", "weather", '{"a": 1}', True),)
    assert not end


def test_other_records_are_told_as_ever() -> None:
    told, vector = Logprobs((TokenLogprob("silk", -0.5),)), embedding([0.5])
    assert whole(*f"silk{written(told)}{CALL}{written(vector)}") == Piece(
        "silk", (CallPart("call_1", "weather", ARGUMENTS, True),), told.logprobs, (vector,)
    )


@pytest.mark.parametrize(
    "record",
    [
        '{"name": "weather", "arguments": {"a": 1}, "arguments": {"b": 1}}',
        '{"name": "weather", "arguments": {"a": 1}, "name": "other"}',
        '{"name": "\\x", "arguments": {}}',
        '{"name": "weather", "arguments": }',
    ],
)
def test_one_that_contradicts_itself_is_none(record: str) -> None:
    with pytest.raises(EngineError, match="a record"):
        whole(*f"{SEPARATOR}{record}{SEPARATOR}")


TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
PARTS = (CallPart("call_1", "weather", ""), CallPart("call_1", "weather", '{"city'))
CUT = Outcome([Choice(sum((Piece(tool_calls=(part,)) for part in PARTS), Piece()), "length")], 5, 2, {})


def events_of(dialect: Any) -> list[Any]:
    raw = [*dialect.opening(), *(event for part in PARTS for event in dialect.piece(0, Piece(tool_calls=(part,))))]
    said = [line[6:] for line in b"".join([*raw, *dialect.closing(CUT)]).decode().splitlines() if line[:5] == "data:"]
    return [json.loads(line) for line in said if line != "[DONE]"]


def test_a_chats_call_that_is_cut_off() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "tools": TOOLS}
    dialect = read_chat(json.dumps(body).encode(), DEFAULTS)[1]
    (choice,) = dialect.whole(CUT)["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert (choice["finish_reason"], call["function"]) == ("length", {"name": "weather", "arguments": '{"city'})
    deltas = [event["choices"][0]["delta"].get("tool_calls") for event in events_of(dialect)]
    first, second = (calls[0] for calls in deltas if calls)
    assert (first["index"], first["id"], first["function"]) == (0, "call_1", {"name": "weather", "arguments": ""})
    assert second == {"index": 0, "function": {"arguments": '{"city'}}
    assert events_of(dialect)[-1]["choices"][0]["finish_reason"] == "length"


def test_a_responses_call_that_is_cut_off() -> None:
    body = json.dumps({"model": "m", "input": "hi"}).encode()
    events = events_of(read_response(body, DEFAULTS)[1])
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "incomplete",
    ]
    assert reduce(str.__add__, (event["delta"] for event in events if "delta" in event)) == '{"city'
    (item,) = events[-1]["response"]["output"]
    assert (item["status"], item["arguments"], item["name"]) == ("incomplete", '{"city', "weather")
