"""Whom a relay takes in."""

from __future__ import annotations

import pytest

from p2p.errors import Refused
from p2p.protocol.relaying import NO_RESERVATION, RESERVATION_REFUSED, TOO_MANY_CIRCUITS, Limits, RelayBook

LIMITS = Limits(
    reservations=3,
    reservations_per_address=2,
    reservation_s=100,
    circuits=3,
    circuits_per_peer=2,
    circuit_s=10,
    circuit_bytes=1000,
)


class Relay:
    """A book, and who is connected."""

    def __init__(self) -> None:
        self.here: set[str] = set()
        self.book = RelayBook(LIMITS, self.here.__contains__)

    def comes(self, peer: str, address: str = "", now: float = 0.0) -> float:
        self.here.add(peer)
        return self.book.reserve(peer, address or f"the home of {peer}", now)


@pytest.fixture
def relay() -> Relay:
    return Relay()


def refused(reason: str) -> pytest.RaisesExc[Refused]:
    return pytest.raises(Refused, check=lambda error: error.reason == reason)


def test_a_place_lasts_so_long_and_can_be_renewed(relay: Relay) -> None:
    assert relay.comes("a") == 100
    relay.book.open("x", "a", 99)
    assert relay.comes("a", now=50) == 150
    relay.book.open("x", "a", 149)
    relay.book.close("x", "a")
    with refused(NO_RESERVATION):
        relay.book.open("x", "a", 150)


def test_places_run_out_and_come_back(relay: Relay) -> None:
    for peer in "abc":
        relay.comes(peer)
    with refused(RESERVATION_REFUSED):
        relay.comes("d")
    relay.comes("a", now=10)  # who has one may renew it
    relay.here.remove("b")
    relay.comes("d", now=10)
    with refused(RESERVATION_REFUSED):
        relay.comes("e", now=99)
    relay.comes("e", now=100)  # c's has run out
    assert relay.book.places == 3


def test_one_address_gets_so_many(relay: Relay) -> None:
    relay.comes("a", "home")
    relay.comes("b", "home")
    with refused(RESERVATION_REFUSED):
        relay.comes("c", "home")
    relay.comes("b", "home")  # again
    relay.comes("c", "elsewhere")


def test_only_those_with_a_place_and_a_connection_are_reached(relay: Relay) -> None:
    with refused(NO_RESERVATION):
        relay.book.open("x", "a", 0)
    relay.comes("a")
    relay.book.open("x", "a", 0)
    relay.here.clear()
    with refused(NO_RESERVATION):
        relay.book.open("x", "a", 0)


def test_circuits_are_counted_from_one_to_one_and_in_all(relay: Relay) -> None:
    for peer in "abc":
        relay.comes(peer)
    relay.book.open("x", "a", 0)
    relay.book.open("x", "b", 0)
    with refused(TOO_MANY_CIRCUITS):
        relay.book.open("x", "c", 0)
    relay.book.open("y", "a", 0)
    with refused(TOO_MANY_CIRCUITS):
        relay.book.open("z", "b", 0)  # all are taken
    relay.book.close("x", "b")
    with refused(TOO_MANY_CIRCUITS):
        relay.book.open("z", "a", 0)  # two lead to it
    relay.book.open("z", "c", 0)
    for source, target in (("x", "a"), ("y", "a"), ("z", "c")):
        relay.book.close(source, target)
    assert relay.book.circuits == 0
