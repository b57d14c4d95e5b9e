"""What each user, and all users together, may spend from midnight to midnight UTC.

An account at Telegram costs nothing, so a limit for each user alone would limit nothing.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

DAY_S = 86_400

_TABLE = """
CREATE TABLE IF NOT EXISTS spent (
    day INTEGER, user INTEGER, nano INTEGER NOT NULL CHECK (nano >= 0), PRIMARY KEY (day, user)
)
"""


class Limits(NamedTuple):
    """The most that may be spent."""

    user_day_nano: int
    day_nano: int  # by all users together
    answer_nano: int


class AllSpent(Exception):
    """Nothing is left for today."""


class Reservation(NamedTuple):
    """What one answer may cost, which counts as spent already."""

    day: int
    user: int
    nano: int


class Allowance:
    """A tally in a file: user numbers and amounts of today, no names and no texts.

    What an answer may cost is on disk before anybody is asked for it, and what it did not cost is given back
    afterwards. A crash in between makes the tally too high, and never too low.
    """

    def __init__(self, database: sqlite3.Connection, limits: Limits, clock: Callable[[], float] = time.time) -> None:
        """See `open_allowance`. `clock` gives unix seconds."""
        self.limits = limits
        self._database = database
        self._clock = clock

    def left_nano(self, user: int) -> int:
        """What `user` may still spend today."""
        return max(0, self._left_nano(self._today(), user))

    def reserve(self, user: int) -> Reservation:
        """Enough for one answer, or all that is left. Raises `AllSpent`."""
        day = self._today()
        nano = min(self.limits.answer_nano, self._left_nano(day, user))
        if nano <= 0:
            raise AllSpent
        with self._database:
            self._database.execute("DELETE FROM spent WHERE day < ?", (day,))
            self._database.execute(
                "INSERT INTO spent VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET nano = nano + excluded.nano",
                (day, user, nano),
            )
        return Reservation(day, user, nano)

    def settle(self, reservation: Reservation, cost_nano: int) -> None:
        """The answer is over, and this is what it cost."""
        unspent_nano = reservation.nano - cost_nano
        with self._database:
            self._database.execute(
                "UPDATE spent SET nano = nano - ? WHERE day = ? AND user = ?",
                (unspent_nano, reservation.day, reservation.user),
            )

    def _left_nano(self, day: int, user: int) -> int:
        all_nano, user_nano = self._database.execute(
            "SELECT coalesce(sum(nano), 0), coalesce(sum(CASE user WHEN ? THEN nano END), 0) FROM spent WHERE day = ?",
            (user, day),
        ).fetchone()
        return min(self.limits.day_nano - int(all_nano), self.limits.user_day_nano - int(user_nano))

    def _today(self) -> int:
        return int(self._clock()) // DAY_S


@contextmanager
def open_allowance(path: Path, limits: Limits, clock: Callable[[], float] = time.time) -> Iterator[Allowance]:
    """The tally in the file at `path`, which is made if there is none."""
    with closing(sqlite3.connect(path)) as database:
        database.execute(_TABLE)
        yield Allowance(database, limits, clock)
