"""SQLite files that nobody but their owner can read, and that several processes may use at once."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

BUSY_TIMEOUT_S = 10.0  # another process may be committing


def connect(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode, to a file that is made if there is none. Raises `sqlite3.Error`."""
    # SQLite gives its side files the mode of the main file, so that one is made first. Only if it is new: to close
    # any descriptor of a file drops all POSIX locks that SQLite holds on it in this process.
    with suppress(FileExistsError, FileNotFoundError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_S)


@contextmanager
def transaction(path: Path, *tables: str) -> Iterator[sqlite3.Connection]:
    """One transaction, which keeps other processes away; `tables` are the statements that make those that are missing.

    What raises inside undoes it. Raises `sqlite3.Error`.
    """
    with closing(connect(path)) as db:
        db.execute("PRAGMA synchronous = FULL")
        db.execute("BEGIN IMMEDIATE")
        for table in tables:
            db.execute(table)
        yield db
        db.execute("COMMIT")
