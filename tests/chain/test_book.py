"""The durable book: monotone, bound to one network and one owner, whole after a kill at any moment."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain import locks, schema
from chain.book import EVIDENCE_PER_PEER, Book
from chain.channel import State
from chain.errors import BookUnusable, ChannelUnusable, NetworkMismatch
from chain.ledger import ChannelTerms, Network
from chain.purse import DAY_S
from chain.records import Channel, DayFees, Earning, Receipt, Role, Settlement, StandingQuote, open_records
from chain.schema import MIGRATIONS
from chain.voucher import Claim

DEVNET = Network("devnet", -239)
CHANNEL = bytes(range(32))


def terms(salt: int = 1) -> ChannelTerms:
    return ChannelTerms(
        payer="0:" + "aa" * 32,
        payee="0:" + "bb" * 32,
        payer_key=b"\1" * 32,
        payee_key=b"\2" * 32,
        challenge_period_s=3600,
        open_before=2_000_000_000,
        salt=salt.to_bytes(32, "big"),
    )


def claim(amount_nano: int, channel: bytes = CHANNEL) -> Claim:
    return Claim(channel, amount_nano, amount_nano.to_bytes(64, "big"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "book.sqlite"


@pytest.fixture
def book(path: Path) -> Iterator[Book]:
    with Book(path, "payer", DEVNET) as book:
        book.add_channel(CHANNEL, terms(), "12D3KooWPeer")
        yield book


def reopened(path: Path, role: Role = "payer") -> Channel:
    with Book(path, role, DEVNET) as book:
        return book.channel(CHANNEL)


def test_what_was_saved_is_there_after_reopening(path: Path) -> None:
    with Book(path, "payer", DEVNET) as book:
        book.add_channel(CHANNEL, terms(), "12D3KooWPeer")
        book.save_deposited(CHANNEL, 900)
        book.save_claim(claim(300))
        book.save_delivered(CHANNEL, 310)
        book.save_settled(CHANNEL, 200)
        book.save_lost(CHANNEL, 7)
        book.save_released(CHANNEL, 300, b"release")
    assert reopened(path) == Channel(
        channel=CHANNEL,
        peer="12D3KooWPeer",
        terms=terms(),
        state=State.RELEASED,
        deposited_nano=900,
        authorised_nano=300,
        signature=claim(300).signature,
        delivered_nano=310,
        settled_nano=200,
        released_nano=300,
        release_signature=b"release",
        lost_nano=7,
    )


@settings(max_examples=25, deadline=None)
@given(amounts=st.lists(st.integers(0, 2**63 - 1), max_size=6))
def test_amounts_only_rise(tmp_path_factory: pytest.TempPathFactory, amounts: list[int]) -> None:
    with Book(tmp_path_factory.mktemp("book") / "b", "payee", DEVNET) as book:
        book.add_channel(CHANNEL, terms(), "peer")
        for amount in amounts:
            book.save_claim(claim(amount))
            book.save_delivered(CHANNEL, amount)
            book.save_settled(CHANNEL, amount)
            book.save_lost(CHANNEL, amount)
            book.save_deposited(CHANNEL, amount)
        known = book.channel(CHANNEL)
    highest = max(amounts, default=0)
    assert (known.authorised_nano, known.delivered_nano, known.settled_nano, known.deposited_nano) == (highest,) * 4
    assert known.lost_nano == highest
    assert known.claim == (claim(highest) if highest else None)


def test_a_released_channel_takes_no_more_vouchers(book: Book) -> None:
    book.save_deposited(CHANNEL, 900)
    book.save_claim(claim(300))
    book.save_released(CHANNEL, 300)
    with pytest.raises(ChannelUnusable, match="no more vouchers"):
        book.save_claim(claim(301))
    assert book.channel(CHANNEL).authorised_nano == 300


def test_a_release_may_be_repeated_but_not_changed(book: Book) -> None:
    book.save_released(CHANNEL, 300)
    book.save_released(CHANNEL, 300, b"the payee's")
    with pytest.raises(ChannelUnusable, match="released or closed before"):
        book.save_released(CHANNEL, 299)
    assert book.channel(CHANNEL).release_signature == b"the payee's"


def test_a_closing_channel_still_keeps_a_voucher_and_a_closed_one_does_not(book: Book) -> None:
    book.save_state(CHANNEL, State.CLOSING)
    book.save_claim(claim(5))
    assert book.channel(CHANNEL).authorised_nano == 5
    book.save_state(CHANNEL, State.CLOSED)
    with pytest.raises(ChannelUnusable):
        book.save_claim(claim(6))
    with pytest.raises(ChannelUnusable):
        book.save_released(CHANNEL, 6)


def test_a_payer_signs_nothing_more_on_a_channel_from_a_backup_and_a_payee_may_still_be_paid(path: Path) -> None:
    roles: tuple[tuple[Role, Path], ...] = (("payer", path), ("payee", path.with_name("sold.sqlite")))
    for role, role_path in roles:
        with Book(role_path, role, DEVNET) as book:
            book.add_channel(CHANNEL, terms(), "peer")
            book.save_claim(claim(5))
            book.retire_all(1000)
            book.add_channel(b"\x09" * 32, terms(2), "peer")
    with Book(path, "payer", DEVNET) as book:
        assert [known.retired_at for known in book.channels()] == [1000, None]
        with pytest.raises(ChannelUnusable):
            book.save_claim(claim(6))
        book.save_state(CHANNEL, State.CLOSING)
        assert book.channel(CHANNEL).retired
        book.save_claim(claim(6, b"\x09" * 32))
    with Book(path.with_name("sold.sqlite"), "payee", DEVNET) as book:
        book.save_claim(claim(6))
        assert (book.channel(CHANNEL).authorised_nano, book.channel(CHANNEL).retired) == (6, True)


def test_a_payer_keeps_what_it_is_shown_to_have_signed_before_a_release(path: Path) -> None:
    with Book(path, "payer", DEVNET) as book:
        book.add_channel(CHANNEL, terms(), "peer")
        book.save_deposited(CHANNEL, 900)
        assert book.channel(CHANNEL).usable
        book.retire(CHANNEL, 1000)
        assert not book.channel(CHANNEL).usable
        book.save_claim(claim(7), shown=True)
        book.save_released(CHANNEL, 7, b"r" * 64)
        with pytest.raises(ChannelUnusable):
            book.save_claim(claim(8), shown=True)
    with Book(path, "payer", DEVNET) as book:
        known = book.channel(CHANNEL)
        assert (known.claim, known.retired_at, known.released_nano) == (claim(7), 1000, 7)


def test_a_payee_may_take_up_a_channel_as_one_that_it_has_forgotten(path: Path) -> None:
    with Book(path, "payee", DEVNET) as book:
        book.add_channel(CHANNEL, terms(), "peer", retired_at=1000)
        book.save_claim(claim(5))
    with Book(path, "payee", DEVNET) as book:
        assert (book.channel(CHANNEL).retired_at, book.channel(CHANNEL).claim) == (1000, claim(5))


def test_a_stale_look_at_the_chain_reopens_nothing(book: Book) -> None:
    book.save_state(CHANNEL, State.CLOSED)
    book.save_state(CHANNEL, State.OPEN)
    book.save_deposited(CHANNEL, 900)
    assert book.channel(CHANNEL).state is State.CLOSED
    assert not book.open_channels()
    assert [known.channel for known in book.channels()] == [CHANNEL]


def test_a_channel_and_a_payers_salt_are_used_once(book: Book) -> None:
    with pytest.raises(ChannelUnusable, match="used before"):
        book.add_channel(CHANNEL, terms(2), "peer")
    with pytest.raises(ChannelUnusable, match="used before"):
        book.add_channel(bytes(32), terms(1), "peer")
    book.add_channel(bytes(32), terms(2), "peer")
    assert len(book.open_channels()) == 2


def test_a_strangers_choice_of_salt_does_not_shut_out_another_payer(path: Path) -> None:
    with Book(path, "payee", DEVNET) as book:
        book.add_channel(CHANNEL, terms(1), "one")
        book.add_channel(bytes(32), terms(1), "other")
        assert len(book.channels()) == 2


def test_an_unknown_channel_is_unusable(book: Book) -> None:
    for use in (book.channel, lambda name: book.save_claim(claim(1, name)), lambda name: book.save_settled(name, 1)):
        with pytest.raises(ChannelUnusable, match="not in the payer's book"):
            use(bytes(32))


def test_a_batch_is_kept_whole_or_not_at_all(book: Book) -> None:
    def save_two() -> None:
        with book.batch():
            book.save_claim(claim(300))
            book.save_settled(bytes(32), 1)

    with pytest.raises(ChannelUnusable):
        save_two()
    assert book.channel(CHANNEL).authorised_nano == 0


def test_receipts_are_kept_as_received_and_the_fuller_one_replaces(book: Book) -> None:
    half = Receipt(b"session", "peer", b"one signature", 7, 100)
    full = Receipt(b"session", "peer", b"both signatures", 7, 101)
    other = Receipt(b"session", "another peer", b"its own", 9, 50)
    for receipt in (half, other, full):
        book.save_receipt(receipt)
    assert book.receipts() == [other, full]


NOON = 1_795_348_800  # 2026-11-22, 12:00 UTC
MIDNIGHT = NOON + 12 * 3600


def sold(book: Book, at: int, cost: int, total: int, model: str = "silk", channel: bytes = CHANNEL) -> None:
    """A receipt for an answer after which `total` was delivered on the channel."""
    session = f"{channel.hex()}{total}".encode()
    book.save_receipt(Receipt(session, "peer", b"signed", cost, at, model, channel, total))


def test_earnings_are_summed_by_day_and_model_and_the_first_answers_are_settled_first(book: Book) -> None:
    sold(book, NOON, 60, 60)
    sold(book, MIDNIGHT - 1, 40, 100)
    sold(book, MIDNIGHT - 1, 30, 130, model="moth")
    sold(book, MIDNIGHT, 20, 150)
    assert [each.settled_nano for each in book.earnings()] == [0, 0, 0]
    book.save_settled(CHANNEL, 120)
    assert book.earnings() == [
        Earning("2026-11-22", "moth", 1, 30, 20),
        Earning("2026-11-22", "silk", 2, 100, 100),
        Earning("2026-11-23", "silk", 1, 20, 0),
    ]
    book.save_settled(CHANNEL, 1000)
    assert [each.settled_nano for each in book.earnings()] == [30, 100, 20]


def test_each_channel_settles_its_own_answers(book: Book) -> None:
    book.add_channel(bytes(32), terms(2), "peer")
    sold(book, NOON, 60, 60)
    sold(book, NOON, 70, 70, channel=bytes(32))
    book.save_settled(bytes(32), 65)
    assert book.earnings() == [Earning("2026-11-22", "silk", 2, 130, 65)]


def test_settlements_bring_their_amount_and_their_fee_is_kept_by_day(book: Book) -> None:
    assert book.fees() == []
    assert book.last_fee() is None
    book.save_settlement(Settlement(CHANNEL, 300, 1_100, NOON, "the payer started to close"))
    book.save_settlement(Settlement(CHANNEL, 400, 1_200, NOON, "more is unsettled than the limit"))
    book.save_settlement(Settlement(CHANNEL, 350, 900, MIDNIGHT, "late"))
    assert book.fees() == [DayFees("2026-11-22", 2, 2_300), DayFees("2026-11-23", 1, 900)]
    assert book.last_fee() == 900
    assert book.channel(CHANNEL).settled_nano == 400


def test_the_book_knows_since_when_something_is_unsettled(book: Book) -> None:
    assert book.unsettled_since(CHANNEL) is None
    sold(book, NOON, 60, 60)
    sold(book, NOON + 5, 40, 100)
    assert book.unsettled_since(CHANNEL) == NOON
    book.save_settled(CHANNEL, 60)
    assert book.unsettled_since(CHANNEL) == NOON + 5
    book.save_settled(CHANNEL, 100)
    assert book.unsettled_since(CHANNEL) is None


def test_the_roles_do_not_see_each_other(book: Book, path: Path) -> None:
    with Book(path, "payee", DEVNET) as payee:
        assert not payee.channels()
        payee.add_channel(CHANNEL, terms(), "peer")
        payee.save_claim(claim(5))
        assert book.channel(CHANNEL).authorised_nano == 0


def test_a_payees_book_has_one_owner(book: Book, path: Path) -> None:
    with Book(path, "payee", DEVNET), pytest.raises(BookUnusable, match="held by another process"):
        Book(path, "payee", DEVNET)
    with Book(path, "payee", DEVNET):
        pass


def test_a_payers_book_may_be_open_in_several_processes_and_is_one(book: Book, path: Path) -> None:
    with Book(path, "payer", DEVNET) as other:
        book.save_claim(claim(5))
        other.save_claim(claim(7))
        book.save_claim(claim(6))
        assert book.channel(CHANNEL) == other.channel(CHANNEL)
        assert book.channel(CHANNEL).claim == claim(7)
        lease = book.leases.take(CHANNEL)
        assert lease is not None
        assert other.leases.held(CHANNEL)
        lease.release()


def test_a_payers_book_is_refused_to_a_program_that_shares_none(path: Path) -> None:
    """Older ones take the whole lock, and so they are kept apart."""
    lock = locks.take(path.with_name("book.sqlite.payer.lock"))
    assert lock is not None
    with lock, pytest.raises(BookUnusable, match="held by another process"):
        Book(path, "payer", DEVNET)
    with Book(path, "payer", DEVNET):
        assert locks.take(path.with_name("book.sqlite.payer.lock")) is None


def test_a_new_book_may_be_made_by_several_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one switches the file over while the other has begun to: SQLite gives up at once."""
    path.touch(0o600)
    waits: list[float] = []
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        def sleep(wait_s: float) -> None:
            waits.append(wait_s)
            other.execute("ROLLBACK")

        monkeypatch.setattr("chain.schema.time.sleep", sleep)
        with Book(path, "payer", DEVNET) as book:
            assert book.channels() == []
    assert len(waits) == 1


