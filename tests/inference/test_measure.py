from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest
from trio.testing import MockClock

from inference.engine import Delta, Finished, Request
from inference.errors import EngineError
from inference.measure import Measured, measure
from inference.scripted import SCRIPTED_MODEL, Scripted, ScriptedEngine, open_scripted


async def test_the_pace_that_was_set_is_measured(autojump_clock: MockClock) -> None:
    async with open_scripted(Scripted(ttft_s=0.25, tokens_per_s=50)) as engine:
        assert await measure(engine, SCRIPTED_MODEL.id) == Measured(ttft_ms=250, tokens_per_s=50)


class Thinking(ScriptedEngine):
    """Shows nothing of its first 30 tokens."""

    @asynccontextmanager
    async def generate(self, request: Request) -> AsyncIterator[AsyncIterator[Delta | Finished]]:
        async with super().generate(request) as items, aclosing(self._shown(items)) as shown:
            yield shown

    async def _shown(self, items: AsyncIterator[Delta | Finished]) -> AsyncGenerator[Delta | Finished]:
        thought = 0
        async for item in items:
            if isinstance(item, Finished) or thought == 30:
                yield item
            else:
                thought += 1


async def test_a_model_that_thinks_first_is_measured_by_what_it_shows(autojump_clock: MockClock) -> None:
    engine = Thinking(Scripted(ttft_s=0, tokens_per_s=50))
    found = await measure(engine, SCRIPTED_MODEL.id)
    assert (found.ttft_ms // 10, found.tokens_per_s) == (60, 50)


class Disturbed(ScriptedEngine):
    """While it answers for the first time nothing else can run for a while, and its pieces come all at once."""

    def __init__(self) -> None:
        super().__init__(Scripted(ttft_s=0, tokens_per_s=200))
        self.asked = 0

    @asynccontextmanager
    async def generate(self, request: Request) -> AsyncIterator[AsyncIterator[Delta | Finished]]:
        self.asked += 1
        async with super().generate(request) as items:
            if self.asked == 1:
                time.sleep(0.3)  # noqa: ASYNC251 - that is what is tried
            yield items


async def test_a_trial_in_which_nothing_could_run_does_not_count() -> None:
    engine = Disturbed()
    found = await measure(engine, SCRIPTED_MODEL.id)
    assert engine.asked > 1
    assert found.ttft_ms < 300


async def test_a_failing_engine_has_no_pace(autojump_clock: MockClock) -> None:
    async with open_scripted(Scripted(fail_after=0)) as engine:
        with pytest.raises(EngineError):
            await measure(engine, SCRIPTED_MODEL.id)
