"""Who may call, and what each has spent: the gateway's own file in the client's home.

A key is 256 random bits, of which the file has the SHA-256 alone. What an answer may cost at most is on the tally
before the answer is bought, and what it did not cost is taken off again afterwards: a crash makes the tally too high
and never too low.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from chain import private_database
from p2p.errors import LocalError, Refused
from p2p.gateway.wishes import Wishes
from p2p.protocol.allowance import day

FILE_NAME = "gateway.sqlite"
PREFIX = "bx-"
SECRET_BYTES = 32
EVERYBODY = ""  # whose tally is that of all answers together

_TABLES = (
    "CREATE TABLE IF NOT EXISTS keys (name TEXT PRIMARY KEY, hash BLOB NOT NULL UNIQUE, may BLOB NOT NULL)",
    """CREATE TABLE IF NOT EXISTS spent (
        name TEXT NOT NULL,
        day INTEGER NOT NULL,
        nano INTEGER NOT NULL CHECK (nano >= 0),
        PRIMARY KEY (name, day)
    )""",
)


class Capabilities(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the holder of a key may do; what is not set is not limited."""

    models: tuple[str, ...] = ()  # empty for all
    price_max_input: int | None = None  # nano for a million tokens
    price_max_output: int | None = None
    budget_nano_per_day: int | None = None  # from midnight to midnight UTC
    requests_per_minute: int | None = None
    manage: bool = False  # see the accounts, and close channels

    @property
    def wishes(self) -> Wishes:
        """Its price caps."""
        return Wishes(price_max_input=self.price_max_input, price_max_output=self.price_max_output)


class Key(msgspec.Struct, frozen=True):
    """Somebody who may call."""

    name: str
    may: Capabilities


ANYBODY = Key(EVERYBODY, Capabilities(manage=True))
"""On this machine, where there are no keys."""


class Keys:
    """The file. Several processes may use it at once. Any method raises `LocalError` if it cannot be used."""

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        """`folder` is the client's home; `clock` gives unix seconds."""
        self._path = folder / FILE_NAME
        self._clock = clock

    def add(self, name: str, may: Capabilities) -> str:
        """A new key, which is told this once. Raises `LocalError` if there is one of that name."""
        secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        with self._open() as db:
            if db.execute("SELECT 1 FROM keys WHERE name = ?", (name,)).fetchone() or name == EVERYBODY:
                raise LocalError(f"there is a key {name!r} already, or that is no name: choose another")
            db.execute("INSERT INTO keys VALUES (?, ?, ?)", (name, _hash(secret), msgspec.json.encode(may)))
        return secret

    def remove(self, name: str) -> None:
        """Raises `LocalError` if there is none."""
        with self._open() as db:
            if not db.execute("DELETE FROM keys WHERE name = ?", (name,)).rowcount:
                raise LocalError(f"there is no key {name!r}: see gateway keys list")

    def all(self) -> Sequence[Key]:
        """By name."""
        with self._open() as db:
            rows = db.execute("SELECT name, may FROM keys ORDER BY name").fetchall()
        return [Key(name, msgspec.json.decode(may, type=Capabilities)) for name, may in rows]

    def find(self, secret: str | None) -> Key | None:
        """Whose it is; `ANYBODY` where there are no keys at all."""
        with self._open() as db:
            if not db.execute("SELECT 1 FROM keys").fetchone():
                return ANYBODY
            query = "SELECT name, may FROM keys WHERE hash = ?"
            row = db.execute(query, (_hash(secret),)).fetchone() if secret else None
        return Key(row[0], msgspec.json.decode(row[1], type=Capabilities)) if row else None

    def today(self) -> int:
        """The day that is spent on, counted from 1970."""
        return day(self._clock())

    def spent_nano(self, name: str) -> int:
        """Today, by that key or by `EVERYBODY`."""
        with self._open() as db:
            return _spent(db, name, self.today())

    def spend(self, limits: Sequence[tuple[str, int | None]], day: int, nano: int) -> None:
        """Put it on each of these tallies, or, where one of the limits would be passed, on none.

        Raises `Refused`.
        """
        with self._open() as db:
            for name, most in limits:
                left = None if most is None else max(0, most - _spent(db, name, day))
                if left is not None and nano > left:
                    whose = "this key" if name else "this gateway"
                    raise Refused(
                        "over_budget", f"it could cost {nano} nano and {whose} has {left} left of {most} for today"
                    )
            for name, _ in limits:
                db.execute(
                    "INSERT INTO spent VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET nano = nano + excluded.nano",
                    (name, day, nano),
                )

    def give_back(self, names: Sequence[str], day: int, nano: int) -> None:
        """What an answer did not cost."""
        with self._open() as db:
            for name in names:
                db.execute("UPDATE spent SET nano = max(0, nano - ?) WHERE name = ? AND day = ?", (nano, name, day))

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """In a transaction that keeps other processes away."""
        try:
            with private_database.transaction(self._path, *_TABLES) as db:
                yield db
        except sqlite3.Error as error:
            raise LocalError(f"the gateway's file {self._path} cannot be used: {error}") from error


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _spent(db: sqlite3.Connection, name: str, day: int) -> int:
    # Later days count too, so that a clock set back does not open the purse again.
    ((nano,),) = db.execute("SELECT coalesce(sum(nano), 0) FROM spent WHERE name = ? AND day >= ?", (name, day))
    return int(nano)
