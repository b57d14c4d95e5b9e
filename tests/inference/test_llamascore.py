"""What is made of llama-server's figures."""

from __future__ import annotations

import math
from typing import Any

import pytest

from inference.engine import Message, Request
from inference.errors import EngineError
from inference.llamascore import ScoreReader, figures, score_body

REQUEST = Request(model="a", messages=(Message("user", "Hi"),), max_tokens=2)
HALF, QUARTER, EIGHTH = math.log(1 / 2), math.log(1 / 4), math.log(1 / 8)


def chunk(*logprobs: float, text: str = "a", tokens: int = 1, reason: str | None = None) -> dict[str, Any]:
    best = [{"logprob": HALF}, {"logprob": QUARTER}]
    content = [{"token": text, "logprob": one, "top_logprobs": best} for one in logprobs]
    choice = {"text": text, "logprobs": {"content": content} if content else None, "finish_reason": reason}
    return {"choices": [choice], "timings": {"predicted_n": tokens}}


def test_a_greedy_tokens_figures_are_the_models_own() -> None:
    found = figures([HALF, QUARTER], EIGHTH, 0)
    assert (found.logprob, found.best) == (EIGHTH, HALF)
    # Three outcomes: a half, a quarter, and the quarter that is left over.
    assert found.mean == pytest.approx(0.5 * HALF + 0.5 * QUARTER)
    assert found.variance == pytest.approx(0.25 * math.log(2) ** 2)


@pytest.mark.parametrize(
    ("logprob", "temperature", "expected"),
    [
        (HALF, 1.0, HALF),
        (QUARTER, 1.0, QUARTER),
        (EIGHTH, 1.0, QUARTER),  # one of those left over, which are one outcome
        # 4 : 1 : 1 of squares
        (HALF, 0.5, math.log(4 / 6)),
        (QUARTER, 0.5, math.log(1 / 6)),
        (-1e38, 0.5, math.log(1 / 6)),
    ],
)
def test_a_drawn_tokens_figures_are_those_of_what_it_is_drawn_from(
    logprob: float, temperature: float, expected: float
) -> None:
    found = figures([HALF, QUARTER], logprob, temperature)
    assert found.logprob == pytest.approx(expected)
    assert found.best == pytest.approx(HALF if temperature == 1 else math.log(4 / 6))


def test_a_certain_token_and_one_without_a_trace() -> None:
    certain = figures([0.0, -800.0], 0.0, 0.7)
    assert (certain.logprob, certain.best) == (0.0, 0.0)
    assert (certain.mean, certain.variance) == pytest.approx((0.0, 0.0))
    assert figures([HALF, QUARTER], -1e38, 0).logprob == -50


def test_chunks_add_up() -> None:
    reader = ScoreReader(REQUEST)
    reader.feed(chunk(text="", tokens=0))  # the prompt is worked through
    reader.feed(chunk(HALF))
    reader.feed(chunk(QUARTER, tokens=2))
    reader.feed(chunk(EIGHTH, text="", tokens=3))
    reader.feed(chunk(text="", tokens=3, reason="stop"))
    assert reader.done
    assert reader.scored.tokens == 2
    assert [one.logprob for one in reader.scored.figures] == [HALF, QUARTER]
    assert reader.scored.end is not None
    assert reader.scored.end.logprob == EIGHTH


def test_no_more_is_read_than_the_answer_may_have() -> None:
    reader = ScoreReader(REQUEST)
    for tokens in (1, 2, 3):
        reader.feed(chunk(HALF, tokens=tokens))
    reader.feed(chunk(text="", tokens=3, reason="length"))
    assert (reader.scored.tokens, len(reader.scored.figures), reader.scored.end) == (2, 2, None)


def test_an_error_is_raised() -> None:
    with pytest.raises(EngineError, match="refused"):
        ScoreReader(REQUEST).feed({"error": {"type": "invalid_request_error", "message": "the prompt"}})


def test_the_grammar_knows_only_the_text() -> None:
    body = score_body(REQUEST, [1, 2], 0, 'say "\\x" \n\x7f 漢')
    assert body["grammar"] == r'root ::= "say \x22\x5cx\x22 \x0a\x7f 漢"'
    assert body["prompt"] == [1, 2]
