"""What a client lets its answers cost."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from p2p.protocol.advert import Tier
from p2p.protocol.price import Prices
from p2p.protocol.strategy import AskForLess, BuyerStrategy


@dataclass(frozen=True)
class Budget:
    """What the client is ready to spend, and what its time is worth to it."""

    prices_max: Prices | None = None
    deposit_nano: int = 100_000_000
    window_max_nano: int = 1_000_000  # the most that is ever paid ahead on one answer
    channels_max: int = 3
    answer_max_nano: int | None = None  # the most that one answer may cost, whoever gives how much of it
    nano_per_second: int = 1_000
    answers_per_channel: int = 100  # assumed before there is a history
    tier: Tier = "open"
    features: Collection[str] = ()  # that a provider's model must have
    allow: Collection[str] = ()  # peer ids; empty for anybody
    block: Collection[str] = ()
    strategy: BuyerStrategy = field(default_factory=lambda: AskForLess(10))
