"""OpenAI's JSON to a request and back, by tables."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inference.engine import Message, Request
from p2p.gateway.calls import Choice, Defaults, Outcome, Piece
from p2p.gateway.chat import Chat, read_chat
from p2p.gateway.failures import Failure, Rejected

DEFAULTS = Defaults(9, "id", 1_800_000_000)
HELLO = [{"role": "user", "content": "hello"}]
BOMBYX = {"provider": "12D3", "cost_nano": 7}
OUTCOME = Outcome([Choice(Piece("hi there"), "stop")], 5, 2, BOMBYX)


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": HELLO, **fields}).encode()


def text(content: str) -> dict[str, str]:
    return {"type": "text", "text": content}


def request(**fields: Any) -> Request:
    plain: dict[str, Any] = {"model": "m", "messages": (Message("user", "hello"),), "max_tokens": 0}
    return Request(**{**plain, "temperature": 1.0, "seed": 9, **fields})


def chat(**fields: Any) -> Chat:
    return read_chat(body(**fields), DEFAULTS)[1]


def said(events: Any) -> list[Any]:
    """The data of events, each of which is whole."""
    whole = b"".join(events).decode()
    assert whole.endswith("\n\n")
    found = [event.removeprefix("data: ") for event in whole.split("\n\n")[:-1]]
    return [one if one == "[DONE]" else json.loads(one) for one in found]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, request()),
        ({"max_tokens": 7}, request(max_tokens=7)),
        ({"max_tokens": 7, "max_completion_tokens": 8}, request(max_tokens=8)),
        ({"temperature": 0, "top_p": 0.5}, request(temperature=0.0, top_p=0.5)),
        ({"temperature": None, "stop": None, "n": None, "stream": None}, request()),
        ({"seed": 5}, request(seed=5)),
        ({"seed": -1}, request(seed=(1 << 31) - 1)),
        ({"stop": "."}, request(stop=(".",))),
        ({"stop": [".", "!"]}, request(stop=(".", "!"))),
        ({"frequency_penalty": 0, "tools": [], "response_format": {"type": "text"}}, request()),
        ({"user": "somebody", "metadata": {"a": "b"}, "store": False}, request()),  # nothing that decides the answer
        (
            {"messages": [{"role": "developer", "content": [text("be"), text("!")]}]},
            request(messages=(Message("system", "be!"),)),
        ),
        (
            {"messages": [*HELLO, {"role": "assistant", "content": None}, *HELLO]},
            request(messages=(Message("user", "hello"), Message("assistant", ""), Message("user", "hello"))),
        ),
    ],
)  # fmt: skip
def test_what_is_asked_for(fields: dict[str, Any], expected: Request) -> None:
    assert read_chat(body(**fields), DEFAULTS)[0].requests == (expected,)


def test_several_answers_have_several_seeds() -> None:
    call = read_chat(body(n=3, seed=(1 << 31) - 1), DEFAULTS)[0]
    assert [one.seed for one in call.requests] == [(1 << 31) - 1, 0, 1]
    assert len({one.messages for one in call.requests}) == 1


@pytest.mark.parametrize(
    ("content", "param", "code"),
    [
        (b"{", None, "invalid_json"),
        (b"\xff", None, "invalid_json"),
        (b'{"x":' + b"[" * 100_000, None, "invalid_json"),
        (b"[]", None, "invalid_value"),
        (json.dumps({"messages": HELLO}).encode(), "model", "missing_required_parameter"),
        (body(messages=[]), "messages", "invalid_value"),
        (body(messages=[{"content": "hello"}]), "messages[0].role", "missing_required_parameter"),
        (body(messages=[{"role": "oracle", "content": ""}]), "messages[0].role", "invalid_value"),
        (body(messages=[{"role": "user", "content": [{"type": "image_url"}]}]), "messages", "unsupported_content"),
        (body(max_tokens=0), "max_tokens", "invalid_value"),
        (body(temperature=2.5), "temperature", "invalid_value"),
        (body(top_p=0), "top_p", "invalid_value"),
        (body(n=9), "n", "invalid_value"),
        (body(stop=[""]), "stop", "invalid_value"),
        (body(logit_bias={"50": 1}), "logit_bias", "unsupported_parameter"),
        (body(presence_penalty=0.5), "presence_penalty", "unsupported_parameter"),
    ],
)
def test_what_is_wrong_is_named(content: bytes, param: str | None, code: str) -> None:
    with pytest.raises(Rejected) as caught:
        read_chat(content, DEFAULTS)
    failure = caught.value.failure
    assert (failure.status, failure.param, failure.code) == (400, param, code)


def test_a_whole_answer() -> None:
    answer = chat().whole(OUTCOME)
    assert answer["id"] == "chatcmpl-id"
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "m"
    (choice,) = answer["choices"]
    assert choice["message"]["content"] == "hi there"
    assert (choice["index"], choice["finish_reason"], choice["logprobs"]) == (0, "stop", None)
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["total_tokens"]) == (5, 7)
    assert answer["bombyx"] == BOMBYX


def test_a_streamed_answer() -> None:
    dialect = chat(stream=True, stream_options={"include_usage": True})
    first, piece, last, usage, done = said(
        [*dialect.opening(), *dialect.piece(0, Piece("hi there")), *dialect.closing(OUTCOME)]
    )
    assert first["choices"][0]["delta"]["role"] == "assistant"
    assert piece["choices"][0]["delta"] == {"content": "hi there"}
    assert (first["choices"][0]["finish_reason"], piece["usage"]) == (None, None)
    assert last["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 2
    assert last["bombyx"] == usage["bombyx"] == BOMBYX
    assert done == "[DONE]"


def test_without_being_asked_no_usage_is_streamed() -> None:
    last, done = said(chat(stream=True).closing(OUTCOME))
    assert "usage" not in last
    assert last["bombyx"] == BOMBYX
    assert done == "[DONE]"


def test_a_stream_that_breaks_off_says_why() -> None:
    error, done = said(chat(stream=True).failed(Failure(502, "server_error", "provider_failed", "it died")))
    assert error["error"]["code"] == "provider_failed"
    assert done == "[DONE]"
