"""Core: which provider to take, and why.

An offer's score is money: what the answer is expected to cost, the channel's opening shared out over the answers it
will serve, and the time it takes at the price that the client puts on a second. Hard limits come first. Among offers
within a few per cent of the best one the choice is made at random between two, so that a thousand clients with the
same view do not all fall upon one provider.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from p2p.errors import Refused
from p2p.protocol.price import Prices, Tokens, cost_nano

# Offers whose scores differ by less are as good as equal.
EQUAL_WITHIN_PERCENT = 3


@dataclass(frozen=True)
class Need:
    """What the client wants and what it is worth to it."""

    tokens: Tokens  # expected, not the upper bounds
    prices_max: Prices | None = None
    nano_per_second: int = 0
    answers_per_channel: int = 1


@dataclass(frozen=True)
class Candidate:
    """One provider as it looks before the choice; prices from its advert or, better, its quote."""

    peer: str
    prices: Prices
    ttft_ms: int
    tokens_per_s: int
    rtt_ms: int
    slots_free: int
    opening_fee_nano: int = 0  # 0 where a channel is open already


@dataclass(frozen=True)
class Score:
    """A candidate's score and the terms that it is the sum of, all in nano; lower is better."""

    candidate: Candidate
    tokens_nano: int
    opening_nano: int
    time_nano: int
    expected_ms: int

    @property
    def total_nano(self) -> int:
        return self.tokens_nano + self.opening_nano + self.time_nano


def score(candidate: Candidate, need: Need) -> Score:
    """What this candidate is expected to cost in money and time."""
    answering_ms = need.tokens.output * 1000 // max(1, candidate.tokens_per_s)
    expected_ms = 2 * candidate.rtt_ms + candidate.ttft_ms + answering_ms
    return Score(
        candidate,
        tokens_nano=cost_nano(candidate.prices, need.tokens),
        opening_nano=-(-candidate.opening_fee_nano // max(1, need.answers_per_channel)),
        time_nano=expected_ms * need.nano_per_second // 1000,
        expected_ms=expected_ms,
    )


def rank(candidates: Sequence[Candidate], need: Need) -> list[Score]:
    """Those within the hard limits, best first; ties are broken by peer id so that the order is repeatable."""
    allowed = (c for c in candidates if need.prices_max is None or need.prices_max.cover(c.prices))
    return sorted((score(c, need) for c in allowed), key=lambda s: (s.total_nano, s.candidate.peer))


def choose(ranked: Sequence[Score], draw: Callable[[int], int]) -> Score:
    """The better placed of two drawn from those that are as good as the best: the one with more free slots.

    `draw(n)` gives a random integer in [0, n). Raises `Refused` when nothing is left to choose from.
    """
    if not ranked:
        raise Refused("no_offer", "no provider is within the price cap; raise it, or try later")
    limit = ranked[0].total_nano * (100 + EQUAL_WITHIN_PERCENT) // 100
    equal = [s for s in ranked if s.total_nano <= limit]
    first, second = equal[draw(len(equal))], equal[draw(len(equal))]
    return max(first, second, key=lambda s: (s.candidate.slots_free, -s.total_nano))


def explain(chosen: Score, ranked: Sequence[Score]) -> str:
    """One sentence for a newcomer: why this one."""
    others = [s for s in ranked if s.candidate.peer != chosen.candidate.peer]
    if not others:
        return "the only one that offered"
    if chosen.tokens_nano <= min(s.tokens_nano for s in others):
        return "the cheapest for this question"
    if chosen.expected_ms <= min(s.expected_ms for s in others):
        return "the fastest, and worth its price"
    return "the best balance of price and speed"
