"""Core: what a provider has sold: how many answers, for how much, and how fast tokens go out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from p2p.protocol.allowance import day

RATE_OVER_S = 5  # long enough that pieces of several tokens make a steady figure


class Sold(NamedTuple):
    """Answers that have a receipt, today by UTC and in all; `tokens_per_s` is of all answers together."""

    answers_today: int = 0
    answers: int = 0
    earned_today_nano: int = 0
    earned_nano: int = 0
    tokens_per_s: int = 0


class Takings:
    """A `Trace` that goes on with the sums of a book. `clock` is unix time in seconds."""

    def __init__(self, clock: Callable[[], float], before: Sold = Sold()) -> None:  # noqa: B008 - a tuple
        self._clock = clock
        self._answers, self._earned_nano = before.answers, before.earned_nano
        self._day = day(self._clock())
        self._answers_today, self._earned_today_nano = before.answers_today, before.earned_today_nano
        self._tokens: Counter[int] = Counter()  # that went out in each of the last seconds

    def __call__(self, kind: str, /, **fields: Any) -> None:
        if kind == "served":
            self._turn_page()
            self._answers += 1
            self._answers_today += 1
            self._earned_nano += fields["earned_nano"]
            self._earned_today_nano += fields["earned_nano"]

    def went_out(self, tokens: int) -> None:
        """So many of some answer, just now."""
        now = self._second()
        self._tokens[now] += tokens
        for second in [second for second in self._tokens if not now - RATE_OVER_S <= second <= now]:
            del self._tokens[second]

    def sold(self) -> Sold:
        """As it stands; the rate is that of the last whole seconds."""
        self._turn_page()
        now = self._second()
        tokens = sum(self._tokens[second] for second in range(now - RATE_OVER_S, now))
        return Sold(
            self._answers_today,
            self._answers,
            self._earned_today_nano,
            self._earned_nano,
            tokens // RATE_OVER_S,
        )

    def _turn_page(self) -> None:
        if (today := day(self._clock())) != self._day:
            self._day, self._answers_today, self._earned_today_nano = today, 0, 0

    def _second(self) -> int:
        return int(self._clock())
