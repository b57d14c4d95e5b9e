"""The book's file: its tables, its version, the network that it was begun on, and how it is opened.

SQLite in WAL mode with `synchronous=FULL`: what was committed survives a power cut, and a process killed anywhere
leaves a file that opens. Several processes may have it open at once; those that write take turns.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from msgspec.structs import astuple

from chain.errors import BookUnusable, NetworkMismatch
from chain.ledger import Network
from chain.private_database import BUSY_TIMEOUT_S, connect

SWITCH_POLL_S = 0.02

# One tuple of statements per version of the file. A released entry is never edited, only followed by another.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE network (name TEXT NOT NULL, global_id INTEGER NOT NULL)",
        """CREATE TABLE channels (
            role TEXT NOT NULL CHECK (role IN ('payer', 'payee')),
            channel BLOB NOT NULL CHECK (length(channel) = 32),
            peer TEXT NOT NULL,
            terms BLOB NOT NULL,
            salt BLOB NOT NULL,
            state TEXT NOT NULL CHECK (state IN ('UNFUNDED', 'OPEN', 'RELEASED', 'CLOSING', 'CLOSED')),
            deposited_nano INTEGER NOT NULL CHECK (deposited_nano >= 0),
            authorised_nano INTEGER NOT NULL CHECK (authorised_nano >= 0),
            signature BLOB NOT NULL,
            delivered_nano INTEGER NOT NULL CHECK (delivered_nano >= 0),
            settled_nano INTEGER NOT NULL CHECK (settled_nano >= 0),
            released_nano INTEGER CHECK (released_nano >= 0),
            release_signature BLOB NOT NULL,
            UNIQUE (role, channel)
        )""",
        # A payer's salt is used once: a channel deployed again at an old address would revive its old vouchers.
        "CREATE UNIQUE INDEX payer_salts ON channels (salt) WHERE role = 'payer'",
        """CREATE TABLE receipts (
            role TEXT NOT NULL CHECK (role IN ('payer', 'payee')),
            session BLOB NOT NULL,
            peer TEXT NOT NULL,
            signed BLOB NOT NULL,
            cost_nano INTEGER NOT NULL CHECK (cost_nano >= 0),
            at INTEGER NOT NULL,
            UNIQUE (role, peer, session)
        )""",
    ),
    ("ALTER TABLE channels ADD COLUMN restored INTEGER NOT NULL DEFAULT 0 CHECK (restored IN (0, 1))",),
    (
        "ALTER TABLE receipts ADD COLUMN model TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE receipts ADD COLUMN channel BLOB NOT NULL DEFAULT x''",
        "ALTER TABLE receipts ADD COLUMN channel_total_nano INTEGER NOT NULL DEFAULT 0",
        """CREATE TABLE settlements (
            role TEXT NOT NULL,
            channel BLOB NOT NULL,
            settled_nano INTEGER NOT NULL CHECK (settled_nano >= 0),
            fee_nano INTEGER NOT NULL CHECK (fee_nano >= 0),
            at INTEGER NOT NULL,
            why TEXT NOT NULL
        )""",
    ),
    ("ALTER TABLE channels ADD COLUMN lost_nano INTEGER NOT NULL DEFAULT 0 CHECK (lost_nano >= 0)",),
    (
        "ALTER TABLE channels ADD COLUMN retired_at INTEGER",
        "UPDATE channels SET retired_at = CAST(strftime('%s', 'now') AS INTEGER) WHERE restored",
        "ALTER TABLE channels DROP COLUMN restored",
    ),
    (
        """CREATE TABLE evidence (
            role TEXT NOT NULL,
            peer TEXT NOT NULL,
            at INTEGER NOT NULL,
            body BLOB NOT NULL
        )""",
        "CREATE INDEX evidence_by_peer ON evidence (role, peer, at)",
    ),
    (
        """CREATE TABLE standing_quotes (
            role TEXT NOT NULL CHECK (role IN ('payer', 'payee')),
            quote BLOB NOT NULL CHECK (length(quote) = 32),
            body BLOB NOT NULL,
            uses_left INTEGER NOT NULL CHECK (uses_left >= 0),
            valid_until INTEGER NOT NULL,
            UNIQUE (role, quote)
        )""",
    ),
    (
        # Tokens that a payee gave away: by client in all (day 0), by address and day, by day.
        """CREATE TABLE given (
            who TEXT NOT NULL,
            day INTEGER NOT NULL,
            tokens INTEGER NOT NULL CHECK (tokens >= 0),
            PRIMARY KEY (who, day)
        ) WITHOUT ROWID""",
        "CREATE INDEX given_by_day ON given (day)",
    ),
    (
        """CREATE TABLE audits (
            role TEXT NOT NULL,
            peer TEXT NOT NULL,
            at INTEGER NOT NULL,
            cost_nano INTEGER NOT NULL CHECK (cost_nano >= 0),
            body BLOB NOT NULL
        )""",
        "CREATE INDEX audits_by_peer ON audits (role, peer, at)",
    ),
)


@contextmanager
def translated() -> Iterator[None]:
    """SQLite's errors are `BookUnusable`."""
    try:
        yield
    except sqlite3.Error as error:
        raise BookUnusable(f"the book cannot be used: {error}") from error


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """What is written inside becomes durable together at the end, or not at all; nobody else writes meanwhile."""
    with translated():
        db.execute("BEGIN IMMEDIATE")
        try:
            yield
            db.execute("COMMIT")
        finally:
            # Something was raised; SQLite itself has rolled back on some errors, a full disk for one.
            if db.in_transaction:
                db.execute("ROLLBACK")


