from __future__ import annotations

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


async def test_a_failing_engine_has_no_pace(autojump_clock: MockClock) -> None:
    async with open_scripted(Scripted(fail_after=0)) as engine:
        with pytest.raises(EngineError):
            await measure(engine, SCRIPTED_MODEL.id)
