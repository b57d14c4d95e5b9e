"""The durable book: what one side knows of its channels, on disk before anything is done because of it.

SQLite in WAL mode with `synchronous=FULL`: what a `save_*` call returned from survives a power cut, and a process
killed anywhere leaves a book that opens. Amounts only rise: a lower one that arrives late changes nothing.

A `Book` has one role and holds that role's lock file while it is open, so that no two processes sign for one channel.
It belongs to one thread at a time: a Trio program uses it through `chain.keeper.BookKeeper`, its one owner.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import msgspec
from msgspec.structs import astuple, replace

from chain.channel import State
from chain.errors import BookUnusable, ChannelUnusable, NetworkMismatch
from chain.ledger import ChannelTerms, Network
from chain.voucher import Claim

Role = Literal["payer", "payee"]

BUSY_TIMEOUT_S = 10.0  # the other role's process may be committing

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
)


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """One channel as this side knows it. Authorised, delivered and settled are three amounts and stay apart."""

    channel: bytes  # 32-byte account id
    peer: str  # libp2p id of the other side
    terms: ChannelTerms
    state: State = State.UNFUNDED
    deposited_nano: int = 0  # confirmed on chain
    authorised_nano: int = 0  # the highest voucher that was signed (payer) or accepted (payee)
    signature: bytes = b""  # of that voucher; empty while there is none
    delivered_nano: int = 0  # the value of the answers that came in (payer) or went out (payee)
    settled_nano: int = 0  # paid out on chain
    released_nano: int | None = None  # where the payee lets the payer close; once set, no voucher is signed or accepted
    release_signature: bytes = b""  # the payee's, kept by the payer so that it can close after a restart
    restored: bool = False  # known from a backup: what was signed since is not in the book, so it is only closed

    @property
    def claim(self) -> Claim | None:
        """The highest voucher, ready to be sent or to be carried to the chain."""
        return Claim(self.channel, self.authorised_nano, self.signature) if self.signature else None


class Receipt(msgspec.Struct, frozen=True):
    """A session's receipt: the signed bytes as they were received, never encoded again."""

    session: bytes
    peer: str
    signed: bytes
    cost_nano: int
    at: int  # unix seconds
    model: str = ""  # this and what follows are not known of receipts from books of version 1 and 2
    channel: bytes = b""
    channel_total_nano: int = 0  # delivered over the channel in all, this answer included


class Settlement(msgspec.Struct, frozen=True):
    """A voucher that we carried to the chain."""

    channel: bytes
    settled_nano: int  # paid out in all afterwards
    fee_nano: int
    at: int  # unix seconds
    why: str


class Earning(msgspec.Struct, frozen=True):
    """What one model earned on one day (payee), or was paid (payer)."""

    day: str  # 2026-11-22, in UTC
    model: str
    answers: int
    earned_nano: int
    settled_nano: int  # the part of it that is paid out on chain, as far as the channels' totals tell


class DayFees(msgspec.Struct, frozen=True):
    """What it cost to carry one day's settlements to the chain."""

    day: str
    settlements: int
    fee_nano: int


