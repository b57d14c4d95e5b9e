"""Core: whom a relay takes in, and how much it carries for them.

A peer that cannot be dialled reserves a place; others are then connected to it through the relay, by circuits of
limited length and size. The relay carries bytes that it cannot read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from p2p.errors import Refused

RESERVATION_REFUSED = "reservation_refused"
NO_RESERVATION = "no_reservation"
TOO_MANY_CIRCUITS = "too_many_circuits"


class Limits(NamedTuple):
    """What one relay gives. Bytes are for each direction of a circuit."""

    reservations: int
    reservations_per_address: int
    reservation_s: float
    circuits: int
    circuits_per_peer: int  # from one, and to one
    circuit_s: float
    circuit_bytes: int


class _Place(NamedTuple):
    address: str
    expires_at: float


class RelayBook:
    """Places and circuits of one relay. `connected` says whether a peer has a connection of its own to us: a place
    ends with it."""

    def __init__(self, limits: Limits, connected: Callable[[str], bool]) -> None:
        self.limits = limits
        self._connected = connected
        self._places: dict[str, _Place] = {}
        self._from: Counter[str] = Counter()
        self._to: Counter[str] = Counter()

    def reserve(self, peer: str, address: str, now: float) -> float:
        """Give `peer` a place, or renew the one that it has: when it ends. Raises `Refused`.

        `address` is whatever one household has one of.
        """
        self._sweep(now)
        others = [place for other, place in self._places.items() if other != peer]
        if len(others) >= self.limits.reservations:
            raise Refused(RESERVATION_REFUSED, "every place is taken")
        if sum(place.address == address for place in others) >= self.limits.reservations_per_address:
            raise Refused(RESERVATION_REFUSED, "too many places for one address")
        self._places[peer] = _Place(address, now + self.limits.reservation_s)
        return self._places[peer].expires_at

    def open(self, source: str, target: str, now: float) -> None:
        """Count a circuit from `source` to `target`, until `close`. Raises `Refused`."""
        if not self.has_place(target, now) or not self._connected(target):
            raise Refused(NO_RESERVATION)
        most = self.limits.circuits_per_peer
        if self._from[source] >= most or self._to[target] >= most or self._to.total() >= self.limits.circuits:
            raise Refused(TOO_MANY_CIRCUITS)
        self._from[source] += 1
        self._to[target] += 1

    def has_place(self, peer: str, now: float) -> bool:
        """Whether `peer` has a place that has not run out."""
        place = self._places.get(peer)
        return place is not None and now < place.expires_at

    def close(self, source: str, target: str) -> None:
        """The circuit that was counted is over."""
        self._from -= Counter([source])  # drops the entry when it reaches zero
        self._to -= Counter([target])

    @property
    def places(self) -> int:
        return len(self._places)

    @property
    def circuits(self) -> int:
        return self._to.total()

    def _sweep(self, now: float) -> None:
        self._places = {
            peer: place for peer, place in self._places.items() if place.expires_at > now and self._connected(peer)
        }
