"""What is in a book, and how it is read: channels, receipts, settlements, and what they add up to."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec

from chain import schema
from chain.channel import State
from chain.errors import ChannelUnusable
from chain.ledger import ChannelTerms, Network
from chain.voucher import Claim

Role = Literal["payer", "payee"]

_CHANNELS = (
    "SELECT channel, peer, terms, state, deposited_nano, authorised_nano, signature, delivered_nano, settled_nano,"
    " released_nano, release_signature, retired_at, lost_nano FROM channels WHERE role = ?"
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
    retired_at: int | None = None  # unix seconds; since then it carries nothing new, and is only settled and closed
    lost_nano: int = 0  # what sessions that died left unpaid (payee)

    @property
    def retired(self) -> bool:
        """Whether one side's book of it is incomplete, because of a backup that was brought back."""
        return self.retired_at is not None

    @property
    def usable(self) -> bool:
        """Whether answers may still be paid through it."""
        return self.state is State.OPEN and self.released_nano is None and not self.retired

    @property
    def free_nano(self) -> int:
        """What of the deposit is not signed away."""
        return self.deposited_nano - self.authorised_nano

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


class StandingQuote(msgspec.Struct, frozen=True):
    """One that this side holds (payer) or gave (payee)."""

    quote: bytes  # its 32-byte id
    body: bytes  # in its owner's own words
    uses_left: int  # answers that it is still good for
    valid_until: int  # unix seconds


class Earning(msgspec.Struct, frozen=True):
    """What one model earned on one day (payee), or was paid (payer)."""

    day: str  # 2026-11-22, in UTC
    model: str
    answers: int
    earned_nano: int
    settled_nano: int  # the part of it that is paid out on chain, as far as the channels' totals tell


def day_of(at: float) -> str:
    """Of unix time: 2026-11-22, in UTC."""
    return time.strftime("%Y-%m-%d", time.gmtime(at))


def of_day(earnings: Iterable[Earning], at: float) -> list[Earning]:
    """Those of the day of that unix time."""
    day = day_of(at)
    return [one for one in earnings if one.day == day]


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

    def paid_answers(self) -> tuple[int, int]:
        """How many answers have a receipt, and over how many channels they were paid."""
        query = (
            "SELECT count(*), count(DISTINCT channel) FROM receipts"
            " WHERE role = ? AND channel NOT IN (x'', zeroblob(32))"  # not known, and none because nothing was paid
        )
        ((answers, channels),) = self._read(query, self.role)
        return int(answers), int(channels)

    def fees(self) -> Sequence[DayFees]:
        """What settling cost us, by day."""
        query = (
            "SELECT date(at, 'unixepoch') AS day, count(*), sum(fee_nano)"
            " FROM settlements WHERE role = ? GROUP BY day ORDER BY day"
        )
        return [DayFees(*row) for row in self._read(query, self.role)]

    def evidence(self, peers: Collection[str] = ()) -> Sequence[tuple[str, bytes]]:
        """How these peers behaved, or all of them: each peer and what was saved of it, oldest first."""
        return self._told("evidence", peers)

    def audits(self, peers: Collection[str] = ()) -> Sequence[tuple[str, bytes]]:
        """What audits of these peers came to, or of all of them: as `evidence`."""
        return self._told("audits", peers)

    def audits_cost_nano(self, since: int) -> int:
        """What audits cost from then on, unix seconds."""
        query = "SELECT coalesce(sum(cost_nano), 0) FROM audits WHERE role = ? AND at >= ?"
        return next(int(nano) for (nano,) in self._read(query, self.role, since))

    def _told(self, table: str, peers: Collection[str]) -> Sequence[tuple[str, bytes]]:
        which = f" AND peer IN ({', '.join('?' * len(peers))})" if peers else ""
        query = f"SELECT peer, body FROM {table} WHERE role = ?{which} ORDER BY at, rowid"  # noqa: S608 - no input
        return [(peer, body) for peer, body in self._read(query, self.role, *peers)]

    def standing_quotes(self, now: int) -> Sequence[StandingQuote]:
        """Those that are good for another answer, oldest first."""
        query = (
            "SELECT quote, body, uses_left, valid_until FROM standing_quotes"
            " WHERE role = ? AND uses_left > 0 AND valid_until > ? ORDER BY rowid"
        )
        return [StandingQuote(*row) for row in self._read(query, self.role, now)]

    def given(self, who: str, day: int) -> int:
        """How many tokens were put down as given away to these, on that day."""
        rows = self._read("SELECT tokens FROM given WHERE who = ? AND day = ?", who, day)
        return next((int(tokens) for (tokens,) in rows), 0)

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
        with schema.translated():
            return self._db.execute(query, values).fetchall()


@contextmanager
def open_records(path: Path, role: Role, network: Network) -> Iterator[Records]:
    """To read only, also while others have it open and write to it. Raises as `schema.open_to_read`."""
    with schema.open_to_read(path, network) as db:
        yield Records(db, role)


def _channel(row: tuple[Any, ...]) -> Channel:
    fields = dict(zip(Channel.__struct_fields__, row, strict=True))
    terms = msgspec.msgpack.decode(fields["terms"], type=ChannelTerms)
    return Channel(**fields | {"terms": terms, "state": State[fields["state"]]})