def test_a_book_can_be_read_while_its_owner_has_it(book: Book, path: Path) -> None:
    book.save_claim(claim(5))
    with open_records(path, "payer", DEVNET) as records:
        assert [known.authorised_nano for known in records.channels()] == [5]
        book.save_claim(claim(6))
        assert records.channel(CHANNEL).authorised_nano == 6
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            records._db.execute("DELETE FROM channels")
    with pytest.raises(NetworkMismatch), open_records(path, "payer", Network("mainnet", -239)):
        pass
    book.close()
    with open_records(path, "payer", DEVNET) as records:
        assert records.channel(CHANNEL).authorised_nano == 6


def test_no_book_yet_reads_as_an_empty_one_and_an_old_one_is_left_alone(path: Path) -> None:
    with open_records(path, "payee", DEVNET) as records:
        assert (records.channels(), records.receipts(), records.earnings(), records.fees()) == ([], [], [], [])
    assert not path.exists()
    version_1(path)
    with pytest.raises(BookUnusable, match="version 1"), open_records(path, "payee", DEVNET):
        pass
    path.write_bytes(b"a poem " * 1000)
    with pytest.raises(BookUnusable, match="not a database"), open_records(path, "payee", DEVNET):
        pass


def test_evidence_is_kept_by_peer_in_bounded_room_and_the_oldest_goes(book: Book, path: Path) -> None:
    for number in range(EVIDENCE_PER_PEER + 3):
        book.save_evidence("one", NOON + number, bytes([number]))
    book.save_evidence("two", NOON - 1, b"other")
    book.save_evidence("one", NOON, b"late")  # it is among the oldest, and goes at once
    kept = [bytes([number]) for number in range(3, EVIDENCE_PER_PEER + 3)]
    with open_records(path, "payer", DEVNET) as records:
        assert records.evidence({"one"}) == [("one", body) for body in kept]
        assert records.evidence({"two", "nobody"}) == [("two", b"other")]
        assert records.evidence() == [("two", b"other"), *(("one", body) for body in kept)]
    with open_records(path, "payee", DEVNET) as records:
        assert records.evidence() == []


