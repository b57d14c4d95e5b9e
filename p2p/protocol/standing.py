"""Core: the standing quotes that a provider gave: what each is still good for, and what else may be promised.

A standing quote is one for many answers. Its prices bind; of slots it promises what its answers would keep busy, spread
over its life. That is capped: in all, for one client, and for all strangers together, who are those without a channel
to us. Identities cost nothing, so strangers could else take all that there is to promise; a channel costs money.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from p2p.errors import Refused
from p2p.protocol.negotiate import Ask, Quote
from p2p.protocol.strategy import Volume

# Of what may be promised in all, one client may have this part, and all strangers together that.
CLIENT_PART, STRANGERS_PART = 2, 4
# However little each of them promises, it takes up memory.
QUOTES_PER_CLIENT = 16
QUOTES_OF_STRANGERS = 1000
USES_LEAST = 2
# What is promised of slots is reckoned in this part of one, so that a short answer in a long time is not nothing.
SLOT = 10**9


@dataclass(frozen=True)
class StandingLimits:
    """How much a provider promises ahead; nothing unless told."""

    percent: int = 0  # of the time of its slots
    max_s: int = 0  # from when a quote is made to when it ends


NONE_AHEAD = StandingLimits()


class Given(NamedTuple):
    """A standing quote that was accepted."""

    client: str
    load_of_one: int  # what one of its answers keeps busy of a `SLOT`, spread over the quote's life
    left: int  # answers that it is still good for
    valid_until: int

    @property
    def load(self) -> int:
        """What the rest of it promises."""
        return self.left * self.load_of_one


class StandingQuotes:
    """One provider's. What is counted here must be on disk before anything is done because of it."""

    def __init__(self, limits: StandingLimits) -> None:
        self._limits = limits
        self._given: dict[bytes, Given] = {}

    def volume(self, ask: Ask, now: float) -> Volume:
        """What a standing quote would be for, and how long it would bind. Raises `Refused` where none are given."""
        term_s = min(ask.until - int(now), self._limits.max_s)
        if not self._limits.percent or term_s < 1:
            raise Refused("no_standing_quote", "no quotes are given here for so long a time")
        return Volume(ask.uses, ask.prompt_tokens, ask.max_tokens, term_s)

    def room(self, client: str, quote: Quote, *, slots: int, funded: Collection[str], now: float) -> int:
        """How many answers such a quote may promise to `client`; `funded` are those with a channel to us."""
        self._expire(now)
        most = SLOT * slots * self._limits.percent // 100
        clients = [one for one in self._given.values() if one.client == client]
        left = min(most - _load(self._given.values()), most // CLIENT_PART - _load(clients))
        crowded = len(clients) >= QUOTES_PER_CLIENT
        if client not in funded:
            strangers = [one for one in self._given.values() if one.client not in funded]
            left = min(left, most // STRANGERS_PART - _load(strangers))
            crowded = crowded or len(strangers) >= QUOTES_OF_STRANGERS
        return 0 if crowded else max(0, left // _load_of_one(quote))

    def give(self, quote_id: bytes, quote: Quote, left: int) -> None:
        """The client has accepted it, or our book says that it did."""
        self._given[quote_id] = Given(quote.client, _load_of_one(quote), left, quote.valid_until)

    def require(self, quote_id: bytes, now: float) -> None:
        """Whether it is good for one more answer. Raises `Refused`."""
        self._expire(now)
        if quote_id not in self._given:
            raise Refused("quote_used", "the standing quote is over, used up, or was never accepted: ask for a new one")

    def use(self, quote_id: bytes) -> None:
        """One more answer begins."""
        one = self._given.pop(quote_id)
        if one.left > 1:
            self._given[quote_id] = one._replace(left=one.left - 1)

    def left(self, quote_id: bytes) -> int:
        """How many more answers it is good for."""
        one = self._given.get(quote_id)
        return one.left if one else 0

    def _expire(self, now: float) -> None:
        self._given = {quote_id: one for quote_id, one in self._given.items() if one.valid_until > now}


def _load_of_one(quote: Quote) -> int:
    return -(-SLOT * quote.longest_ms // (1000 * (quote.valid_until - quote.issued_at)))


def _load(given: Collection[Given]) -> int:
    return sum(one.load for one in given)
