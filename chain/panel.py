"""Several servers that are asked the same, because none of them is to be taken at its word.

A statement counts once `needed` servers make it. Whoever contradicts them is dropped for a while, and named; whoever
fails or hangs goes to the end of the line. So one server that lies costs a question more and nothing else, unless there
is no third to tell which of two it is: then nothing is believed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

import trio

from chain.errors import LedgerUnavailable, NetworkMismatch

DROPPED_FOR_S = 600.0
PATIENCE_S = 30.0  # for one question, however many servers hang

Dropped = Callable[[str, str], None]
"""Told which server was dropped, and why."""


class Untrue(Exception):
    """A server's answer contradicts its own proof."""


class Member(Protocol):
    """A server. `owner` tells servers apart: two ways to the same one are one voice."""

    @property
    def name(self) -> str: ...

    @property
    def owner(self) -> str: ...


M = TypeVar("M", bound=Member)
T = TypeVar("T")


class Panel(Generic[M]):
    """The servers of one chain. Questions raise `LedgerUnavailable`, `NetworkMismatch` or `Untrue` when they fail."""

    def __init__(self, members: Sequence[M], needed: int, dropped: Dropped) -> None:
        self._line = list(members)
        self._needed = needed
        self._dropped = dropped
        self._banned: dict[str, float] = {}  # by name, until then on Trio's clock

    async def first(self, question: Callable[[M], Awaitable[T]]) -> T:
        """The word of any one server: for what is proven by itself. Raises `LedgerUnavailable`, `NetworkMismatch`."""
        poll = _Poll[M, T](1, lambda _a, _b: True)
        await self._hold(poll, question)
        return poll.winners()[0]

    async def agreed(
        self, question: Callable[[M], Awaitable[T]], same: Callable[[T, T], bool] = lambda a, b: a == b
    ) -> list[T]:
        """What as many servers as needed say alike. Raises `LedgerUnavailable`, `NetworkMismatch`."""
        poll = _Poll[M, T](self._needed, same)
        await self._hold(poll, question)
        return poll.winners()

    async def each(self, question: Callable[[M], Awaitable[T]]) -> list[T]:
        """Answers of as many servers as must agree otherwise, here however they differ. At least one, or it raises."""
        poll = _Poll[M, T](self._needed, lambda _a, _b: True)
        try:
            await self._hold(poll, question)
        except LedgerUnavailable:
            if not poll.groups:
                raise
        return poll.winners()

    async def _hold(self, poll: _Poll[M, T], question: Callable[[M], Awaitable[T]]) -> None:
        waiting = self._believed()
        with trio.move_on_after(PATIENCE_S):
            while batch := _take(waiting, poll.missing, poll.owners):
                async with trio.open_nursery() as nursery:
                    for member in batch:
                        nursery.start_soon(self._ask, poll, member, question)
        for member in poll.strangers if poll.groups else ():
            self._drop(member, "it speaks for another network")
        if poll.missing:
            raise self._failure(poll)
        for member in poll.losers():
            self._drop(member, "others say otherwise")

    async def _ask(self, poll: _Poll[M, T], member: M, question: Callable[[M], Awaitable[T]]) -> None:
        try:
            answer = await question(member)
        except LedgerUnavailable as error:
            poll.failures.append(f"{member.name}: {error}")
            self._to_the_end(member)
        except NetworkMismatch as error:
            poll.strangers[member] = error
            self._to_the_end(member)
        except Untrue as error:
            poll.failures.append(f"{member.name}: {error}")
            self._drop(member, str(error))
        else:
            poll.count(member, answer)

    def _believed(self) -> list[M]:
        now = trio.current_time()
        return [member for member in self._line if self._banned.get(member.name, now) <= now]

    def _drop(self, member: M, why: str) -> None:
        self._banned[member.name] = trio.current_time() + DROPPED_FOR_S
        self._dropped(member.name, why)

    def _to_the_end(self, member: M) -> None:
        self._line.remove(member)
        self._line.append(member)

    def _failure(self, poll: _Poll[M, T]) -> LedgerUnavailable | NetworkMismatch:
        if len(poll.groups) > 1:
            told = ", ".join(sorted(member.name for member in poll.voices()))
            return LedgerUnavailable(f"the lite-servers do not agree, and none is believed: {told}")
        if poll.strangers and not poll.groups and not poll.failures:
            return next(iter(poll.strangers.values()))
        why = "; ".join(sorted(poll.failures)) or "no other is believed"
        if not poll.groups:
            return LedgerUnavailable(f"no lite-server answered ({why})")
        return LedgerUnavailable(f"{poll.missing} more lite-servers must agree ({why})")


class _Poll(Generic[M, T]):
    """The answers to one question, those that are the same together."""

    def __init__(self, needed: int, same: Callable[[T, T], bool]) -> None:
        self._needed = needed
        self._same = same
        self.groups: list[list[tuple[M, T]]] = []
        self.failures: list[str] = []
        self.strangers: dict[M, NetworkMismatch] = {}

    @property
    def missing(self) -> int:
        """How many more must say what most say."""
        return max(0, self._needed - max(map(len, self.groups), default=0))

    @property
    def owners(self) -> set[str]:
        """Whose word was heard already."""
        return {member.owner for member in self.voices()}

    def voices(self) -> Iterator[M]:
        return (member for group in self.groups for member, _ in group)

    def count(self, member: M, answer: T) -> None:
        for group in self.groups:
            if self._same(group[0][1], answer):
                group.append((member, answer))
                return
        self.groups.append([(member, answer)])

    def winners(self) -> list[T]:
        return [answer for _, answer in max(self.groups, key=len)]

    def losers(self) -> list[M]:
        won = max(self.groups, key=len)
        return [member for group in self.groups if group is not won for member, _ in group]


def _take(waiting: list[M], count: int, heard: set[str]) -> list[M]:
    """Take so many servers from the front of the line, none of them heard yet, no two of them the same."""
    taken: list[M] = []
    owners = set(heard)
    for member in list(waiting):
        if len(taken) < count and member.owner not in owners:
            owners.add(member.owner)
            taken.append(member)
            waiting.remove(member)
    return taken
