"""Core: which inbound connections may shake hands and stay, and which make room. No I/O, no clock, no tasks.

Every connection waits for its turn (`p2p.net.turns`), then shakes hands, then is open.

When a limit is reached somebody makes room: of those that wait or shake hands the oldest at the most crowded address,
since an honest one has long finished; of those that are open the newest idle one there, so that whoever has been here
for long stays.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from typing import NamedTuple

from p2p.net.address_group import address_group
from p2p.net.limits import InboundLimits
from p2p.net.turns import Crowd, Turns

GRACE_S = 10.0  # so soon after it was opened a connection is not idle: its first stream may be under way
IDLE_S = 300.0  # without any stream
SWEEP_S = 60.0


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


class Arrivals:
    """`use` says what an open connection is used for. `now` is any monotonic clock in seconds."""

    def __init__(self, limits: InboundLimits, use: Callable[[int], Use], now: float) -> None:
        self._limits = limits
        self._use = use
        self._turns = Turns(per_s=limits.handshakes_per_s, burst=limits.burst_s * limits.handshakes_per_s)
        self._shaking, self._open = Crowd(), Crowd()
        self._addresses: dict[int, str] = {}
        self._idle_since: dict[int, float] = {}
        self._sweep_at = now + SWEEP_S

    def __len__(self) -> int:
        return len(self._addresses)

    def arrive(self, connection: int, ip: str, now: float) -> list[Event]:
        """Somebody connected from there."""
        address = self._addresses[connection] = address_group(ip)
        self._turns.waiting.add(address, connection, now)
        return [*self._thin_out(self._turns.waiting, address, "too many wait"), *self._give_turns(now)]

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
        for crowd in (self._turns.waiting, self._shaking, self._open):
            crowd.remove(address, connection)
        self._idle_since.pop(connection, None)

    def deadline(self) -> float:
        """When `tick` is next due."""
        return self._sweep_at if self._turns.next_at is None else min(self._turns.next_at, self._sweep_at)

    def tick(self, now: float) -> list[Event]:
        """Give out the turns that are due, and drop what nobody has used for long."""
        return [*self._give_turns(now), *self._sweep(now)]

    def _give_turns(self, now: float) -> Iterator[Event]:
        for address, connection in self._turns.due(now):
            self._shaking.add(address, connection, now)
            yield Begin(connection)
            yield from self._thin_out(self._shaking, address, "too many handshakes")

    def _thin_out(self, crowd: Crowd, address: str, why: str) -> Iterator[Event]:
        """The oldest goes: at an address with too many, or at the most crowded one of too many."""
        if len(crowd.at.get(address, ())) > self._limits.handshakes_per_address:
            yield self._drop(crowd.oldest(address), why)
        elif crowd.total > self._limits.handshakes:
            yield self._drop(crowd.oldest(crowd.most_crowded()), why)

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
