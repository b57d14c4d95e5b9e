"""The book's one owner under Trio: work on it runs in a thread, and work that comes together shares one commit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import trio

from chain.book import Book
from chain.errors import BookUnusable

T = TypeVar("T")


class _Job(Generic[T]):
    """A piece of work, and afterwards what came of it."""

    def __init__(self, work: Callable[[Book], T]) -> None:
        self._work = work
        self._result: T
        self.error: Exception | None = None

    def run(self, book: Book) -> None:
        try:
            with book.part():
                self._result = self._work(book)
        except Exception as error:
            self.error = error

    def result(self) -> T:
        if self.error is not None:
            raise self.error
        return self._result


class BookKeeper:
    """Lets many tasks use one `Book`, which nobody else in this process may touch meanwhile."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self.leases = book.leases
        self._turn = trio.Lock()
        self._waiting: list[_Job[Any]] = []

    async def do(self, work: Callable[[Book], T]) -> T:
        """Run `work` and return its result once all that it wrote is durable: `await keeper.do(lambda book: …)`.

        Raises what `work` raises, with nothing of it kept, or `BookUnusable` if the commit failed. A caller that is
        cancelled may find its work done: amounts only rise, so that does no harm.
        """
        job = _Job(work)
        self._waiting.append(job)
        try:
            async with self._turn:
                if job in self._waiting:
                    jobs, self._waiting = self._waiting, []
                    # Others wait for these jobs too, whatever happens to this caller.
                    with trio.CancelScope(shield=True):
                        await trio.to_thread.run_sync(_commit, self._book, jobs)
        finally:
            if job in self._waiting:
                self._waiting.remove(job)
        return job.result()


def _commit(book: Book, jobs: Sequence[_Job[Any]]) -> None:
    try:
        with book.batch():
            for job in jobs:
                job.run(book)
    except BookUnusable as error:
        for job in jobs:
            job.error = error
