"""Core: which of our addresses to announce.

The one rule: **an address is announced once others have dialled it and come through to us.** On a network that does
not leave the machine nothing stands in between, so there every address holds as it is. On a network that does not leave
the site, and at a relay, whose operator says that it stands in the open, a listening address is believed until somebody
finds it closed. An address that holds less far than the network reaches (a private one on a public network) is neither
announced nor dialled. Whoever has no address to announce takes a place at a relay and announces that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import NamedTuple

from p2p.protocol.addresses import Address, Reach, reach_of

MAX_CANDIDATES = 8
MAX_OBSERVERS = 8
MAX_CHECKERS = 8  # whose answers on one address are kept
ANSWER_LIFE_S = 3600.0


class Status(Enum):
    """Whether others can dial us."""

    PUBLIC = "public"
    PRIVATE = "private"
    UNKNOWN = "unknown"


class Verdict(Enum):
    """What is known of one address."""

    OPEN = "open"
    CLOSED = "closed"
    UNTESTED = "untested"


class _Answer(NamedTuple):
    open: bool
    at: float


class _Seen(NamedTuple):
    address: Address
    from_port: int


class Reachability:
    """What we listen on and what others found, and what follows from both.

    `believed` says that listening addresses are to be announced before anyone has tried them, whatever the network.
    """

    def __init__(self, *, believed: bool = False) -> None:
        self._listening: tuple[Address, ...] = ()
        self._believed = believed
        self._joined: Reach | None = None
        self._observed: dict[str, _Seen] = {}
        self._mapped: Address | None = None
        self._answers: dict[Address, dict[str, _Answer]] = {}
        self._places: dict[str, Address] = {}

    # What is heard

    def listens(self, addresses: Sequence[Address]) -> None:
        """Where we listen, on which interfaces; for good."""
        self._listening = tuple(addresses)

    def joined(self, reach: Reach) -> None:
        """The network has a member that we were told to dial, so far away."""
        self._joined = max(reach, self._joined or reach)

    def observed(self, observer: str, address: Address, from_port: int) -> None:
        """A peer that we dialled, from this port of ours, sees us at `address`."""
        self._observed.pop(observer, None)
        self._observed[observer] = _Seen(address, from_port)
        if len(self._observed) > MAX_OBSERVERS:
            del self._observed[next(iter(self._observed))]

    def mapped(self, address: Address | None) -> None:
        """The router forwards `address` to where we listen, or no longer."""
        self._mapped = address

    def answered(self, checker: str, address: Address, is_open: bool, now: float) -> None:
        """A peer dialled one of our candidates: did it come through?"""
        answers = self._answers.setdefault(address, {})
        answers.pop(checker, None)
        answers[checker] = _Answer(is_open, now)
        if len(answers) > MAX_CHECKERS:
            del answers[next(iter(answers))]

    def placed(self, relay: str, address: Address | None) -> None:
        """We have a place at this relay, which is found at `address`, or no longer."""
        if address is None:
            self._places.pop(relay, None)
        else:
            self._places[relay] = address._replace(relay=relay)

    def tick(self, now: float) -> None:
        """Forget old answers, and those on what is no candidate any more."""
        candidates = self.candidates()
        self._answers = {
            address: current
            for address, answers in self._answers.items()
            if address in candidates
            and (current := {who: one for who, one in answers.items() if now - one.at < ANSWER_LIFE_S})
        }

    # What follows

    @property
    def network(self) -> Reach:
        """How far the network reaches: as far as those that we were told to dial, else as far as we listen."""
        if self._joined is not None:
            return self._joined
        reaches = map(reach_of, self._listening)
        return max((reach for reach in reaches if reach is not None), default=Reach.MACHINE)

    def holds(self, address: Address) -> bool:
        """Whether an address means the same to everybody on the network."""
        reach = reach_of(address)
        return reach is not None and reach >= self.network

    def candidates(self) -> tuple[Address, ...]:
        """What may be open: the router's port, where we listen, and where others see us."""
        return tuple(dict.fromkeys(filter(self.holds, self._possible())))[:MAX_CANDIDATES]

    def verdict(self, address: Address) -> Verdict:
        """The majority's; when they are equal, the bad news."""
        answers = self._answers.get(address, {}).values()
        if self.network is Reach.MACHINE:
            return Verdict.OPEN
        if not answers:
            return Verdict.UNTESTED
        return Verdict.OPEN if 2 * sum(answer.open for answer in answers) > len(answers) else Verdict.CLOSED

    @property
    def status(self) -> Status:
        verdicts = {self.verdict(address) for address in self.candidates()}
        if Verdict.OPEN in verdicts:
            return Status.PUBLIC
        return Status.UNKNOWN if Verdict.UNTESTED in verdicts else Status.PRIVATE

    @property
    def wants_place(self) -> bool:
        """Whether to be at a relay: as long as we would be found and nobody came through."""
        return bool(self._listening) and self.status is not Status.PUBLIC

    def announced(self) -> tuple[Address, ...]:
        """The addresses to tell others: first the open ones, then those at relays."""
        straight = (address for address in self.candidates() if self._is_announced(address))
        places = self._places.values() if self.wants_place else ()
        return (*straight, *filter(self.holds, places))

    def outside(self, port: int) -> tuple[Address, ...]:
        """Where a port of ours is seen by those whom we dialled from it: where a router lets their answers in."""
        seen = (address for address, from_port in self._observed.values() if from_port == port)
        return tuple(dict.fromkeys(filter(self.holds, seen)))

    def keeps_port(self, port: int) -> bool | None:
        """Whether all whom we dialled from a port of ours see it at the same address; unknown until two have said."""
        seen = [address for address, from_port in self._observed.values() if from_port == port and self.holds(address)]
        kinds = {address.kind for address in seen}
        return None if len(seen) == len(kinds) else len(set(seen)) == len(kinds)

    def _is_announced(self, address: Address) -> bool:
        verdict = self.verdict(address)
        if verdict is Verdict.UNTESTED:
            return address in self._listening and (self._believed or self.network is Reach.SITE)
        return verdict is Verdict.OPEN

    def _possible(self) -> Iterator[Address]:
        if not self._listening:
            return
        if self._mapped:
            yield self._mapped
        yield from self._listening
        ports = dict.fromkeys(address.port for address in self._listening)
        for address, from_port in self._observed.values():
            if from_port in ports:
                yield address
            yield from (address._replace(port=port) for port in ports)
