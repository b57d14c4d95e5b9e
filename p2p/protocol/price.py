"""Core: what tokens cost. Prices are nano per million tokens, amounts are nano, and all of it is integers."""

from __future__ import annotations

from typing import Annotated

import msgspec

from p2p.protocol.wire import Nat

PER_TOKENS = 1_000_000
MOST_TOKENS = (1 << 63) - 1  # more than anybody counts

Price = Annotated[int, msgspec.Meta(ge=0, le=(1 << 53) - 1)]


class Prices(msgspec.Struct, frozen=True, array_like=True):
    """Nano per million tokens, by kind of token."""

    input: Price
    cached_input: Price
    output: Price

    def scaled(self, numerator: int, denominator: int) -> Prices:
        """All three times a fraction, rounded up."""
        return Prices(*(-(-price * numerator // denominator) for price in (self.input, self.cached_input, self.output)))

    def towards(self, other: Prices, numerator: int, denominator: int) -> Prices:
        """From here a fraction of the way to the other, each price by itself, rounded up."""
        return Prices(*(a + -(-(b - a) * numerator // denominator) for a, b in self._pairs(other)))

    def at_most(self, other: Prices) -> Prices:
        """Each price, or the other's where that is lower."""
        return Prices(*(min(pair) for pair in self._pairs(other)))

    def at_least(self, other: Prices) -> Prices:
        """Each price, or the other's where that is higher."""
        return Prices(*(max(pair) for pair in self._pairs(other)))

    def cover(self, other: Prices) -> bool:
        """Whether each price is at least the other's."""
        return all(mine >= theirs for mine, theirs in self._pairs(other))

    def _pairs(self, other: Prices) -> tuple[tuple[int, int], ...]:
        return (self.input, other.input), (self.cached_input, other.cached_input), (self.output, other.output)


FREE = Prices(0, 0, 0)


class Tokens(msgspec.Struct, frozen=True, array_like=True):
    """Counts by kind: `input` excludes those that were served from the cache."""

    input: Nat = 0
    cached_input: Nat = 0
    output: Nat = 0


def cost_nano(prices: Prices, tokens: Tokens) -> int:
    """ceil(sum of tokens x price / 10^6), on a session's totals and never on its parts."""
    return -(-_millionths(prices, tokens) // PER_TOKENS)


def tokens_within(nano: int, price: Price, prices: Prices, done: Tokens) -> int:
    """How many more tokens at `price` raise the cost of `done` by at most `nano`."""
    if price == 0:
        return MOST_TOKENS
    left = (cost_nano(prices, done) + nano) * PER_TOKENS - _millionths(prices, done)
    return max(0, left // price)


def _millionths(prices: Prices, tokens: Tokens) -> int:
    return tokens.input * prices.input + tokens.cached_input * prices.cached_input + tokens.output * prices.output
