"""Core: who names which price. Strategies are small pure classes; a user can bring one of the same shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from p2p.protocol.price import Prices

PERCENT = 100


class SellerStrategy(Protocol):
    """How a provider prices one negotiation."""

    def opening(self, *, free: int, total: int) -> Prices:
        """The first quote, given the free and total slots."""
        ...

    def answer(self, counter: Prices, *, free: int, total: int) -> tuple[Prices, bool]:
        """The quote after a counter, and whether it is final."""
        ...


@dataclass(frozen=True)
class FixedPrice:
    """Always the list price; every quote is final."""

    list_prices: Prices

    def opening(self, *, free: int, total: int) -> Prices:
        return self.list_prices

    def answer(self, counter: Prices, *, free: int, total: int) -> tuple[Prices, bool]:
        return self.list_prices, True


@dataclass(frozen=True)
class UtilisationPrice:
    """The list price when busy, and up to `discount_percent` less the more slots are free.

    A counter at or above today's floor is taken at the client's price; a lower one is met with the floor.
    """

    list_prices: Prices
    discount_percent: int

    def opening(self, *, free: int, total: int) -> Prices:
        return self.list_prices

    def answer(self, counter: Prices, *, free: int, total: int) -> tuple[Prices, bool]:
        floor = self.floor(free=free, total=total)
        return (counter, False) if counter.cover(floor) else (floor, True)

    def floor(self, *, free: int, total: int) -> Prices:
        """list x (1 - discount x free / total), rounded up."""
        whole = PERCENT * max(1, total)
        return self.list_prices.scaled(whole - self.discount_percent * min(free, total), whole)


class BuyerStrategy(Protocol):
    """How a client haggles over the best quote that it has."""

    def counter(self, best: Prices) -> Prices | None:
        """The prices to name, or `None` to take `best`."""
        ...


@dataclass(frozen=True)
class TakeIt:
    """Accept the best quote as it stands."""

    def counter(self, best: Prices) -> Prices | None:
        return None


@dataclass(frozen=True)
class AskForLess:
    """One counter, `percent` below the best quote."""

    percent: int

    def counter(self, best: Prices) -> Prices | None:
        return best.scaled(PERCENT - self.percent, PERCENT)
