from __future__ import annotations

import pytest
from trio.testing import MockClock

from inference.errors import EngineError
from inference.measure import Measured, measure
from inference.scripted import SCRIPTED_MODEL, Scripted, open_scripted


async def test_the_pace_that_was_set_is_measured(autojump_clock: MockClock) -> None:
    async with open_scripted(Scripted(ttft_s=0.25, tokens_per_s=50)) as engine:
        assert await measure(engine, SCRIPTED_MODEL.id) == Measured(ttft_ms=250, tokens_per_s=50)


async def test_a_failing_engine_has_no_pace(autojump_clock: MockClock) -> None:
    async with open_scripted(Scripted(fail_after=0)) as engine:
        with pytest.raises(EngineError):
            await measure(engine, SCRIPTED_MODEL.id)