class Records:
    """What is in a book, for one role. Any method raises `BookUnusable` when the file cannot be read."""

    def __init__(self, db: sqlite3.Connection, role: Role) -> None:
        self._db = db
        self.role: Role = role

    def channel(self, channel: bytes) -> Channel:
        """Raises `ChannelUnusable` if this role has none of that name."""
        rows = self._read(_CHANNELS + " AND channel = ?", self.role, channel)
        if not rows:
            raise ChannelUnusable(f"channel {channel.hex()} is not in the {self.role}'s book")
        return _channel(rows[0])

    def channels(self) -> Sequence[Channel]:
        """Every channel there ever was, oldest first."""
        return [_channel(row) for row in self._read(_CHANNELS + " ORDER BY rowid", self.role)]

    def open_channels(self) -> Sequence[Channel]:
        """Those not closed yet, oldest first: their money is, or may be, still on chain."""
        return [_channel(row) for row in self._read(_CHANNELS + " AND state <> 'CLOSED' ORDER BY rowid", self.role)]

    def receipts(self) -> Sequence[Receipt]:
        """Oldest first."""
        query = (
            "SELECT session, peer, signed, cost_nano, at, model, channel, channel_total_nano"
            " FROM receipts WHERE role = ? ORDER BY at, rowid"
        )
        return [Receipt(*row) for row in self._read(query, self.role)]

    def earnings(self) -> Sequence[Earning]:
        """By day and model, from the receipts. Of a channel's answers those that came first are settled first."""
        query = (
            "SELECT date(at, 'unixepoch') AS day, model, count(*), sum(cost_nano),"
            " coalesce(sum(max(0, min(cost_nano, settled_nano - channel_total_nano + cost_nano))), 0)"
            " FROM receipts LEFT JOIN channels USING (role, channel) WHERE role = ?"
            " GROUP BY day, model ORDER BY day, model"
        )
        return [Earning(*row) for row in self._read(query, self.role)]

    def fees(self) -> Sequence[DayFees]:
        """What settling cost us, by day."""
        query = (
            "SELECT date(at, 'unixepoch') AS day, count(*), sum(fee_nano)"
            " FROM settlements WHERE role = ? GROUP BY day ORDER BY day"
        )
        return [DayFees(*row) for row in self._read(query, self.role)]

    def last_fee(self) -> int | None:
        """What the last settlement cost, in nano; `None` before the first."""
        query = "SELECT fee_nano FROM settlements WHERE role = ? ORDER BY rowid DESC LIMIT 1"
        return next((int(fee_nano) for (fee_nano,) in self._read(query, self.role)), None)

    def unsettled_since(self, channel: bytes) -> int | None:
        """When the first answer that is not settled was given, unix seconds; `None` if a receipt tells of none."""
        query = (
            "SELECT min(at) FROM receipts JOIN channels USING (role, channel)"
            " WHERE role = ? AND channel = ? AND channel_total_nano > settled_nano"
        )
        ((at,),) = self._read(query, self.role, channel)
        return None if at is None else int(at)

    def _read(self, query: str, *values: object) -> list[Any]:
        with _translated():
            return self._db.execute(query, values).fetchall()


@contextmanager
def open_records(path: Path, role: Role, network: Network) -> Iterator[Records]:
    """To read only, also while the owner has it open and writes to it; no file yet is an empty book.

    Raises `BookUnusable`, also for a file that an older version left, and `NetworkMismatch`.
    """
    if not path.exists():
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
            for statement in (text for step in MIGRATIONS for text in step):
                db.execute(statement)
            yield Records(db, role)
        return
    # By its URI and not by its permissions: to read what a killed owner left, SQLite must write its side files.
    with _translated(), closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        records = Records(db, role)
        ((version,),) = records._read("PRAGMA user_version")
        if version != len(MIGRATIONS):
            raise BookUnusable(f"the book has version {version} and not {len(MIGRATIONS)}: let its owner open it once")
        _require_network(records._read("SELECT name, global_id FROM network"), network)
        yield records


