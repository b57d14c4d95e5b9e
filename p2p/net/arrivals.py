"""Core: which inbound connections may shake hands and stay, and which make room. No I/O, no clock, no tasks.

Every connection waits for its turn, then shakes hands, then is open. Turns are given out at a steady rate and go round
the addresses that wait: a flood from one address delays itself and those behind the same address, and nobody else;
as long as nobody else waits, an address is not held back at all.

When a limit is reached somebody makes room: of those that wait or shake hands the oldest at the most crowded address,
since an honest one has long finished; of those that are open the newest idle one there, so that whoever has been here
for long stays.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from p2p.protocol.rates import Rates

IPV6_PREFIX = 56  # what one customer of a provider has at its disposal, at the least (RFC 6177)
GRACE_S = 10.0  # so soon after it was opened a connection is not idle: its first stream may be under way
IDLE_S = 300.0  # without any stream
SWEEP_S = 60.0


@dataclass(frozen=True)
class Limits:
    """Of inbound connections. An address is one of IPv4, or a /56 of IPv6."""

    connections: int = 1024
    connections_per_address: int = 128
    handshakes: int = 256  # under way; as many may wait
    handshakes_per_address: int = 64
    handshakes_per_s: float = 40.0  # begun; one costs some 10 ms of a core with all that follows
    handshakes_burst: float = 200.0


class Use(enum.IntEnum):
    """What an open connection is used for."""

    NONE = 0  # no stream is open
    BACKGROUND = 1  # only what keeps the network together
    WORK = 2


class Begin(NamedTuple):
    """The connection's turn has come: shake hands."""

    connection: int


class Drop(NamedTuple):
    """Close the connection. The core has forgotten it."""

    connection: int
    why: str


Event = Begin | Drop


def address_group(ip: str) -> str:
    """The address as limits count it. What is no IP address stands for itself."""
    try:
        address = ipaddress.ip_address(ip.partition("%")[0])
    except ValueError:
        return ip
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, IPV6_PREFIX), strict=False))


class _Crowd:
    """Connections by address; at each address the oldest first."""

    def __init__(self) -> None:
        self.at: dict[str, dict[int, float]] = {}  # since when each has been here
        self.total = 0

    def add(self, address: str, connection: int, now: float) -> None:
        self.at.setdefault(address, {})[connection] = now
        self.total += 1

    def remove(self, address: str, connection: int) -> None:
        if self.at.get(address, {}).pop(connection, None) is not None:
            self.total -= 1
            if not self.at[address]:
                del self.at[address]

    def oldest(self, address: str) -> int:
        return next(iter(self.at[address]))

    def surplus(self, address: str, per_address: int, in_all: int) -> int | None:
        """Who has to go now that `address` has one more."""
        if len(self.at.get(address, ())) > per_address:
            return self.oldest(address)
        if self.total > in_all:
            return self.oldest(max(self.at, key=lambda each: len(self.at[each])))
        return None


class Arrivals:
    """`use` says what an open connection is used for. `now` is any monotonic clock in seconds."""

    def __init__(self, limits: Limits, use: Callable[[int], Use], now: float) -> None:
        self._limits = limits
        self._use = use
        self._turns = Rates(per_s=limits.handshakes_per_s, burst=limits.handshakes_burst)
        self._addresses: dict[int, str] = {}
        self._waiting, self._shaking, self._open = _Crowd(), _Crowd(), _Crowd()
        self._idle_since: dict[int, float] = {}
        self._turn_at: float | None = None
        self._sweep_at = now + SWEEP_S

    def __len__(self) -> int:
        return len(self._addresses)

    def arrive(self, connection: int, ip: str, now: float) -> list[Event]:
        """Somebody connected from there."""
        address = self._addresses[connection] = address_group(ip)
        self._waiting.add(address, connection, now)
        return [*self._thin_out(self._waiting, address, "too many wait"), *self._give_turns(now)]

    def shaken(self, connection: int, now: float) -> list[Event]:
        """The handshake is done."""
        address = self._addresses.get(connection)
        if address is None:
            return []
        self._shaking.remove(address, connection)
        self._open.add(address, connection, now)
        if len(self._open.at[address]) > self._limits.connections_per_address:
            crowded = [address]
        elif self._open.total > self._limits.connections:
            crowded = sorted(self._open.at, key=lambda each: -len(self._open.at[each]))
        else:
            return []
        return [self._drop(next(self._idle(crowded, now), connection), "too many connections")]

    def left(self, connection: int) -> None:
        """The connection is over, for whatever reason."""
        address = self._addresses.pop(connection, "")
        for crowd in (self._waiting, self._shaking, self._open):
            crowd.remove(address, connection)
        self._idle_since.pop(connection, None)

    def deadline(self) -> float:
        """When `tick` is next due."""
        return self._sweep_at if self._turn_at is None else min(self._turn_at, self._sweep_at)

    def tick(self, now: float) -> list[Event]:
        """Give out the turns that are due, and drop what nobody has used for long."""
        return [*self._give_turns(now), *self._sweep(now)]

    def _give_turns(self, now: float) -> Iterator[Event]:
        while self._waiting.total and self._turns.take("", now):
            address = next(iter(self._waiting.at))
            connection = self._waiting.oldest(address)
            others = self._waiting.at.pop(address)  # this address queues up anew, behind the others
            self._waiting.at[address] = others
            self._waiting.remove(address, connection)
            self._shaking.add(address, connection, now)
            yield Begin(connection)
            yield from self._thin_out(self._shaking, address, "too many handshakes")
        self._turn_at = now + 1 / self._limits.handshakes_per_s if self._waiting.total else None

    def _thin_out(self, crowd: _Crowd, address: str, why: str) -> Iterator[Event]:
        surplus = crowd.surplus(address, self._limits.handshakes_per_address, self._limits.handshakes)
        if surplus is not None:
            yield self._drop(surplus, why)

    def _drop(self, connection: int, why: str) -> Drop:
        self.left(connection)
        return Drop(connection, why)

    def _idle(self, addresses: list[str], now: float) -> Iterator[int]:
        """Open connections there that do no work: at each address the newest first."""
        for address in addresses:
            for connection, since in reversed(self._open.at[address].items()):
                if now >= since + GRACE_S and self._use(connection) < Use.WORK:
                    yield connection

    def _sweep(self, now: float) -> Iterator[Event]:
        if now < self._sweep_at:
            return
        self._sweep_at = now + SWEEP_S
        unused = [one for at in self._open.at.values() for one in at if self._use(one) is Use.NONE]
        self._idle_since = {one: self._idle_since.get(one, now) for one in unused}
        for connection, since in list(self._idle_since.items()):
            if now >= since + IDLE_S:
                yield self._drop(connection, "nobody used it")
