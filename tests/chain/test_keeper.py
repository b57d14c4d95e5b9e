"""Many tasks, one book: results are durable when they arrive, and one failure is nobody else's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from chain.book import Book
from chain.errors import BookUnusable, ChannelUnusable
from chain.keeper import BookKeeper
from chain.ledger import ChannelTerms, Network
from chain.voucher import Claim

CHANNELS = [bytes([number]) * 32 for number in range(20)]


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    with Book(tmp_path / "book", "payee", Network("devnet", -239)) as book:
        for channel in CHANNELS:
            terms = ChannelTerms(
                payer="0:" + "aa" * 32,
                payee="0:" + "bb" * 32,
                payer_key=bytes(32),
                payee_key=bytes(32),
                challenge_period_s=60,
                open_before=0,
                salt=channel,
            )
            book.add_channel(channel, terms, "peer")
        yield book


async def test_work_that_comes_together_shares_commits(book: Book) -> None:
    keeper = BookKeeper(book)
    commits = 0

    def count(statement: str) -> None:
        nonlocal commits
        commits += statement == "COMMIT"

    book._db.set_trace_callback(count)

    async def save(channel: bytes) -> None:
        for amount in range(1, 6):
            await keeper.do(lambda book, amount=amount: book.save_claim(Claim(channel, amount, b"s" * 64)))  # type: ignore[misc]
            assert (await keeper.do(lambda book: book.channel(channel))).authorised_nano >= amount

    async with trio.open_nursery() as nursery:
        for channel in CHANNELS:
            nursery.start_soon(save, channel)
    assert {known.authorised_nano for known in book.channels()} == {5}
    assert commits < len(CHANNELS) * 10 / 3


async def test_one_failure_undoes_only_itself(book: Book) -> None:
    keeper = BookKeeper(book)
    failed = []

    def half_done(book: Book) -> None:
        book.save_delivered(CHANNELS[0], 99)
        raise ChannelUnusable("on second thoughts")

    async def fail() -> None:
        with pytest.raises(ChannelUnusable, match="second thoughts"):
            await keeper.do(half_done)
        failed.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail)
        nursery.start_soon(keeper.do, lambda book: book.save_delivered(CHANNELS[1], 7))
        nursery.start_soon(fail)
    assert len(failed) == 2
    assert [book.channel(channel).delivered_nano for channel in CHANNELS[:2]] == [0, 7]


async def test_a_failed_commit_is_everyones(book: Book) -> None:
    keeper = BookKeeper(book)
    book._db.execute("PRAGMA query_only = TRUE")
    with pytest.raises(BookUnusable):
        await keeper.do(lambda book: book.save_delivered(CHANNELS[0], 1))
    book._db.execute("PRAGMA query_only = FALSE")
    assert book.channel(CHANNELS[0]).delivered_nano == 0


async def test_a_cancelled_caller_takes_nobodys_work_along(book: Book) -> None:
    keeper = BookKeeper(book)
    async with trio.open_nursery() as nursery:
        for channel in CHANNELS[1:]:
            nursery.start_soon(keeper.do, lambda book, channel=channel: book.save_delivered(channel, 3))
        with trio.CancelScope() as scope:
            scope.cancel()
            await keeper.do(lambda book: book.save_delivered(CHANNELS[0], 3))
    assert scope.cancelled_caught
    assert {book.channel(channel).delivered_nano for channel in CHANNELS[1:]} == {3}
