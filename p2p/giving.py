"""What a provider gives away, counted in its book before it is given: a restart forgets nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import trio

from chain.book import Book
from chain.keeper import BookKeeper
from chain.records import Records
from p2p.errors import Error
from p2p.foreign import translated
from p2p.protocol.allowance import Allowance, Bucket, Left, day
from p2p.trace import Trace, silent


class Giving:
    """One provider's free allowance."""

    def __init__(
        self, keeper: BookKeeper, allowance: Allowance, clock: Callable[[], float], trace: Trace = silent
    ) -> None:
        self._keeper = keeper
        self._allowance = allowance
        self._clock = clock
        self._trace = trace

    @property
    def tokens(self) -> int:
        """What a newcomer may hope for; 0 where nothing is given."""
        return self._allowance.tokens

    async def left(self, client: str, source: str) -> Left:
        """What `client`, who comes from `source`, may still be given. Raises `LocalError`."""
        if not self.tokens:
            return Left()
        buckets = self._allowance.buckets(client, source, self._clock())
        with translated():
            return await self._keeper.do(lambda book: left_in(book, buckets))

    @asynccontextmanager
    async def granted(self, client: str, source: str, tokens: int, used: Callable[[], int]) -> AsyncIterator[None]:
        """For an answer that takes so many at most, while it lasts; `used` says at its end how many those were.

        Raises `Refused` or `LocalError`.
        """
        now = self._clock()
        buckets = self._allowance.buckets(client, source, now)
        with translated():
            await self._keeper.do(lambda book: take(book, buckets, tokens, now))
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):
                await self._strike_off(buckets, tokens - used())

    async def _strike_off(self, buckets: Sequence[Bucket], tokens: int) -> None:
        try:
            with translated():
                await self._keeper.do(lambda book: give(book, buckets, -tokens))
        except Error as error:  # then they count as given
            self._trace("not_struck_off", tokens=tokens, why=str(error))


def left_in(records: Records, buckets: Sequence[Bucket]) -> Left:
    """By what was given so far."""
    return Left(*(bucket.limit - records.given(bucket.who, bucket.day) for bucket in buckets))


def take(book: Book, buckets: Sequence[Bucket], tokens: int, now: float) -> None:
    """Put down `tokens` in every bucket, or in none. Raises `Refused` where one of them has no room."""
    left_in(book, buckets).require(tokens, now)
    # Yesterday's are kept as long as a clock may be set back.
    book.forget_given(day(now) - 1)
    give(book, buckets, tokens)


def give(book: Book, buckets: Sequence[Bucket], tokens: int) -> None:
    """Put down `tokens` in every bucket; fewer than 0 are struck off."""
    for bucket in buckets:
        book.save_given(bucket.who, bucket.day, tokens)
