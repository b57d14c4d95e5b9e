"""Core: what a provider gives away: some tokens to each newcomer, whom nothing else lets try it without money.

Identities cost nothing, so what one may have bounds nothing by itself. Therefore no more is given in a day to all who
come from one address, or by way of one relay, and no more to all together; and who pays goes first. What an answer may
need at most is put down before it begins, and what it did not need is struck off when it is over: a crash in between
strikes nothing off.
"""

from __future__ import annotations

from typing import NamedTuple

from p2p.errors import Refused

DAY_S = 86_400
ALWAYS = 0  # in place of a day: it is never forgotten
ASK_OR_PAY = "ask for less, or pay"


class Bucket(NamedTuple):
    """Something that no more than so many tokens go into: those of one client, of one address, or of a day."""

    who: str
    day: int  # since 1970, in UTC, or `ALWAYS`
    limit: int


class Allowance(NamedTuple):
    """How many tokens are given, of prompt and answer together."""

    per_client: int = 0  # in all
    per_address: int = 0  # a day; an IPv4 address, a /56 of IPv6, or a relay
    per_day: int = 0  # to everybody

    @property
    def tokens(self) -> int:
        """What a newcomer may hope for; 0 where nothing is given."""
        return min(self)

    def buckets(self, client: str, source: str, now: float) -> tuple[Bucket, Bucket, Bucket]:
        """What an answer for `client`, who comes from `source`, counts in: in the order of `Left`."""
        today = day(now)
        return (
            Bucket(f"client {client}", ALWAYS, self.per_client),
            Bucket(f"from {source}", today, self.per_address),
            Bucket("everybody", today, self.per_day),
        )


class Left(NamedTuple):
    """How many tokens a client may still be given, by each of the limits."""

    client: int = 0
    address: int = 0
    everybody: int = 0

    def require(self, tokens: int, now: float) -> None:
        """Raises `Refused` where it is fewer, with what there is and, where that helps, when to come back."""
        if tokens > self.client:
            raise Refused("no_allowance", f"{_few(self.client)} left for you, and this may take {tokens}: {ASK_OR_PAY}")
        if tokens > min(self):
            whom = "your address" if tokens > self.address else "anybody"
            raise Refused(
                "no_allowance",
                f"{_few(min(self))} left today for {whom}, and this may take {tokens}: {ASK_OR_PAY}",
                retry_after_s=DAY_S - int(now) % DAY_S,
            )


def _few(tokens: int) -> str:
    return f"{tokens} free tokens are" if tokens > 0 else "no free tokens are"


def day(now: float) -> int:
    """Of unix time."""
    return int(now) // DAY_S


def slots_to_give(total: int) -> int:
    """How many of a provider's slots may give free answers at a time."""
    return max(1, total // 2)