class Book(Records):
    """One role's channels and receipts. A context manager; `close` gives the role's lock back.

    Any method raises `BookUnusable` when the file cannot be read or written; nothing of that call is kept then.
    """

    def __init__(self, path: Path, role: Role, network: Network) -> None:
        """Open or create `path`. Raises `NetworkMismatch` if it was begun on another network."""
        with _translated(), ExitStack() as undo:
            lock = _lock(path.with_name(f"{path.name}.{role}.lock"))
            undo.callback(os.close, lock)
            super().__init__(undo.enter_context(closing(_connect(path))), role)
            self._migrate()
            self._bind(network)
            self._held = undo.pop_all()

    def close(self) -> None:
        """Close the file and let another process have the role."""
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def batch(self) -> Iterator[None]:
        """What is written inside becomes durable together at the end, or not at all."""
        with _translated():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            finally:
                # Something was raised; SQLite itself has rolled back on some errors, a full disk for one.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    @contextmanager
    def part(self) -> Iterator[None]:
        """Inside a batch: what raises in here is undone alone."""
        with _translated():
            self._db.execute("SAVEPOINT part")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK TO part")
                raise
            finally:
                self._db.execute("RELEASE part")

    def add_channel(self, channel: bytes, terms: ChannelTerms, peer: str) -> None:
        """Begin a channel: the payer before it deploys one, the payee before it serves over one.

        Raises `ChannelUnusable` if the channel, or with a payer its salt, was ever in this book.
        """
        new = Channel(channel=channel, peer=peer, terms=terms)
        with self._write():
            query = "SELECT 1 FROM channels WHERE role = ? AND (channel = ? OR (salt = ? AND role = 'payer'))"
            if self._read(query, self.role, channel, terms.salt):
                raise ChannelUnusable(f"channel {channel.hex()} or its salt was used before")
            self._db.execute(
                "INSERT INTO channels (channel, peer, terms, state, deposited_nano, authorised_nano, signature,"
                " delivered_nano, settled_nano, released_nano, release_signature, restored, role, salt)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*_row(new), self.role, terms.salt),
            )

    def save_deposited(self, channel: bytes, amount_nano: int) -> None:
        """The chain shows a deposit of `amount_nano` in all, so the channel is at least open."""
        with self._write():
            known = self.channel(channel)
            deposited_nano = max(known.deposited_nano, amount_nano)
            self._store(replace(known, state=_later(known.state, State.OPEN), deposited_nano=deposited_nano))

    def save_claim(self, claim: Claim) -> None:
        """A voucher: the payer calls this before it sends one, the payee before it counts on one.

        Raises `ChannelUnusable` once the channel was released or closed, and to a payer whose book came from a backup:
        it does not know what it has signed since. While a channel is closing a voucher is still worth keeping: the
        payee may settle with it.
        """
        with self._write():
            known = self.channel(claim.channel)
            forgotten = known.restored and self.role == "payer"
            if known.released_nano is not None or known.state is State.CLOSED or forgotten:
                raise ChannelUnusable(f"channel {claim.channel.hex()} takes no more vouchers")
            if claim.amount_nano > known.authorised_nano:
                self._store(replace(known, authorised_nano=claim.amount_nano, signature=claim.signature))

    def save_delivered(self, channel: bytes, amount_nano: int) -> None:
        """Answers worth `amount_nano` in all were delivered over the channel."""
        with self._write():
            known = self.channel(channel)
            self._store(replace(known, delivered_nano=max(known.delivered_nano, amount_nano)))

    def save_settled(self, channel: bytes, amount_nano: int) -> None:
        """The chain has paid out `amount_nano` in all."""
        with self._write():
            known = self.channel(channel)
            self._store(replace(known, settled_nano=max(known.settled_nano, amount_nano)))

    def save_settlement(self, settlement: Settlement) -> None:
        """We carried a voucher to the chain: what it brought is settled, and what it cost is kept."""
        with self._write():
            self.save_settled(settlement.channel, settlement.settled_nano)
            self._db.execute(
                "INSERT INTO settlements (channel, settled_nano, fee_nano, at, why, role) VALUES (?, ?, ?, ?, ?, ?)",
                (*astuple(settlement), self.role),
            )

    def save_released(self, channel: bytes, amount_nano: int, signature: bytes = b"") -> None:
        """No more vouchers: the payee calls this before it signs a release, the payer when it got one (`signature`).

        Raises `ChannelUnusable` if another amount was released before, or the channel is closed.
        """
        with self._write():
            known = self.channel(channel)
            if known.state is State.CLOSED or known.released_nano not in (None, amount_nano):
                raise ChannelUnusable(f"channel {channel.hex()} was released or closed before")
            state = _later(known.state, State.RELEASED)
            self._store(replace(known, state=state, released_nano=amount_nano, release_signature=signature))

    def save_state(self, channel: bytes, state: State) -> None:
        """The channel has come as far as `state`; a stale look at the chain moves nothing back."""
        with self._write():
            known = self.channel(channel)
            self._store(replace(known, state=_later(known.state, state)))

    def mark_restored(self) -> None:
        """This book comes from a backup: the channels in it, of both roles, are only settled and closed from now on."""
        with self._write():
            self._db.execute("UPDATE channels SET restored = 1")

    def save_receipt(self, receipt: Receipt) -> None:
        """Keep a receipt. A later one of the same peer and session takes its place: the other signature came."""
        with self._write():
            self._db.execute(
                "INSERT INTO receipts (session, peer, signed, cost_nano, at, model, channel, channel_total_nano, role)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET signed = excluded.signed, cost_nano = excluded.cost_nano, at = excluded.at,"
                " channel_total_nano = excluded.channel_total_nano",
                (*astuple(receipt), self.role),
            )

    def _migrate(self) -> None:
        with self.batch():
            ((version,),) = self._read("PRAGMA user_version")
            if version > len(MIGRATIONS):
                raise BookUnusable(f"the book has version {version}, this program knows {len(MIGRATIONS)}")
            for statement in (text for step in MIGRATIONS[version:] for text in step):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    def _bind(self, network: Network) -> None:
        with self.batch():
            known = self._read("SELECT name, global_id FROM network")
            if not known:
                self._db.execute("INSERT INTO network (name, global_id) VALUES (?, ?)", astuple(network))
            else:
                _require_network(known, network)

    def _write(self) -> AbstractContextManager[None]:
        return nullcontext() if self._db.in_transaction else self.batch()

    def _store(self, channel: Channel) -> None:
        name, _, _, *rest = _row(channel)
        self._db.execute(
            "UPDATE channels SET state = ?, deposited_nano = ?, authorised_nano = ?, signature = ?,"
            " delivered_nano = ?, settled_nano = ?, released_nano = ?, release_signature = ?, restored = ?"
            " WHERE role = ? AND channel = ?",
            (*rest, self.role, name),
        )


