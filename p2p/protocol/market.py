"""Core: which provider to take, and why.

An offer's score is money: what the answer is expected to cost, the channel's opening shared out over the answers that
it will serve, the time it takes at the price that the client puts on a second, and what it costs to ask again as often
as experience says. Hard limits come first. A conversation stays with the provider that has it in its cache, as long as
that is not much dearer. Among offers within a few per cent of the best one the choice is made at random between two, so
that a thousand clients with the same view do not all fall upon one provider.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from p2p.errors import Refused
from p2p.protocol.advert import Tier
from p2p.protocol.price import Prices, Tokens, cost_nano

# Offers whose scores differ by less are as good as equal.
EQUAL_WITHIN_PERCENT = 3
# What a conversation's cache is worth: so much dearer may its provider be than the best one.
STAY_WITHIN_PERCENT = 15
# Beyond that the cost of asking again says nothing any more.
FAILURE_MAX_PERMILLE = 900
# Whose answers fail so often, or are found to be false, is not asked while there are others, however cheap: what
# is false need not show, so nobody asks again.
DISTRUSTED_PERMILLE = 500


@dataclass(frozen=True)
class Preset:
    """What matters to a client, by a name."""

    what: str
    nano_per_second: int
    tier: Tier = "open"


PRESETS: Mapping[str, Preset] = {
    "cheap": Preset("money counts, and time hardly", 10),
    "balanced": Preset("a second is worth 1,000 nano", 1_000),
    "fast": Preset("a second is worth 100,000 nano", 100_000),
    "private": Preset("only a machine that proves what it runs", 1_000, tier="attested"),
}


class Standing(NamedTuple):
    """What experience says of a provider."""

    failure_permille: int = 20  # of answers that are asked for; this is where strangers begin
    ttft_percent: int = 100  # of what it promises, the time to the first token
    rate_percent: int = 100  # of what it promises, the tokens per second

    @property
    def distrusted(self) -> bool:
        """Whether it is not asked while there are others."""
        return self.failure_permille >= DISTRUSTED_PERMILLE


STRANGER = Standing()


@dataclass(frozen=True)
class Need:
    """What the client wants and what it is worth to it."""

    tokens: Tokens  # expected, not the upper bounds
    prices_max: Prices | None = None
    nano_per_second: int = 0
    answers_per_channel: int = 1
    tier: Tier = "open"
    features: Collection[str] = ()
    allow: Collection[str] = ()  # peer ids; empty for anybody
    block: Collection[str] = ()


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
    tier: Tier = "open"  # that is proven, not claimed
    features: Collection[str] = ()
    standing: Standing = STRANGER
    warm: bool = False  # it has the conversation in its cache
    standing_quote: bool = False  # it gave one that is held, and need not be asked


class Objection(StrEnum):
    """Why one is not even compared with the others."""

    BLOCKED = "on your block list"
    NOT_ALLOWED = "not on your allow list"
    TIER = "nothing proves the tier that you want"
    FEATURE = "it lacks a feature that you want"
    PRICE = "above your price cap"
    DISTRUSTED = "it failed you too often"
    FULL = "no free slot"


class LeftOut(NamedTuple):
    """A provider that was not compared with the others, or not in the end, and why in a few words."""

    candidate: Candidate
    why: str


@dataclass(frozen=True)
class Score:
    """A candidate's score and the terms that it is the sum of, all in nano; lower is better."""

    candidate: Candidate
    tokens_nano: int
    opening_nano: int
    time_nano: int
    expected_ms: int
    ttft_ms: int = 0  # of that, until the first token
    risk_nano: int = 0

    @property
    def total_nano(self) -> int:
        return self.tokens_nano + self.opening_nano + self.time_nano + self.risk_nano


def answers_expected(assumed: int, answers: int, channels: int) -> int:
    """How many answers a channel will serve: the mean of those so far, with one that served as many as assumed."""
    return (assumed + answers) // (1 + channels)


