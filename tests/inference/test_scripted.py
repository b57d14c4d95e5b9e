from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from inference.engine import Capacity, Delta, Finished, Message, Request
from inference.errors import EngineError
from inference.script import answer
from inference.scripted import SCRIPTED_MODEL, Scripted, ScriptedEngine, open_scripted


def ask(max_tokens: int = 11, content: str = "one two three four") -> Request:
    return Request(model=SCRIPTED_MODEL.id, messages=(Message("user", content),), max_tokens=max_tokens)


async def collect(engine: ScriptedEngine, request: Request) -> list[Delta | Finished]:
    async with engine.generate(request) as items:
        return [item async for item in items]


async def test_the_pace_is_the_one_that_was_set(autojump_clock: MockClock) -> None:
    async with open_scripted(Scripted(ttft_s=2, tokens_per_s=5)) as engine:
        begin = trio.current_time()
        async with engine.generate(ask()) as items:
            times = [trio.current_time() - begin async for _ in items]
    assert times[:11] == pytest.approx([2 + at / 5 for at in range(11)])


async def test_what_is_over_the_slots_waits_its_turn(autojump_clock: MockClock) -> None:
    ended: list[tuple[int, float]] = []

    async def client(number: int) -> None:
        assert await collect(engine, ask(content=f"{number}")) == list(answer(ask(content=f"{number}")))
        ended.append((number, trio.current_time() - begin))

    async with open_scripted(Scripted(slots=2, ttft_s=0, tokens_per_s=11)) as engine, trio.open_nursery() as nursery:
        begin = trio.current_time()
        for number in range(5):
            nursery.start_soon(client, number)
        await trio.sleep(0.5)
        assert engine.capacity() == Capacity(free=0, total=2)
    assert [round(at) for _, at in sorted(ended, key=lambda end: end[1])] == [1, 1, 2, 2, 3]


async def test_prefill_in_steps_takes_the_time_off_the_first_token(autojump_clock: MockClock) -> None:
    request = ask(content=" ".join(["word"] * 99))  # 100 tokens with the role
    async with open_scripted(Scripted(ttft_s=10)) as engine:
        begin = trio.current_time()
        assert [await engine.prefill(request, done) for done in (20, 60)] == [20, 60]
        assert trio.current_time() - begin == pytest.approx(6)
        async with engine.generate(request) as items:
            await anext(items)
        assert trio.current_time() - begin == pytest.approx(10)
        assert await engine.prefill(request, 1000) == 100
        *_, finished = await collect(engine, request)
    assert isinstance(finished, Finished)
    assert finished.usage.cached_tokens == 99


async def test_it_fails_when_told_to(autojump_clock: MockClock) -> None:
    async with open_scripted(Scripted(fail_after=3)) as engine:
        async with engine.generate(ask()) as items:
            assert [await anext(items) for _ in range(3)] == list(answer(ask()))[:3]
            with pytest.raises(EngineError):
                await anext(items)
        assert engine.capacity().free == 4


async def test_it_stalls_when_told_to_and_can_be_left(autojump_clock: MockClock) -> None:
    async with open_scripted(Scripted(stall_after=3)) as engine:
        with trio.move_on_after(3600) as scope:
            await collect(engine, ask())
        assert scope.cancelled_caught
        assert engine.capacity().free == 4