def test_audits_are_kept_apart_as_long_as_their_cost_counts(book: Book, path: Path) -> None:
    for number in range(EVIDENCE_PER_PEER + 3):
        book.save_audit("one", NOON + number, 10, bytes([number]))
    book.save_audit("two", NOON - 1, 5, b"other")
    with open_records(path, "payer", DEVNET) as records:
        assert len(records.audits({"one"})) == EVIDENCE_PER_PEER + 3, "what they cost may still be asked"
        assert records.audits_cost_nano(NOON) == 10 * (EVIDENCE_PER_PEER + 3)
        assert records.audits_cost_nano(NOON - 1) == 10 * (EVIDENCE_PER_PEER + 3) + 5
        assert records.audits_cost_nano(NOON + DAY_S) == 0
        assert records.evidence() == []
    book.save_audit("one", NOON + 1 + DAY_S, 0, b"next day")
    kept = [bytes([number]) for number in range(1, EVIDENCE_PER_PEER + 3)]
    with open_records(path, "payer", DEVNET) as records:
        assert records.audits({"one"}) == [*(("one", body) for body in kept), ("one", b"next day")]
        assert records.audits({"two"}) == [("two", b"other")]


def test_files_are_for_the_owner_only(book: Book, path: Path) -> None:
    book.save_claim(claim(1))
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert {"book.sqlite", "book.sqlite-wal", "book.sqlite.payer.lock"} <= set(modes)
    assert set(modes.values()) == {0o600}


