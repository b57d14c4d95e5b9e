"""A small swarm of real hosts, once quiet and once dying. `make proof` has thirty of them, for longer."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from swarm import measure_churn, measure_cold_starts

pytestmark = pytest.mark.slow


async def test_everybody_is_found_and_heard(tmp_path: Path) -> None:
    with trio.fail_after(180):
        report = await measure_cold_starts(tmp_path, providers=4, processes=2, trials=2, seed=1)
    assert [attempt.found for attempt in report.attempts] == [4, 4]
    assert all(attempt.quoted and not attempt.stale for attempt in report.attempts)
    assert report.heard == [1.0, 1.0]


async def test_who_is_killed_is_done_without(tmp_path: Path) -> None:
    with trio.fail_after(180):
        report = await measure_churn(tmp_path, providers=4, processes=2, for_s=15, every_s=3, seed=1)
    assert report.kills
    # One that is killed between its advert and its quote may cost a client its only attempt.
    assert sum(attempt.quoted for attempt in report.attempts) > len(report.attempts) / 2
