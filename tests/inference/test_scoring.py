"""What is made of the likelihoods of a text's tokens."""

from __future__ import annotations

import math

import pytest

from inference.engine import Message, Request
from inference.scoring import TextReading, Told, figures

HALF, QUARTER, EIGHTH = math.log(1 / 2), math.log(1 / 4), math.log(1 / 8)
END = Told(b"", QUARTER, [(b"", QUARTER)])


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


def told(spelt: bytes, logprob: float) -> Told:
    return Told(spelt, logprob, [(b"x", HALF), (b"y", QUARTER)])


@pytest.mark.parametrize(("max_tokens", "expected"), [(1, 1), (2, 2), (3, 2)])
def test_the_end_counts_if_all_was_read(max_tokens: int, expected: int) -> None:
    request = Request(model="a", messages=(Message("user", "Hi"),), max_tokens=max_tokens)
    reading = TextReading(request, [b"a", b" b"])
    for spelt in (b"a", b" b")[:max_tokens]:
        reading.heard(told(spelt, EIGHTH))
    reading.heard(END)
    assert (reading.scored.tokens, len(reading.scored.figures)) == (expected, expected)
    assert (reading.scored.end is not None) == (max_tokens > 1)