def test_a_book_belongs_to_one_network(book: Book, path: Path) -> None:
    with pytest.raises(NetworkMismatch, match="devnet"):
        Book(path, "payee", Network("mainnet", -239))
    with Book(path, "payee", DEVNET):
        pass


def test_a_file_that_is_no_book_is_refused_and_kept(path: Path) -> None:
    path.write_bytes(b"a poem, and not a short one: " * 100)
    with pytest.raises(BookUnusable, match="not a database"):
        Book(path, "payer", DEVNET)
    assert path.read_bytes().startswith(b"a poem")
    with pytest.raises(BookUnusable, match="No such file"):
        Book(path.parent / "none" / "book", "payer", DEVNET)


def test_a_book_of_a_newer_version_is_refused(path: Path) -> None:
    Book(path, "payer", DEVNET).close()
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    db.close()
    with pytest.raises(BookUnusable, match="this program knows"):
        Book(path, "payer", DEVNET)


def version_1(path: Path) -> None:
    """A book as the first version left it, with a channel and a receipt."""
    with closing(sqlite3.connect(path)) as db:
        for statement in MIGRATIONS[0]:
            db.execute(statement)
        db.execute("INSERT INTO network VALUES ('devnet', -239)")
        db.execute(
            "INSERT INTO channels VALUES ('payee', ?, 'peer', ?, ?, 'OPEN', 900, 300, ?, 310, 200, NULL, x'')",
            (CHANNEL, msgspec.msgpack.encode(terms()), terms().salt, claim(300).signature),
        )
        db.execute("INSERT INTO receipts VALUES ('payee', x'07', 'peer', x'0102', 310, ?)", (NOON,))
        db.execute("PRAGMA user_version = 1")
        db.commit()


