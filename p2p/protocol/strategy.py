"""Core: who names which price.

A strategy is a small pure object that serves all negotiations of one side. It goes by what it is told and by nothing
else, so the same turn gets the same answer. What it names is held to its owner's limits by whoever asks it: a
provider's `PriceList`, a client's `Haggling`. docs/MARKET.md says how to bring one's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol

from p2p.protocol.negotiate import MAX_ROUNDS, Turn
from p2p.protocol.price import Prices

PERCENT = 100
# Of the steep tactics, as the exponent of the share that is conceded.
STEEPNESS = 3


class Load(NamedTuple):
    """How much a provider has to do."""

    free: int  # slots that nobody uses
    total: int
    waiting: int = 0  # other clients that were told to come back, for want of a slot


class Bid(NamedTuple):
    """What a provider quotes next. After a final one there is only yes or no."""

    prices: Prices
    final: bool = False


class Volume(NamedTuple):
    """What a standing quote is asked for."""

    uses: int
    prompt_tokens: int  # of each, at most
    max_tokens: int
    term_s: int  # for how long it would bind


class SellerStrategy(Protocol):
    """How a provider prices one negotiation."""

    def opening(self, load: Load) -> Prices:
        """The first quote, and what the advert says."""
        ...

    def answer(self, wanted: Prices, turn: Turn, load: Load) -> Bid:
        """The quote after a counter that wants these prices. One that is dearer than the last is held to that."""
        ...

    def standing(self, volume: Volume) -> Prices:
        """Those of a standing quote. They bind for long, and there is no haggling over them."""
        ...


class BuyerStrategy(Protocol):
    """How a client haggles with the provider that it has chosen."""

    def counter(self, turn: Turn) -> Prices | None:
        """The prices to name, or `None` to take the latest quote."""
        ...


class Tactic(StrEnum):
    """How a margin is given up over the rounds; those of Faratin, Sierra and Jennings (1998) in small integers."""

    EARLY = "early"  # theirs is "conceder": most of it at once
    EVENLY = "evenly"
    LATE = "late"  # theirs is "Boulware": hardly anything before the end

    def share(self, step: int, steps: int) -> tuple[int, int]:
        """What is given up after `step` of `steps`, as a fraction: nothing of it at 0, all at the end."""
        step, steps = min(step, steps), max(1, steps)
        match self:
            case Tactic.EVENLY:
                return step, steps
            case Tactic.LATE:
                return step**STEEPNESS, steps**STEEPNESS
            case Tactic.EARLY:
                return steps**STEEPNESS - (steps - step) ** STEEPNESS, steps**STEEPNESS


@dataclass(frozen=True)
class _Listed:
    """Has a price list, of which many answers are sold for less."""

    list_prices: Prices
    bulk_discount_percent: int = field(default=0, kw_only=True)

    def standing(self, volume: Volume) -> Prices:
        return self.list_prices.scaled(PERCENT - self.bulk_discount_percent, PERCENT)


@dataclass(frozen=True)
class FixedPrice(_Listed):
    """Always the list price; there is no haggling."""

    def opening(self, load: Load) -> Prices:
        return self.list_prices

    def answer(self, wanted: Prices, turn: Turn, load: Load) -> Bid:
        return Bid(self.list_prices, final=True)


@dataclass(frozen=True)
class UtilisationPrice(_Listed):
    """The price follows free slots and queue.

    It is up to `surge_percent` above the list the more clients wait, and may fall up to `discount_percent` the more
    slots are free. A counter at or above today's floor is taken at the client's price; a lower one meets the floor.
    """

    discount_percent: int
    surge_percent: int = 0

    def opening(self, load: Load) -> Prices:
        return self._priced(load, discount_percent=0)

    def answer(self, wanted: Prices, turn: Turn, load: Load) -> Bid:
        floor = self.floor(load)
        return Bid(wanted) if wanted.cover(floor) else Bid(floor, final=True)

    def floor(self, load: Load) -> Prices:
        """list x (1 - discount x free / total + surge x waiting / total)."""
        return self._priced(load, discount_percent=self.discount_percent)

    def _priced(self, load: Load, *, discount_percent: int) -> Prices:
        slots = max(1, load.total)
        down = discount_percent * min(load.free, load.total)
        up = self.surge_percent * min(load.waiting, load.total)
        return self.list_prices.scaled(PERCENT * slots - down + up, PERCENT * slots)


@dataclass(frozen=True)
class ConcedingPrice(_Listed):
    """From the list price down to `least`, round by round; a counter at or above the next step is taken."""

    least: Prices
    tactic: Tactic = Tactic.EVENLY

    def opening(self, load: Load) -> Prices:
        return self.list_prices

    def answer(self, wanted: Prices, turn: Turn, load: Load) -> Bid:
        step = self.list_prices.towards(self.least, *self.tactic.share(turn.rounds, MAX_ROUNDS - 1))
        return Bid(wanted) if wanted.cover(step) else Bid(step)


@dataclass(frozen=True)
class TakeIt:
    """Accept the best quote as it stands."""

    def counter(self, turn: Turn) -> Prices | None:
        return None


@dataclass(frozen=True)
class AskForLess:
    """One counter, `percent` below the first quote."""

    percent: int

    def counter(self, turn: Turn) -> Prices | None:
        return turn.quoted.scaled(PERCENT - self.percent, PERCENT) if turn.rounds == 1 else None


@dataclass(frozen=True)
class ConcedingBuyer:
    """From `percent` below the first quote up to it, round by round; whatever is no dearer than that is taken."""

    percent: int
    tactic: Tactic = Tactic.EVENLY

    def counter(self, turn: Turn) -> Prices | None:
        lowest = turn.opening.scaled(PERCENT - self.percent, PERCENT)
        wanted = lowest.towards(turn.opening, *self.tactic.share(turn.rounds - 1, MAX_ROUNDS - 1))
        return None if wanted.cover(turn.quoted) else wanted
