"""A chain on disk: one SQLite file that grows by one transaction for each block.

What a block did is in the file before anybody is told of it, so a process that is killed loses nothing. (Of a machine
that loses power, the newest blocks may be gone.) Each block's digest covers the one before, as on a real chain: a file
that was damaged is refused as a whole, and never half believed.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

_APPLICATION_ID = 0x426D6278  # "Bmbx", SQLite's mark of whose file this is
_VERSION = 1
_SMALLEST_BYTES = 512  # of any SQLite file

_SCHEMA = f"""
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_VERSION};
CREATE TABLE server (seed BLOB NOT NULL);
CREATE TABLE blocks (
    seqno INTEGER PRIMARY KEY, time INTEGER NOT NULL, start_lt INTEGER NOT NULL, end_lt INTEGER NOT NULL,
    offset_s INTEGER NOT NULL, digest BLOB NOT NULL
);
CREATE TABLE steps (
    block INTEGER NOT NULL, place INTEGER NOT NULL, workchain INTEGER NOT NULL, account_id BLOB NOT NULL,
    account BLOB NOT NULL, executed BLOB NOT NULL, PRIMARY KEY (block, place)
) WITHOUT ROWID;
"""

_STEPS_OF_BLOCK = "SELECT workchain, account_id, account, executed FROM steps WHERE block = ? ORDER BY place"


class StateUnusable(Exception):
    """The state file cannot be read or written. The text says why, in one line."""

    def __init__(self, why: str) -> None:
        super().__init__(" ".join(why.split()))  # SQLite quotes what it found, line breaks and all


class Block(NamedTuple):
    """One step of the chain: a masterchain block and the shard block that it commits to, under one number."""

    seqno: int
    time: int
    start_lt: int
    end_lt: int


class Step(NamedTuple):
    """What one transaction made of an account: bags of its `ShardAccount` and of the transaction."""

    workchain: int
    account_id: bytes
    account: bytes
    executed: bytes


class Saved(NamedTuple):
    """A block as it is on disk. `offset_s` is by how much the chain's clock was ahead of the machine's."""

    block: Block
    offset_s: int
    steps: Sequence[Step]


class Store:
    """An open state file, this process's alone. Made by `open_store`."""

    def __init__(self, path: Path, connection: sqlite3.Connection, server_seed: bytes) -> None:
        self.server_seed = server_seed
        self._path = path
        self._connection = connection
        self._digest = b""
        self._failed: StateUnusable | None = None

    def saved(self) -> Iterator[Saved]:
        """All blocks, oldest first. To be read to its end before anything is appended. Raises `StateUnusable`."""
        with _translated(self._path):
            rows = self._connection.execute("SELECT * FROM blocks ORDER BY seqno")
            for expected, (*block, offset_s, digest) in enumerate(rows, start=1):
                steps = self._connection.execute(_STEPS_OF_BLOCK, block[:1])
                found = Saved(Block(*block), offset_s, [Step(*step) for step in steps])
                self._digest = _digest(self._digest, found)
                if found.block.seqno != expected or digest != self._digest:
                    raise StateUnusable(f"{self._path} is damaged: block {expected} is not what was written")
                yield found

    def append(self, block: Block, offset_s: int, steps: Sequence[Step]) -> None:
        """Write down the next block. Raises `StateUnusable`, and from then on always: there must be no gap."""
        if self._failed:
            raise self._failed
        digest = _digest(self._digest, Saved(block, offset_s, steps))
        rows = [(block.seqno, place, *step) for place, step in enumerate(steps)]
        try:
            with self._connection:
                self._connection.execute("INSERT INTO blocks VALUES (?, ?, ?, ?, ?, ?)", (*block, offset_s, digest))
                self._connection.executemany("INSERT INTO steps VALUES (?, ?, ?, ?, ?, ?)", rows)
        except sqlite3.Error as error:
            self._failed = StateUnusable(f"cannot write {self._path}: {error}")
            raise self._failed from error
        self._digest = digest


@contextmanager
def open_store(path: Path) -> Iterator[Store]:
    """Open a state file, or begin one. Raises `StateUnusable` if it is another's, in use, or no state file."""
    if path.is_file() and 0 < path.stat().st_size < _SMALLEST_BYTES:
        raise StateUnusable(f"{path} is damaged: it is cut off")  # SQLite would take it for a new one
    with _translated(path):
        connection = sqlite3.connect(path, timeout=0)
    try:
        with _translated(path):
            seed = _prepare(path, connection)
        yield Store(path, connection, seed)
    finally:
        connection.close()


def _prepare(path: Path, connection: sqlite3.Connection) -> bytes:
    """Make the file ours if it is new, check it, and return the lite-server's seed."""
    is_new = not _value(connection, "SELECT count(*) FROM sqlite_master")
    if not is_new and _value(connection, "PRAGMA application_id") != _APPLICATION_ID:
        raise StateUnusable(f"{path} is not a devnet's state file")
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")  # enough for a process that is killed
    with connection:
        connection.execute("BEGIN IMMEDIATE")  # takes the lock, which then stays ours
        if is_new:
            for statement in filter(str.strip, _SCHEMA.split(";")):
                connection.execute(statement)
            connection.execute("INSERT INTO server VALUES (?)", (os.urandom(32),))
    if _value(connection, "PRAGMA user_version") != _VERSION:
        raise StateUnusable(f"{path} is of another version of the devnet: begin a new file")
    problem = _value(connection, "PRAGMA quick_check(1)")
    if problem != "ok":
        raise StateUnusable(f"{path} is damaged: {problem}")
    seed: bytes = _value(connection, "SELECT seed FROM server")
    if len(seed) != 32:
        raise StateUnusable(f"{path} is damaged: the server's key is cut off")
    return seed


def _value(connection: sqlite3.Connection, query: str) -> Any:
    """The one value that a query has."""
    return connection.execute(query).fetchone()[0]  # a TypeError where it has none


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        in_use = "locked" in str(error)
        raise StateUnusable(f"{path} is in use" if in_use else f"cannot open {path}: {error}") from error
    except (sqlite3.Error, TypeError, ValueError) as error:  # rows of another shape raise the latter two
        raise StateUnusable(f"{path} is damaged, or not a devnet's state file: {error}") from error


def _digest(before: bytes, saved: Saved) -> bytes:
    whole = hashlib.sha256(before)
    whole.update(repr((*saved.block, saved.offset_s)).encode())
    for step in saved.steps:
        for part in (step.workchain.to_bytes(4, "big", signed=True), *step[1:]):
            whole.update(len(part).to_bytes(8, "big") + part)
    return whole.digest()
