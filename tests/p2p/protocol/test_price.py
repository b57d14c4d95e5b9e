"""Money is integers, rounded up once, on totals."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.errors import RemoteError
from p2p.protocol.price import MOST_TOKENS, PER_TOKENS, Prices, Tokens, cost_nano, tokens_within
from p2p.protocol.wire import decode, encode

PRICES = st.builds(Prices, *[st.integers(0, (1 << 53) - 1)] * 3)
TOKENS = st.builds(Tokens, *[st.integers(0, 1 << 31)] * 3)


@pytest.mark.parametrize(
    ("prices", "tokens", "nano"),
    [
        (Prices(1, 1, 1), Tokens(), 0),
        (Prices(1, 1, 1), Tokens(input=1), 1),
        (Prices(1, 1, 1), Tokens(1, 1, 1), 1),
        (Prices(1, 1, 1), Tokens(output=PER_TOKENS), 1),
        (Prices(1, 1, 1), Tokens(output=PER_TOKENS + 1), 2),
        (Prices(100_000_000, 50_000_000, 300_000_000), Tokens(10, 20, 30), 11_000),
        (Prices(0, 0, 0), Tokens(1 << 31, 1 << 31, 1 << 31), 0),
    ],
)
def test_cost(prices: Prices, tokens: Tokens, nano: int) -> None:
    assert cost_nano(prices, tokens) == nano


@given(PRICES, TOKENS)
def test_cost_is_the_exact_sum_rounded_up(prices: Prices, tokens: Tokens) -> None:
    exact = Fraction(
        tokens.input * prices.input + tokens.cached_input * prices.cached_input + tokens.output * prices.output,
        1_000_000,
    )
    assert 0 <= cost_nano(prices, tokens) - exact < 1


@given(PRICES, st.lists(st.integers(0, 1000), max_size=50))
def test_what_a_piece_adds_to_the_total_is_within_a_nano_of_its_worth(prices: Prices, pieces: list[int]) -> None:
    tokens = before = 0
    for piece in pieces:
        tokens += piece
        after = cost_nano(prices, Tokens(output=tokens))
        assert abs(after - before - Fraction(piece * prices.output, PER_TOKENS)) < 1
        before = after


@given(PRICES, TOKENS, st.integers(-1000, 1 << 70))
def test_as_many_tokens_fit_as_cost_no_more(prices: Prices, done: Tokens, nano: int) -> None:
    def raised_by(tokens: int) -> int:
        return cost_nano(prices, Tokens(done.input, done.cached_input, done.output + tokens)) - cost_nano(prices, done)

    more = tokens_within(nano, prices.output, prices, done)
    if prices.output == 0:
        assert more == MOST_TOKENS
    else:
        assert raised_by(more) <= max(0, nano)
        assert raised_by(more + 1) > nano


@given(PRICES, st.integers(0, 1000), st.integers(1, 1000))
def test_a_scaled_price_is_rounded_up(prices: Prices, numerator: int, denominator: int) -> None:
    scaled = prices.scaled(numerator, denominator)
    for before, after in zip(in_order(prices), in_order(scaled), strict=True):
        assert 0 <= after - Fraction(before * numerator, denominator) < 1


def in_order(prices: Prices) -> tuple[int, int, int]:
    return prices.input, prices.cached_input, prices.output


@given(PRICES, PRICES)
def test_covering_is_a_partial_order(left: Prices, right: Prices) -> None:
    assert left.cover(left)
    assert (left.cover(right) and right.cover(left)) == (left == right)
    assert left.cover(right) == all(a >= b for a, b in zip(in_order(left), in_order(right), strict=True))


@given(PRICES)
def test_prices_within_the_bounds_travel(prices: Prices) -> None:
    again: Prices = decode(encode(prices), Prices)
    assert again == prices


@pytest.mark.parametrize("prices", [Prices(-1, 0, 0), Prices(0, 1 << 53, 0), Prices(0, 0, (1 << 64) - 1)])
def test_prices_out_of_bounds_do_not(prices: Prices) -> None:
    with pytest.raises(RemoteError, match="malformed"):
        decode(encode(prices), Prices)
