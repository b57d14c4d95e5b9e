"""Strategies by their names: those that come with the program, and a user's own, which are found by entry point.

An entry point names what makes the strategy: a callable that is given the `[provide]` or `[ask]` settings. What it
makes is a stranger's code here: if it raises, or returns what is no price, the list price or the quote stands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, TypeVar

import msgspec

from p2p.config import AskConfig, ProvideConfig
from p2p.errors import LocalError
from p2p.protocol.negotiate import Turn
from p2p.protocol.price import Prices
from p2p.protocol.strategy import (
    AskForLess,
    Bid,
    BuyerStrategy,
    ConcedingBuyer,
    ConcedingPrice,
    FixedPrice,
    Load,
    SellerStrategy,
    TakeIt,
    UtilisationPrice,
    Volume,
)
from p2p.trace import Trace, silent

SELLER_GROUP = "bombyx.seller_strategies"
BUYER_GROUP = "bombyx.buyer_strategies"

T = TypeVar("T")

SELLERS: Mapping[str, Callable[[ProvideConfig], SellerStrategy]] = {
    "fixed": lambda settings: FixedPrice(settings.prices, bulk_discount_percent=settings.bulk_discount_percent),
    "utilisation": lambda settings: UtilisationPrice(
        settings.prices,
        settings.discount_percent,
        settings.surge_percent,
        bulk_discount_percent=settings.bulk_discount_percent,
    ),
    "concession": lambda settings: ConcedingPrice(
        settings.prices,
        settings.prices_least,
        settings.concede,
        bulk_discount_percent=settings.bulk_discount_percent,
    ),
}
BUYERS: Mapping[str, Callable[[AskConfig], BuyerStrategy]] = {
    "take": lambda _: TakeIt(),
    "once": lambda settings: AskForLess(settings.counter_percent) if settings.counter_percent else TakeIt(),
    "concession": lambda settings: ConcedingBuyer(settings.counter_percent, settings.concede),
}


def seller_strategy(settings: ProvideConfig, trace: Trace = silent) -> SellerStrategy:
    """The one that `provide.strategy` names. Raises `LocalError`."""
    if settings.strategy in SELLERS:
        return SELLERS[settings.strategy](settings)
    own: SellerStrategy = _own(SELLER_GROUP, settings.strategy, settings, known=SELLERS)
    return _CarefulSeller(own, settings.prices, trace)


def buyer_strategy(settings: AskConfig, trace: Trace = silent) -> BuyerStrategy:
    """The one that `ask.strategy` names. Raises `LocalError`."""
    if settings.strategy in BUYERS:
        return BUYERS[settings.strategy](settings)
    own: BuyerStrategy = _own(BUYER_GROUP, settings.strategy, settings, known=BUYERS)
    return _CarefulBuyer(own, trace)


def _own(group: str, name: str, settings: object, *, known: Mapping[str, Any]) -> Any:
    found = next(iter(entry_points(group=group, name=name)), None)
    if found is None:
        theirs = sorted({*known, *entry_points(group=group).names})
        raise LocalError(f"there is no strategy {name!r}: take {', '.join(theirs)}, or install one (docs/MARKET.md)")
    try:
        return found.load()(settings)
    except Exception as error:
        raise LocalError(f"the strategy {name} cannot be used: {type(error).__name__}: {error}") from error


class _Careful:
    """Falls back on what is safe where a stranger's strategy fails, and tells."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def _ask(self, ask: Callable[[], T], fallback: T) -> T:
        try:
            return ask()
        except Exception as error:
            self._trace("strategy_failed", why=f"{type(error).__name__}: {error}")
            return fallback


class _CarefulSeller(_Careful):
    def __init__(self, own: SellerStrategy, list_prices: Prices, trace: Trace) -> None:
        super().__init__(trace)
        self._own = own
        self._list_prices = list_prices

    def opening(self, load: Load) -> Prices:
        return self._ask(lambda: _priced(self._own.opening(load)), self._list_prices)

    def answer(self, wanted: Prices, turn: Turn, load: Load) -> Bid:
        def ask() -> Bid:
            prices, final = self._own.answer(wanted, turn, load)
            return Bid(_priced(prices), bool(final))

        return self._ask(ask, Bid(turn.quoted, final=True))

    def standing(self, volume: Volume) -> Prices:
        return self._ask(lambda: _priced(self._own.standing(volume)), self._list_prices)


class _CarefulBuyer(_Careful):
    def __init__(self, own: BuyerStrategy, trace: Trace) -> None:
        super().__init__(trace)
        self._own = own

    def counter(self, turn: Turn) -> Prices | None:
        def ask() -> Prices | None:
            wanted = self._own.counter(turn)
            return None if wanted is None else _priced(wanted)

        return self._ask(ask, None)


def _priced(prices: Prices) -> Prices:
    """Raises `msgspec.ValidationError` for what could not be sent."""
    return msgspec.convert(msgspec.to_builtins(prices), Prices)
