from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import structs

from inference.completions import CompletionReader, answer_body
from inference.engine import Delta, Finished, Message, Request, Tool
from inference.errors import EngineError
from inference.hermes import in_prose
from inference.records import Call, Logprobs, RecordReader, TokenLogprob

WEATHER = Tool("weather", "The weather", '{"type": "object", "properties": {"city": {"type": "string"}}}')
ASKED = Request(model="m", messages=(Message("user", "Paris?"),), max_tokens=40, tools=(WEATHER,))
CALL = '{"name": "weather", "arguments": {"city": "Paris"}}'


def said(reader: CompletionReader, *texts: str, reason: str = "stop") -> tuple[list[Any], Finished]:
    """What becomes of a server's words, each a token; calls as their names and arguments."""
    deltas = [{"content": text} for text in texts]
    return answered(reader, *deltas, reason=reason)


def answered(reader: CompletionReader, *deltas: dict[str, Any], reason: str) -> tuple[list[Any], Finished]:
    chunks: list[dict[str, Any]] = [{"choices": [{"delta": delta}]} for delta in deltas]
    chunks.append({"choices": [{"delta": {}, "finish_reason": reason}]})
    items = [item for chunk in chunks for item in reader.feed(json.dumps(chunk).encode())] + reader.feed(b"[DONE]")
    *pieces, finished = items
    assert isinstance(finished, Finished)
    found = [piece for piece in pieces if isinstance(piece, Delta)]
    assert sum(piece.tokens for piece in found) == finished.usage.completion_tokens
    read = RecordReader().feed("".join(piece.text for piece in found))
    return [(one.name, json.loads(one.text)) if isinstance(one, Call) else one for one in read], finished


def test_a_server_that_knows_of_no_tools_is_told_in_prose() -> None:
    body = answer_body("served", in_prose(ASKED))
    assert "tools" not in body
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert "response_format" not in body
    required = answer_body("served", in_prose(structs.replace(ASKED, tool_choice="required", tool="weather")))
    schema = required["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["name"] == {"const": "weather"}


def test_its_words_are_searched_for_calls() -> None:
    reader = CompletionReader(ASKED, 9, tools_in_prose=True)
    items, finished = said(reader, "I look. ", "<tool_", "call>", CALL, "</tool_call>")
    assert items == ["I look.", ("weather", {"city": "Paris"})]
    assert (finished.reason, finished.usage.completion_tokens) == ("stop", 5)


def test_what_else_is_asked_of_it_comes_as_it_does() -> None:
    told = structs.replace(ASKED, tools=(), top_logprobs=0)
    reader = CompletionReader(told, 9, tools_in_prose=True)
    logprobs = {"content": [{"token": "Yes", "logprob": -0.5, "top_logprobs": []}]}
    chunk = json.dumps({"choices": [{"delta": {"content": "Yes"}, "logprobs": logprobs}]}).encode()
    (piece,) = reader.feed(chunk)
    assert isinstance(piece, Delta)
    assert RecordReader().feed(piece.text) == ["Yes", Logprobs((TokenLogprob("Yes", -0.5),))]


def test_a_stop_string_ends_them() -> None:
    reader = CompletionReader(structs.replace(ASKED, stop=("END",)), 9, tools_in_prose=True)
    chunk = json.dumps({"choices": [{"delta": {"content": "Well <END"}}]}).encode()
    *pieces, finished = reader.feed(chunk)
    assert "".join(piece.text for piece in pieces if isinstance(piece, Delta)) == "Well <"
    assert isinstance(finished, Finished)
    assert finished.usage.completion_tokens == 1
    assert reader.done


def test_a_call_that_is_required_is_all_that_it_says() -> None:
    required = structs.replace(ASKED, tool_choice="required")
    items, _ = said(CompletionReader(required, 9, tools_in_prose=True), CALL[:20], CALL[20:])
    assert items == [("weather", {"city": "Paris"})]
    with pytest.raises(EngineError, match="did not hold"):
        said(CompletionReader(required, 9, tools_in_prose=True), "It rains.")


def test_calls_of_a_server_that_has_its_own_are_put_together() -> None:
    begun = {"tool_calls": [{"index": 0, "id": "1", "function": {"name": "weather", "arguments": '{"city":'}}]}
    more = {"tool_calls": [{"index": 0, "function": {"arguments": ' "Paris"}'}}]}
    other = {"tool_calls": [{"index": 1, "id": "2", "function": {"name": "weather", "arguments": None}}]}
    required = structs.replace(ASKED, tool_choice="required")
    for asked in (ASKED, required):
        items, finished = answered(
            CompletionReader(asked, 9), {"content": "I look."}, begun, more, other, reason="tool_calls"
        )
        assert items == ["I look.", ("weather", {"city": "Paris"}), ("weather", {})]
        assert finished.reason == "stop"


def test_a_server_that_does_not_hold_its_answer_to_the_schema_has_failed() -> None:
    held = structs.replace(ASKED, tools=(), schema="{}")
    assert said(CompletionReader(held, 9), '{"a":', "1}")[0] == ['{"a":1}']
    with pytest.raises(EngineError, match="did not hold"):
        said(CompletionReader(held, 9), '{"a":', "1")
