"""What was bought at a fair, and what of it was worth its money."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from p2p.protocol.price import Prices, Tokens, cost_nano


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What one provider gave of an answer: as it was counted and paid, and as it was."""

    provider: str
    prompt_tokens: int
    completion_tokens: int
    cost_nano: int
    true_prompt_tokens: int
    true_completion_tokens: int


class Bought(msgspec.Struct, frozen=True, kw_only=True):
    """One answer, or why there was none."""

    number: int
    seconds: float
    why_not: str
    parts: tuple[Part, ...]


class Bill(NamedTuple):
    """What answers cost, beside what one who knew everything would have paid for the same.

    He buys each prompt once, and each token of an answer that is the model's, at the lowest price of those that do not
    cheat. `repeated_nano` is what it cost to have prompts read again by a provider that went on with an answer.
    """

    paid_nano: int = 0
    repeated_nano: int = 0
    needed_nano: int = 0

    def __add__(self, other: object) -> Bill:
        assert isinstance(other, Bill)
        return Bill(*(one + more for one, more in zip(self, other, strict=True)))

    @property
    def overpaid(self) -> float:
        """As a part of what was needed."""
        return (self.paid_nano - self.repeated_nano - self.needed_nano) / self.needed_nano


def bill(bought: Sequence[Bought], best: Prices, prices: Mapping[str, Prices], false: Collection[str]) -> Bill:
    """At the `prices` of each provider; `best` is the lowest among the honest, and `false` serve another model."""
    return sum((_bill(one, best, prices, false) for one in bought), Bill())


def _bill(one: Bought, best: Prices, prices: Mapping[str, Prices], false: Collection[str]) -> Bill:
    charged = [part for part in one.parts if part.cost_nano]
    true = [part for part in charged if part.provider not in false]
    needed = Tokens(
        input=one.parts[0].true_prompt_tokens if true else 0, output=sum(part.true_completion_tokens for part in true)
    )
    again = (cost_nano(prices[part.provider], Tokens(input=part.true_prompt_tokens)) for part in charged[1:])
    return Bill(sum(part.cost_nano for part in charged), sum(again), cost_nano(best, needed))


def shares(bought: Sequence[Bought]) -> Mapping[str, float]:
    """Of all tokens that were asked of anybody, as they were counted: each provider's part."""
    tokens: Counter[str] = Counter()
    for part in parts(bought):
        tokens[part.provider] += part.prompt_tokens + part.completion_tokens
    return {provider: count / tokens.total() for provider, count in tokens.items()}


def parts(bought: Sequence[Bought]) -> Iterator[Part]:
    return (part for one in bought for part in one.parts)