_CHANNELS = (
    "SELECT channel, peer, terms, state, deposited_nano, authorised_nano, signature, delivered_nano, settled_nano,"
    " released_nano, release_signature, restored FROM channels WHERE role = ?"
)


def _row(channel: Channel) -> tuple[Any, ...]:
    name, peer, terms, state, *rest = astuple(channel)
    return name, peer, msgspec.msgpack.encode(terms), state.name, *rest


def _channel(row: tuple[Any, ...]) -> Channel:
    fields = dict(zip(Channel.__struct_fields__, row, strict=True))
    terms = msgspec.msgpack.decode(fields["terms"], type=ChannelTerms)
    return Channel(**fields | {"terms": terms, "state": State[fields["state"]], "restored": bool(fields["restored"])})


def _require_network(known: list[Any], network: Network) -> None:
    if known != [astuple(network)]:
        raise NetworkMismatch(f"the book was begun on {known[0][0]} and not on {network.name}")


def _later(one: State, other: State) -> State:
    """Members are in the order of a channel's life."""
    return max(one, other, key=lambda state: state.value)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise BookUnusable(f"the book cannot be used: {error}") from error


def _lock(path: Path) -> int:
    """The descriptor that holds the lock until it is closed; the file itself stays, or two could hold one each."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise BookUnusable(f"cannot create {path}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise BookUnusable(f"{path.parent} is held by another process: end it, or use another home") from error
    return descriptor


def _connect(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode, so that only `batch` decides what a transaction is."""
    # SQLite gives its side files the mode of the main file, so that one is made first. Only if it is new: to close
    # any descriptor of a file drops all POSIX locks that SQLite holds on it in this process.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_S)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
    except BaseException:
        db.close()
        raise
    return db
