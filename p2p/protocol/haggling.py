"""Core: what a client says next, once it has a quote of the provider that it chose.

The strategy proposes; here it is held to the client's limits. A provider may stay at its price and may go down, and one
that goes up is left.
"""

from __future__ import annotations

from p2p.errors import Refused
from p2p.protocol.negotiate import Accept, Buyer, Counter, Turn
from p2p.protocol.price import Prices
from p2p.protocol.strategy import BuyerStrategy


class Haggling:
    """One negotiation from its first quote on. Send what `say` returns, give the answer to the `Buyer`, and again."""

    def __init__(self, buyer: Buyer, strategy: BuyerStrategy, prices_max: Prices | None = None) -> None:
        """`buyer` has a quote."""
        assert buyer.quote is not None
        self.opening = self._quoted = buyer.quote.prices
        self._buyer = buyer
        self._strategy = strategy
        self._prices_max = prices_max

    def say(self, now: float) -> Counter | Accept:
        """A counter, or yes to the quote that stands. Raises `Refused` where that one is beyond our limits."""
        quote = self._buyer.quote
        assert quote is not None
        if not self._quoted.cover(quote.prices):
            raise Refused("price", "the answer to the counter-offer was dearer than the quote before")
        if self._prices_max is not None and not self._prices_max.cover(quote.prices):
            raise Refused("price", "the quote is above the price cap", prices=quote.prices)
        if quote.valid_until <= now:
            raise Refused("quote_expired", "the quote expired before it could be accepted")
        self._quoted = quote.prices
        if self._buyer.may_counter:
            wanted = self._strategy.counter(Turn(self.opening, quote.prices, self._buyer.rounds))
            if wanted is not None and not wanted.cover(quote.prices):
                return self._buyer.counter(wanted.at_most(quote.prices))
        return self._buyer.accept(now)
