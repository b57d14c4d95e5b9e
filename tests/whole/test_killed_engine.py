"""The process of a provider's engine is killed under eight answers. `make proof` has more kills, and other engines."""

from __future__ import annotations

from dataclasses import replace

import pytest
from processes import Processes
from worker_kills import ALONE, STREAMS, run_kills

from p2p.errors import EngineError


@pytest.mark.slow
def test_after_kill_9_of_its_engine_all_eight_are_told_and_the_provider_answers_again(processes: Processes) -> None:
    report = run_kills(processes, replace(ALONE, kills=1, clients=2))
    assert report.faults == []
    (kill,) = report.kills
    assert [type(reader.error) for reader in kill.readers] == STREAMS * [EngineError]
    assert kill.killed_at < kill.again_at