@contextmanager
def open_to_write(path: Path, network: Network) -> Iterator[sqlite3.Connection]:
    """Make the file or bring it up to date. Raises `BookUnusable`, or `NetworkMismatch` for another network's."""
    with translated(), closing(_connect(path)) as db:
        with transaction(db):
            _migrate(db)
        with transaction(db):
            if _network(db) is None:
                db.execute("INSERT INTO network (name, global_id) VALUES (?, ?)", astuple(network))
            _require_network(db, network)
        yield db


@contextmanager
def open_to_read(path: Path, network: Network) -> Iterator[sqlite3.Connection]:
    """As it is, also while others write to it; no file yet is an empty book.

    Raises `BookUnusable`, also for a file that an older version left, and `NetworkMismatch`.
    """
    if not path.exists():
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
            _migrate(db)
            yield db
        return
    # By its URI and not by its permissions: to read what a killed owner left, SQLite must write its side files.
    with translated(), closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        version = _version(db)
        if version != len(MIGRATIONS):
            raise BookUnusable(f"the book has version {version} and not {len(MIGRATIONS)}: let its owner open it once")
        _require_network(db, network)
        yield db


def _migrate(db: sqlite3.Connection) -> None:
    version = _version(db)
    if version > len(MIGRATIONS):
        raise BookUnusable(f"the book has version {version}, this program knows {len(MIGRATIONS)}")
    for statement in (text for step in MIGRATIONS[version:] for text in step):
        db.execute(statement)
    db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def _version(db: sqlite3.Connection) -> int:
    ((version,),) = db.execute("PRAGMA user_version")
    return int(version)


def _network(db: sqlite3.Connection) -> Network | None:
    return next((Network(*row) for row in db.execute("SELECT name, global_id FROM network")), None)


def _require_network(db: sqlite3.Connection, network: Network) -> None:
    known = _network(db)
    if known != network:
        raise NetworkMismatch(f"the book was begun on {known.name if known else 'none'} and not on {network.name}")


def _connect(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode, so that only `batch` decides what a transaction is."""
    db = connect(path)
    try:
        _switch_to_wal(db)
        db.execute("PRAGMA synchronous = FULL")
    except BaseException:
        db.close()
        raise
    return db


def _switch_to_wal(db: sqlite3.Connection) -> None:
    """SQLite waits for its turn to write, and not for its turn to switch: two may make a new file at once."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(SWITCH_POLL_S)
        else:
            return
