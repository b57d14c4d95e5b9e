"""What was asked a moment ago is not asked again: answers by their keys, kept for a short time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import trio

from p2p.errors import Error

T = TypeVar("T")

KEPT_MAX = 256  # answers; the oldest go first


@dataclass
class _Asking(Generic[T]):
    """A question under way. It has come to nothing if neither is set in the end: whoever asked did not wait."""

    over: trio.Event = field(default_factory=trio.Event)
    answer: tuple[T] | None = None
    error: Error | None = None


class Recent(Generic[T]):
    """Answers to questions that cost something, each asked by one task at a time."""

    def __init__(self, keep_s: float) -> None:
        """`keep_s`: how long an answer is as good as a new one."""
        self._keep_s = keep_s
        self._kept: dict[str, tuple[float, T]] = {}  # until when, the oldest first
        self._under_way: dict[str, _Asking[T]] = {}

    def __contains__(self, key: str) -> bool:
        """Whether an answer is kept, and still good."""
        return key in self._kept and trio.current_time() < self._kept[key][0]

    async def get(self, key: str, ask: Callable[[], Awaitable[T]]) -> T:
        """What is kept under `key`, or what `ask` says, now or as somebody else does it. Raises its `Error`s."""
        while True:
            if key in self:
                return self._kept[key][1]
            asking = self._under_way.get(key)
            if asking is None:
                return await self._ask(key, ask)
            await asking.over.wait()
            if asking.answer is not None:
                return asking.answer[0]
            if asking.error is not None:
                raise asking.error

    def forget(self, key: str) -> None:
        """It is not true any more."""
        self._kept.pop(key, None)

    def clear(self) -> None:
        """Nor is anything else."""
        self._kept.clear()

    async def _ask(self, key: str, ask: Callable[[], Awaitable[T]]) -> T:
        asking = self._under_way[key] = _Asking[T]()
        try:
            answer = await ask()
        except Error as error:
            asking.error = error
            raise
        else:
            asking.answer = (answer,)
            self._keep(key, answer)
            return answer
        finally:
            del self._under_way[key]
            asking.over.set()

    def _keep(self, key: str, answer: T) -> None:
        self.forget(key)
        self._kept[key] = (trio.current_time() + self._keep_s, answer)
        if len(self._kept) > KEPT_MAX:
            del self._kept[next(iter(self._kept))]
