"""Answers that are kept for a moment, and questions that are asked once by however many."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from p2p.errors import Unavailable
from p2p.recent import KEPT_MAX, Recent

KEEP_S, TAKES_S = 10.0, 2.0


class Source:
    """Numbers its answers, and takes its time for each."""

    def __init__(self) -> None:
        self.asked = 0
        self.error: Unavailable | None = None

    async def __call__(self) -> int:
        self.asked += 1
        number = self.asked
        await trio.sleep(TAKES_S)
        if self.error is not None:
            raise self.error
        return number


def constant(value: int) -> Callable[[], Awaitable[int]]:
    async def ask() -> int:
        return value

    return ask


async def test_an_answer_is_kept_for_its_time(autojump_clock: MockClock) -> None:
    recent, source = Recent[int](KEEP_S), Source()
    assert await recent.get("one", source) == 1
    await trio.sleep(KEEP_S - 1)
    assert "one" in recent
    assert await recent.get("one", source) == 1
    assert await recent.get("other", source) == 2
    await trio.sleep(1)
    assert "one" not in recent
    assert await recent.get("one", source) == 3


async def test_what_is_forgotten_is_asked_for_again(autojump_clock: MockClock) -> None:
    recent, source = Recent[int](KEEP_S), Source()
    await recent.get("one", source)
    recent.forget("one")
    recent.forget("never heard of")
    assert await recent.get("one", source) == 2


@pytest.mark.parametrize("error", [None, Unavailable("nobody is there")])
async def test_many_who_want_the_same_ask_once(error: Unavailable | None, autojump_clock: MockClock) -> None:
    recent, source = Recent[int](KEEP_S), Source()
    source.error = error
    heard: list[int | Unavailable] = []

    async def want() -> None:
        try:
            heard.append(await recent.get("one", source))
        except Unavailable as problem:
            heard.append(problem)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(want)
    assert heard == [error or 1] * 5
    assert source.asked == 1
    assert trio.current_time() == TAKES_S
    if error is not None:
        source.error = None
        assert await recent.get("one", source) == 2, "what went wrong is not kept"


async def test_who_asked_and_left_leaves_it_to_the_next(autojump_clock: MockClock) -> None:
    recent, source = Recent[int](KEEP_S), Source()
    heard = []

    async def want() -> None:
        heard.append(await recent.get("one", source))

    async with trio.open_nursery() as nursery:
        with trio.move_on_after(1):
            async with trio.open_nursery() as impatient:
                impatient.start_soon(want)
                await wait_all_tasks_blocked()
                nursery.start_soon(want)
                nursery.start_soon(want)
    assert heard == [2, 2]
    assert trio.current_time() == 1 + TAKES_S


async def test_no_more_is_kept_than_there_is_room_for() -> None:
    recent = Recent[int](KEEP_S)
    for number in range(KEPT_MAX + 1):
        await recent.get(str(number), constant(number))
    assert "0" not in recent
    assert "1" in recent
