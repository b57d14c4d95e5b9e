"""Core: whose turn it is: at a steady rate, and going round the addresses that wait. No I/O and no clock.

A flood from one address delays itself and those behind the same address, and nobody else; as long as nobody else waits,
an address has all turns.
"""

from __future__ import annotations

from p2p.protocol.rates import Rates


class Crowd:
    """Those who are somewhere, by their addresses; at each address the oldest first."""

    def __init__(self) -> None:
        self.at: dict[str, dict[int, float]] = {}  # since when each has been here
        self.total = 0

    def add(self, address: str, number: int, now: float) -> None:
        """Somebody new, at the end."""
        self.at.setdefault(address, {})[number] = now
        self.total += 1

    def remove(self, address: str, number: int) -> None:
        """Whoever it is, if it is here."""
        if self.at.get(address, {}).pop(number, None) is not None:
            self.total -= 1
            if not self.at[address]:
                del self.at[address]

    def oldest(self, address: str) -> int:
        """Of those at an address where somebody is."""
        return next(iter(self.at[address]))

    def most_crowded(self) -> str:
        """The address where most are."""
        return max(self.at, key=lambda address: len(self.at[address]))


class Turns:
    """`now` is any monotonic clock in seconds."""

    def __init__(self, *, per_s: float, burst: float) -> None:
        self._rates = Rates(per_s=per_s, burst=burst)
        self._interval_s = 1 / per_s
        self.waiting = Crowd()
        self.next_at: float | None = None  # when somebody's turn may come next

    def due(self, now: float) -> list[tuple[str, int]]:
        """Whose turn it is, with their addresses: they wait no more."""
        due = []
        while self.waiting.total and self._rates.take("", now):
            address = next(iter(self.waiting.at))
            number = self.waiting.oldest(address)
            self.waiting.at[address] = self.waiting.at.pop(address)  # it queues up anew, behind the others
            self.waiting.remove(address, number)
            due.append((address, number))
        self.next_at = now + self._interval_s if self.waiting.total else None
        return due
