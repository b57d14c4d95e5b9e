"""What all processes that use one wallet share: whose turn it is to order, and what was spent today.

A W5 order is good for one sequence number, so two processes that order at once would void each other's orders.
The tally is on disk before an order is signed: a crash, or an order that nobody takes, makes it too high and never too
low. Only what leaves our hands counts, deposits and transfers; what brings money home is never stopped by a limit.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple

import trio

from chain import locks, private_database
from chain.errors import BookUnusable, LimitReached

DAY_S = 86_400
LOCK_POLL_S = 0.1

_TABLE = "CREATE TABLE IF NOT EXISTS spent (day INTEGER PRIMARY KEY, nano INTEGER NOT NULL CHECK (nano >= 0))"


class Limits(NamedTuple):
    """The most that may be spent."""

    day_max_nano: int  # by deposits and transfers, from midnight to midnight UTC
    channel_max_nano: int  # deposited in one channel in all


class Purse:
    """One wallet's limits, tally and turn. Any method raises `BookUnusable` if its files cannot be used."""

    def __init__(self, folder: Path, limits: Limits, clock: Callable[[], float]) -> None:
        """`folder` is where the wallet's file is; `clock` gives unix seconds."""
        self._tally = folder / "spent.sqlite"
        self._lock = folder / "wallet.lock"
        self._limits = limits
        self._clock = clock

    def check_channel(self, deposited_nano: int) -> None:
        """Raises `LimitReached` if a channel is not to hold that much in all."""
        most = self._limits.channel_max_nano
        if deposited_nano > most:
            raise LimitReached(f"a channel with {deposited_nano} nano is over its limit: channel_max_nano is {most}")

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Nobody else orders meanwhile."""
        while (lock := locks.take(self._lock)) is None:  # noqa: ASYNC110 - a thread that waits cannot be cancelled
            await trio.sleep(LOCK_POLL_S)
        with lock:
            yield

    async def spend(self, nano: int) -> None:
        """Put it on today's tally, just before the order for it is signed. Raises `LimitReached`."""
        if nano:
            await trio.to_thread.run_sync(self._spend, nano)

    def spent_today_nano(self) -> int:
        """What is on today's tally."""
        with self._open() as db:
            return _spent(db, self._today())

    def _today(self) -> int:
        return int(self._clock()) // DAY_S

    def _spend(self, nano: int) -> None:
        day, most = self._today(), self._limits.day_max_nano
        with self._open() as db:
            left = max(most - _spent(db, day), 0)
            if nano > left:
                raise LimitReached(f"{nano} nano is over what may be spent today: {left} left, day_max_nano is {most}")
            db.execute(
                "INSERT INTO spent VALUES (?, ?) ON CONFLICT DO UPDATE SET nano = nano + excluded.nano", (day, nano)
            )

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The tally, in a transaction that keeps other processes away."""
        try:
            with private_database.transaction(self._tally, _TABLE) as db:
                yield db
        except sqlite3.Error as error:
            raise BookUnusable(f"the wallet's tally {self._tally} cannot be used: {error}") from error


def _spent(db: sqlite3.Connection, day: int) -> int:
    # Later days count too, so that a clock set back does not open the purse again.
    ((nano,),) = db.execute("SELECT coalesce(sum(nano), 0) FROM spent WHERE day >= ?", (day,))
    return int(nano)
