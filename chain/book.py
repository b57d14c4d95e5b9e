"""The durable book: what one side knows of its channels, on disk before anything is done because of it.

What a `save_*` call returned from survives a power cut. Amounts only rise: a lower one that comes late changes nothing.

A `Book` has one role. A payee's is open in one process at a time, so that no two count on one voucher. A payer's may be
open in several, and each signs only for channels of which it holds the lease. A `Book` belongs to one thread at a time:
a Trio program uses it through `chain.keeper.BookKeeper`, its one owner.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
from msgspec.structs import astuple, replace

from chain import locks, schema
from chain.channel import State
from chain.errors import BookUnusable, ChannelUnusable
from chain.leases import Leases
from chain.ledger import ChannelTerms, Network
from chain.purse import DAY_S
from chain.records import Channel, Receipt, Records, Role, Settlement, StandingQuote
from chain.voucher import Claim

EVIDENCE_PER_PEER = 100


class Book(Records):
    """One role's channels and receipts. A context manager; `close` gives the role's lock back.

    Any method raises `BookUnusable` when the file cannot be read or written; nothing of that call is kept then.
    """

    def __init__(self, path: Path, role: Role, network: Network) -> None:
        """Open or create `path`. Raises `NetworkMismatch` if it was begun on another network."""
        lock = locks.take(path.with_name(f"{path.name}.{role}.lock"), shared=role == "payer")
        if lock is None:
            raise BookUnusable(f"{path.parent} is held by another process: end it, or use another home")
        with ExitStack() as undo:
            undo.enter_context(lock)
            super().__init__(undo.enter_context(schema.open_to_write(path, network)), role)
            self._held = undo.pop_all()
        self.leases = Leases(path.with_name(f"{path.name}.leases"))

    def close(self) -> None:
        """Close the file; a payee lets another process have the role."""
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def batch(self) -> AbstractContextManager[None]:
        """What is written inside becomes durable together at the end, or not at all."""
        return schema.transaction(self._db)

    @contextmanager
    def part(self) -> Iterator[None]:
        """Inside a batch: what raises in here is undone alone."""
        with schema.translated():
            self._db.execute("SAVEPOINT part")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK TO part")
                raise
            finally:
                self._db.execute("RELEASE part")

    def add_channel(self, channel: bytes, terms: ChannelTerms, peer: str, *, retired_at: int | None = None) -> None:
        """Begin a channel: the payer before it deploys one, the payee before it serves over one.

        `retired_at` is for a payee that finds that it served over it before, by a book that it has lost.
        Raises `ChannelUnusable` if the channel, or with a payer its salt, was ever in this book.
        """
        new = Channel(channel=channel, peer=peer, terms=terms, retired_at=retired_at)
        with self._write():
            query = "SELECT 1 FROM channels WHERE role = ? AND (channel = ? OR (salt = ? AND role = 'payer'))"
            if self._read(query, self.role, channel, terms.salt):
                raise ChannelUnusable(f"channel {channel.hex()} or its salt was used before")
            self._db.execute(
                "INSERT INTO channels (channel, peer, terms, state, deposited_nano, authorised_nano, signature,"
                " delivered_nano, settled_nano, released_nano, release_signature, retired_at, lost_nano, role, salt)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*_row(new), self.role, terms.salt),
            )

    def save_deposited(self, channel: bytes, amount_nano: int) -> None:
        """The chain shows a deposit of `amount_nano` in all, so the channel is at least open."""
        with self._write():
            known = self.channel(channel)
            deposited_nano = max(known.deposited_nano, amount_nano)
            self._store(replace(known, state=_later(known.state, State.OPEN), deposited_nano=deposited_nano))

    def save_claim(self, claim: Claim, *, shown: bool = False) -> None:
        """A voucher: the payer calls this before it sends one, the payee before it counts on one.

        Raises `ChannelUnusable` once the channel was released or closed, and to a payer once it is retired: it may not
        know what it has signed, unless it is `shown` it by the payee. While a channel is closing a voucher is still
        worth keeping: the payee may settle with it.
        """
        with self._write():
            known = self.channel(claim.channel)
            unknown = known.retired and self.role == "payer" and not shown
            if known.released_nano is not None or known.state is State.CLOSED or unknown:
                raise ChannelUnusable(f"channel {claim.channel.hex()} takes no more vouchers")
            if claim.amount_nano > known.authorised_nano:
                self._store(replace(known, authorised_nano=claim.amount_nano, signature=claim.signature))

    def save_delivered(self, channel: bytes, amount_nano: int) -> None:
        """Answers worth `amount_nano` in all were delivered over the channel."""
        with self._write():
            known = self.channel(channel)
            self._store(replace(known, delivered_nano=max(known.delivered_nano, amount_nano)))

    def save_lost(self, channel: bytes, amount_nano: int) -> None:
        """Sessions that died on the channel left `amount_nano` unpaid in all."""
        with self._write():
            known = self.channel(channel)
            self._store(replace(known, lost_nano=max(known.lost_nano, amount_nano)))

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

    def retire(self, channel: bytes, at: int) -> None:
        """The other side's book of it is incomplete: it is only settled and closed from now on."""
        with self._write():
            self._store(replace(self.channel(channel), retired_at=at))

    def retire_all(self, at: int) -> None:
        """This book comes from a backup: the channels in it, of both roles, are only settled and closed from now on."""
        with self._write():
            self._db.execute("UPDATE channels SET retired_at = ?", (at,))

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

    def save_evidence(self, peer: str, at: int, body: bytes) -> None:
        """Remember how a peer behaved, in its owner's own words. The oldest beyond `EVIDENCE_PER_PEER` is forgotten."""
        with self._write():
            self._db.execute(
                "INSERT INTO evidence (role, peer, at, body) VALUES (?, ?, ?, ?)", (self.role, peer, at, body)
            )
            self._db.execute(
                "DELETE FROM evidence WHERE rowid IN (SELECT rowid FROM evidence WHERE role = ? AND peer = ?"
                " ORDER BY at DESC, rowid DESC LIMIT -1 OFFSET ?)",
                (self.role, peer, EVIDENCE_PER_PEER),
            )

    def save_standing_quote(self, quote: StandingQuote, now: int) -> None:
        """Begin to count what a standing quote is good for. Those that are over are forgotten."""
        with self._write():
            self._db.execute("DELETE FROM standing_quotes WHERE uses_left = 0 OR valid_until <= ?", (now,))
            self._db.execute(
                "INSERT INTO standing_quotes (quote, body, uses_left, valid_until, role) VALUES (?, ?, ?, ?, ?)",
                (*astuple(quote), self.role),
            )

    def use_standing_quote(self, quote: bytes, body: bytes | None = None) -> bool:
        """One more answer begins under it, of which this is known by now; False if it is good for none."""
        query = (
            "UPDATE standing_quotes SET uses_left = uses_left - 1, body = coalesce(?, body)"
            " WHERE role = ? AND quote = ? AND uses_left > 0"
        )
        with self._write():
            return self._db.execute(query, (body, self.role, quote)).rowcount == 1

    def give_back_standing_quote(self, quote: bytes) -> None:
        """An answer under it did not begin after all."""
        with self._write():
            self._db.execute(
                "UPDATE standing_quotes SET uses_left = uses_left + 1 WHERE role = ? AND quote = ?", (self.role, quote)
            )

    def forget_standing_quote(self, quote: bytes) -> None:
        """Nobody honours it any more."""
        with self._write():
            self._db.execute("DELETE FROM standing_quotes WHERE role = ? AND quote = ?", (self.role, quote))

    def save_given(self, who: str, day: int, tokens: int) -> None:
        """So many more tokens are given away to these on that day (0: in all); below 0, so many fewer, if any are left
        that were not forgotten.
        """
        with self._write():
            if tokens > 0:
                new = "INSERT INTO given (who, day, tokens) VALUES (?, ?, 0) ON CONFLICT DO NOTHING"
                self._db.execute(new, (who, day))
            change = "UPDATE given SET tokens = max(0, tokens + ?) WHERE who = ? AND day = ?"
            self._db.execute(change, (tokens, who, day))

    def forget_given(self, before_day: int) -> None:
        """What was given on earlier days, but not what anybody was given in all."""
        with self._write():
            self._db.execute("DELETE FROM given WHERE day > 0 AND day < ?", (before_day,))

    def save_audit(self, peer: str, at: int, cost_nano: int, body: bytes) -> None:
        """Remember what an audit cost and came to, for as long as what it cost counts and among the latest of a peer.

        Audits are few and say more than answers do, which would soon crowd them out.
        """
        with self._write():
            self._db.execute(
                "INSERT INTO audits (role, peer, at, cost_nano, body) VALUES (?, ?, ?, ?, ?)",
                (self.role, peer, at, cost_nano, body),
            )
            self._db.execute(
                "DELETE FROM audits WHERE at < ? AND rowid IN (SELECT rowid FROM audits WHERE role = ? AND peer = ?"
                " ORDER BY at DESC, rowid DESC LIMIT -1 OFFSET ?)",
                (at - DAY_S, self.role, peer, EVIDENCE_PER_PEER),
            )

    def _write(self) -> AbstractContextManager[None]:
        return nullcontext() if self._db.in_transaction else self.batch()

    def _store(self, channel: Channel) -> None:
        name, _, _, *rest = _row(channel)
        self._db.execute(
            "UPDATE channels SET state = ?, deposited_nano = ?, authorised_nano = ?, signature = ?,"
            " delivered_nano = ?, settled_nano = ?, released_nano = ?, release_signature = ?, retired_at = ?,"
            " lost_nano = ? WHERE role = ? AND channel = ?",
            (*rest, self.role, name),
        )


def _row(channel: Channel) -> tuple[Any, ...]:
    name, peer, terms, state, *rest = astuple(channel)
    return name, peer, msgspec.msgpack.encode(terms), state.name, *rest


def _later(one: State, other: State) -> State:
    """Members are in the order of a channel's life."""
    return max(one, other, key=lambda state: state.value)