def score(candidate: Candidate, need: Need) -> Score:
    """What this candidate is expected to cost in money and time.

    The risk is the cost of all attempts but the one that succeeds, if each fails with the same probability p:
    p / (1 - p) times that of one.
    """
    standing = candidate.standing
    ttft_ms = 2 * candidate.rtt_ms + candidate.ttft_ms * standing.ttft_percent // 100
    tokens_per_s = max(1, candidate.tokens_per_s * standing.rate_percent // 100)
    expected_ms = ttft_ms + need.tokens.output * 1000 // tokens_per_s
    tokens_nano = cost_nano(candidate.prices, need.tokens)
    time_nano = expected_ms * need.nano_per_second // 1000
    failing = min(standing.failure_permille, FAILURE_MAX_PERMILLE)
    return Score(
        candidate,
        tokens_nano=tokens_nano,
        opening_nano=-(-candidate.opening_fee_nano // max(1, need.answers_per_channel)),
        time_nano=time_nano,
        expected_ms=expected_ms,
        ttft_ms=ttft_ms,
        risk_nano=(tokens_nano + time_nano) * failing // (1000 - failing),
    )


def objection(candidate: Candidate, need: Need) -> Objection | None:
    """The hard limit that this one does not keep to, if there is one."""
    if candidate.peer in need.block:
        return Objection.BLOCKED
    if need.allow and candidate.peer not in need.allow:
        return Objection.NOT_ALLOWED
    if need.tier == "attested" and candidate.tier != "attested":
        return Objection.TIER
    if not set(need.features) <= set(candidate.features):
        return Objection.FEATURE
    if need.prices_max is not None and not need.prices_max.cover(candidate.prices):
        return Objection.PRICE
    return None


def sift(candidates: Sequence[Candidate], need: Need) -> tuple[list[Candidate], list[LeftOut]]:
    """Those within the hard limits, and the others.

    Those that failed too often are left out unless all did. Full ones are left out unless all are: then they can at
    least say when they will not be.
    """
    judged = [(candidate, objection(candidate, need)) for candidate in candidates]
    judged = _preferring(judged, lambda one: not one.standing.distrusted, Objection.DISTRUSTED)
    judged = _preferring(judged, lambda one: one.slots_free > 0, Objection.FULL)
    return [one for one, why in judged if not why], [LeftOut(one, why) for one, why in judged if why]


def _preferring(
    judged: list[tuple[Candidate, Objection | None]], is_fit: Callable[[Candidate], bool], otherwise: Objection
) -> list[tuple[Candidate, Objection | None]]:
    """With that objection to those that are not fit, if one is against whom there is none."""
    if not any(is_fit(one) for one, why in judged if not why):
        return judged
    return [(one, why or (None if is_fit(one) else otherwise)) for one, why in judged]


def rank(candidates: Sequence[Candidate], need: Need) -> list[Score]:
    """Those within the hard limits, best first; ties are broken by peer id so that the order is repeatable."""
    allowed, _ = sift(candidates, need)
    return sorted((score(c, need) for c in allowed), key=lambda s: (s.total_nano, s.candidate.peer))


def choose(ranked: Sequence[Score], draw: Callable[[int], int]) -> Score:
    """The one that has the conversation, if that is not much dearer; or else, of two drawn from those that are as good
    as the best, the one with more free slots.

    `draw(n)` gives a random integer in [0, n). Raises `Refused` when nothing is left to choose from.
    """
    if not ranked:
        raise nobody(())
    best_nano = ranked[0].total_nano
    warm = [s for s in ranked if s.candidate.warm and s.total_nano * 100 <= best_nano * (100 + STAY_WITHIN_PERCENT)]
    if warm:
        return warm[0]
    equal = [s for s in ranked if s.total_nano <= best_nano * (100 + EQUAL_WITHIN_PERCENT) // 100]
    first, second = equal[draw(len(equal))], equal[draw(len(equal))]
    return max(first, second, key=lambda s: (s.candidate.slots_free, -s.total_nano))


def nobody(left_out: Sequence[LeftOut]) -> Refused:
    """Why there is nothing to choose from, with the lowest price at which there would be."""
    dear = [one.candidate.prices for one in left_out if one.why == Objection.PRICE]
    if dear or not left_out:
        cheapest = min(dear, key=lambda prices: (prices.output, prices.input), default=None)
        return Refused("no_offer", "no provider is within the price cap; raise it, or try later", prices=cheapest)
    reasons = Counter(one.why for one in left_out).most_common()
    said = "; ".join(f"{why} ({count})" for why, count in reasons)
    return Refused("no_offer", f"no provider that was found will do: {said}")


def explain(chosen: Score, ranked: Sequence[Score]) -> str:
    """One sentence for a newcomer: why this one."""
    others = [s for s in ranked if s.candidate.peer != chosen.candidate.peer]
    if not others:
        return "its standing quote is held" if chosen.candidate.standing_quote else "the only one that offered"
    if chosen.candidate.warm and chosen != ranked[0]:
        return "it has this conversation in its cache"
    if chosen.tokens_nano <= min(s.tokens_nano for s in others):
        return "the cheapest for this question"
    if chosen.expected_ms < min(s.expected_ms for s in others):
        return "the fastest, and worth its price"
    if chosen.risk_nano < min(s.risk_nano for s in others):
        return "the one that keeps its promises"
    return "the best balance of price and speed"
