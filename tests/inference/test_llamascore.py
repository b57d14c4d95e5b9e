"""What is made of llama-server's figures."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from inference.engine import Message, Request
from inference.errors import BadRequest, EngineError
from inference.llamascore import Piece, Reading

REQUEST = Request(model="a", messages=(Message("user", "Hi"),), max_tokens=2)
HALF, QUARTER, EIGHTH = math.log(1 / 2), math.log(1 / 4), math.log(1 / 8)


def chunk(*logprobs: float, text: str = "a", reason: str | None = None) -> dict[str, Any]:
    best = [{"logprob": HALF, "bytes": [120]}, {"logprob": QUARTER, "bytes": [10]}]
    content = [{"token": text, "bytes": list(text.encode()), "logprob": one, "top_logprobs": best} for one in logprobs]
    choice = {"text": text, "logprobs": {"content": content} if content else None, "finish_reason": reason}
    return {"choices": [choice]}


def pieces(*texts: str | list[int]) -> list[Piece]:
    return [Piece(number, text) for number, text in enumerate(texts)]


def test_chunks_add_up() -> None:
    reading = Reading(REQUEST, pieces("a", " b"))
    reading.feed(chunk(text=""))  # the prompt is worked through
    reading.feed(chunk(HALF))
    reading.feed(chunk(QUARTER))
    assert not reading.done
    reading.feed(chunk(EIGHTH, text=""))
    reading.feed(chunk(text="", reason="stop"))
    assert [one.logprob for one in reading.scored.figures] == [HALF, QUARTER]
    assert reading.scored.tokens == 2
    assert reading.scored.end is not None
    assert reading.scored.end.logprob == EIGHTH


def test_the_likeliest_way_to_spell_a_text_is_taken() -> None:
    reading = Reading(REQUEST, pieces("a", "\n\n"))
    reading.feed(chunk(EIGHTH))
    reading.feed(chunk(EIGHTH, text="\n\n"))  # could have begun with one line feed, of a quarter
    reading.feed(chunk(EIGHTH, text=""))
    assert [one.logprob for one in reading.scored.figures] == [EIGHTH, QUARTER]
    assert reading.scored.end is not None
    assert reading.scored.end.logprob == EIGHTH


@pytest.mark.parametrize(
    ("spelling", "text", "astray"),
    [([98, 99], "b", [False, True, False]), ([98], "bc", [False, True, False]), ([98], "b", [False] * 3)],
    ids=["the model takes a longer token", "the model takes a shorter one", "the model takes the same"],
)
def test_a_token_that_the_model_would_not_have_there_says_nothing(
    spelling: list[int], text: str, astray: list[bool]
) -> None:
    rest = ["c", "d"] if text == "b" else ["d", "e"]
    reading = Reading(msgspec.structs.replace(REQUEST, max_tokens=9), pieces(text, *rest))
    first = chunk(EIGHTH, text=text)
    (told,) = first["choices"][0]["logprobs"]["content"]
    told["top_logprobs"] = [{"logprob": HALF, "bytes": spelling}]
    reading.feed(first)
    for one in rest:
        reading.feed(chunk(EIGHTH, text=one))
    assert [one.logprob == one.best for one in reading.scored.figures[1:]] == astray[1:]
    drawn = Reading(msgspec.structs.replace(REQUEST, max_tokens=9, temperature=1.0), pieces(text, *rest))
    for part in (first, chunk(EIGHTH, text=rest[0])):
        drawn.feed(part)
    assert drawn.scored.figures[1].logprob < drawn.scored.figures[1].best, "who draws likes no token best"


def test_it_is_done_with_the_last_chunk() -> None:
    reading = Reading(REQUEST, pieces("a"))
    reading.feed(chunk(text="", reason="stop"))
    assert reading.done


def test_no_more_is_read_than_the_answer_may_have() -> None:
    reading = Reading(REQUEST, pieces("a", " b", " c"))
    assert reading.body([7], 0)["grammar"] == "root ::= <[0]> <[1]>"
    for one in (HALF, HALF):
        reading.feed(chunk(one))
    reading.feed(chunk(EIGHTH, text=""))
    reading.feed(chunk(text="", reason="stop"))
    assert (reading.scored.tokens, len(reading.scored.figures), reading.scored.end) == (2, 2, None)


def test_an_error_is_raised() -> None:
    with pytest.raises(EngineError, match="refused"):
        Reading(REQUEST, pieces("a")).feed({"error": {"type": "invalid_request_error", "message": "the prompt"}})


@pytest.mark.parametrize(
    ("texts", "grammar"),
    [
        (("a", ' "b\\'), "root ::= <[0]> <[1]>"),
        (([0xF0, 0x9F], [0xA6, 0x8B]), 'root ::= "🦋"'),
        ((" a", [0xC3], [0xA9, 0x22], "b"), r'root ::= <[0]> "é\x22" <[3]>'),
        (([0xC3], [0xA9, 0x0A, 0xC3], [0xA9]), r'root ::= "é\x0aé"'),
        (("a", [0xC3]), "root ::= <[0]>"),
    ],
)
def test_the_grammar_names_the_texts_tokens(texts: tuple[str | list[int], ...], grammar: str) -> None:
    request = msgspec.structs.replace(REQUEST, max_tokens=10)
    assert Reading(request, pieces(*texts)).body([1, 2], 0)["grammar"] == grammar


def test_a_character_that_is_only_begun_cannot_be_read() -> None:
    with pytest.raises(BadRequest):
        Reading(REQUEST, pieces([0xC3])).body([1], 0)