def test_a_book_of_the_first_version_is_brought_up_to_date_with_all_that_is_in_it(path: Path) -> None:
    version_1(path)
    for _ in range(2):
        with Book(path, "payee", DEVNET) as book:
            known = book.channel(CHANNEL)
            assert known.terms == terms()
            assert (known.deposited_nano, known.authorised_nano, known.settled_nano) == (900, 300, 200)
            assert known.claim == claim(300)
            assert not known.retired
            assert known.lost_nano == 0
            assert book.receipts() == [Receipt(b"\x07", "peer", b"\1\2", 310, NOON)]
            assert book.earnings() == [Earning("2026-11-22", "", 1, 310, 0)]
            assert book.fees() == []
    with Book(path, "payee", DEVNET) as book:
        sold(book, MIDNIGHT, 50, 360)
        book.save_settlement(Settlement(CHANNEL, 360, 7, MIDNIGHT, "now"))
        assert book.earnings()[1] == Earning("2026-11-23", "silk", 1, 50, 50)


def test_what_an_older_version_marked_as_restored_counts_from_when_its_book_is_brought_up_to_date(path: Path) -> None:
    version_1(path)
    with closing(sqlite3.connect(path)) as db:
        for statement in (text for step in MIGRATIONS[1:4] for text in step):
            db.execute(statement)
        db.execute("UPDATE channels SET restored = 1")
        db.execute("PRAGMA user_version = 4")
        db.commit()
    before = int(time.time())
    with Book(path, "payee", DEVNET) as book:
        retired_at = book.channel(CHANNEL).retired_at
        assert retired_at is not None
        assert before <= retired_at <= time.time()
        assert book.channel(CHANNEL).claim == claim(300)


