from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from inference.answer import Answer
from inference.errors import EngineError
from inference.nursery import open_background


async def test_items_come_before_the_error_and_only_the_first_end_counts() -> None:
    answer: Answer[int] = Answer(2)
    answer.put(1)
    answer.put(2)
    answer.end(EngineError("first"))
    answer.end(EngineError("second"))
    answer.put(3)
    assert [await anext(answer), await anext(answer)] == [1, 2]
    with pytest.raises(EngineError, match="first"):
        await anext(answer)


async def test_a_quiet_end_ends_the_loop() -> None:
    answer: Answer[int] = Answer(1)
    answer.put(1)
    answer.end()
    assert [item async for item in answer] == [1]


async def test_no_more_than_the_limit_is_kept() -> None:
    answer: Answer[int] = Answer(1)
    answer.put(1)
    with pytest.raises(trio.WouldBlock):
        answer.put(2)


async def test_a_background_nursery_lets_errors_out_bare_and_ends_its_tasks() -> None:
    ended = trio.Event()

    async def forever() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async def body() -> None:
        async with open_background() as nursery:
            nursery.start_soon(forever)
            await wait_all_tasks_blocked()
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await body()
    assert ended.is_set()
    with trio.move_on_after(0) as scope:
        async with open_background() as nursery:
            nursery.start_soon(forever)
            await trio.sleep_forever()
    assert scope.cancelled_caught
