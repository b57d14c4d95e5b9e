from __future__ import annotations

from typing import Any

import pytest

from inference.engine import Message, Request, Tool
from inference.errors import EngineError
from inference.form import HeldToJson

ASKED = Request(model="m", messages=(Message("user", "Hi."),), max_tokens=9)


def request(**rest: Any) -> Request:
    return Request(model="m", messages=ASKED.messages, max_tokens=9, **rest)


@pytest.mark.parametrize("held", [{"schema": "{}"}, {"tools": (Tool("f"),), "tool_choice": "required"}])
def test_an_answer_that_is_to_be_json_and_is_not_has_failed(held: dict[str, Any]) -> None:
    begun = HeldToJson(request(**held))
    begun.heard(" ")
    with pytest.raises(EngineError, match="did not hold"):
        begun.heard("Hello")
    ended = HeldToJson(request(**held))
    ended.heard("{")
    with pytest.raises(EngineError, match="did not hold"):
        ended.heard("", "stop")


def test_json_is_what_was_asked_for_and_may_be_cut_off() -> None:
    whole, cut = HeldToJson(request(schema="{}")), HeldToJson(request(schema="{}"))
    whole.heard('{"a"')
    whole.heard(": 1}", "stop")
    cut.heard('{"a"', "length")


def test_of_other_answers_nothing_is_asked() -> None:
    for other in (ASKED, request(tools=(Tool("f"),))):
        HeldToJson(other).heard("Hello", "stop")