def test_a_migration_that_is_broken_off_leaves_the_old_book(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version_1(path)
    monkeypatch.setattr("chain.schema.MIGRATIONS", (*MIGRATIONS, ("no SQL at all",)))
    with pytest.raises(BookUnusable):
        Book(path, "payee", DEVNET)
    monkeypatch.undo()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
    assert reopened(path, "payee").authorised_nano == 300


def test_migrations_run_once_each_and_keep_what_is_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Book(path, "payer", DEVNET) as book:
        book.add_channel(CHANNEL, terms(), "peer")
    grown = (*MIGRATIONS, ("ALTER TABLE channels ADD COLUMN note TEXT NOT NULL DEFAULT ''",))
    monkeypatch.setattr("chain.schema.MIGRATIONS", grown)
    for _ in range(2):
        assert reopened(path).peer == "peer"
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA user_version").fetchone() == (len(grown),)
    db.close()


def test_a_full_disk_is_reported_and_nothing_is_half_kept(book: Book) -> None:
    book.save_claim(claim(1))
    book._db.execute("PRAGMA max_page_count = 1")
    with pytest.raises(BookUnusable, match="full"):
        book.save_receipt(Receipt(b"session", "peer", bytes(100_000), 1, 1))
    book._db.execute("PRAGMA max_page_count = 100000")
    book.save_claim(claim(2))
    assert (book.channel(CHANNEL).authorised_nano, book.receipts()) == (2, [])


def test_standing_quotes_are_counted_down_given_back_and_forgotten(path: Path) -> None:
    one, other = (StandingQuote(bytes([n]) * 32, b"body", uses_left=2, valid_until=100 * n) for n in (1, 2))
    with Book(path, "payer", DEVNET) as book:
        for quote in (one, other):
            book.save_standing_quote(quote, now=0)
        assert book.standing_quotes(now=0) == [one, other]
        assert book.standing_quotes(now=100) == [other]
        assert [book.use_standing_quote(one.quote) for _ in range(3)] == [True, True, False]
        assert book.standing_quotes(now=0) == [other]
        assert book.use_standing_quote(other.quote, b"news")
        book.give_back_standing_quote(other.quote)
        assert book.standing_quotes(now=0) == [msgspec.structs.replace(other, body=b"news")]
        other = msgspec.structs.replace(other, body=b"news")
        book.give_back_standing_quote(one.quote)
    with Book(path, "payer", DEVNET) as book:
        assert book.standing_quotes(now=0) == [msgspec.structs.replace(one, uses_left=1), other]
        book.forget_standing_quote(other.quote)
        assert [left.quote for left in book.standing_quotes(now=0)] == [one.quote]
        book.save_standing_quote(other, now=100)
        assert not book.use_standing_quote(one.quote), "it was over, and is forgotten"
    with Book(path, "payee", DEVNET) as book:
        assert book.standing_quotes(now=0) == [], "those are the payer's"
        assert not book.use_standing_quote(other.quote)


# Says what it has saved, so that the parent can compare: a number on the pipe is a promise.
WRITER = """
import sys
from pathlib import Path
from chain import locks
from chain.book import Book
from chain.ledger import Network
from chain.voucher import Claim
book = Book(Path(sys.argv[1]), "payer", Network("devnet", -239))
channel = bytes(range(32))
amount = book.channel(channel).authorised_nano
while True:
    amount += 1
    with book.batch():
        book.save_claim(Claim(channel, amount, amount.to_bytes(64, "big")))
        book.save_delivered(channel, amount)
    print(amount, flush=True)
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_loses_nothing_that_was_promised(path: Path) -> None:
    with Book(path, "payer", DEVNET) as book:
        book.add_channel(CHANNEL, terms(), "peer")
    for rounds in range(1, 6):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for _ in range(rounds * 7):
                child.stdout.readline()
            os.kill(child.pid, signal.SIGKILL)
            promised = [int(line) for line in child.stdout.read().splitlines() if line]
        known = reopened(path)
        assert known.authorised_nano >= max(promised, default=rounds * 7)
        assert known.delivered_nano == known.authorised_nano
        assert known.claim == claim(known.authorised_nano)


def test_a_book_in_a_folder_that_is_not_there_is_one_clear_line(path: Path) -> None:
    nowhere = path.parent / "none" / path.name
    with pytest.raises(BookUnusable, match=r"^cannot create .*/none/.*: No such file or directory$"):
        Book(nowhere, "payer", DEVNET)
    with (
        pytest.raises(BookUnusable, match=r"^the book cannot be used: unable to open database file$"),
        schema.open_to_write(nowhere, DEVNET),
    ):
        pass
    assert not nowhere.parent.exists()
