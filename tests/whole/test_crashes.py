"""A few SIGKILLs in the middle of paid answers. `make proof` has two hundred."""

from __future__ import annotations

from pathlib import Path

import pytest
from crashes import run_crashes


@pytest.mark.slow
def test_killed_providers_and_clients_agree_again_and_lose_no_more_than_they_may(tmp_path: Path) -> None:
    report = run_crashes(tmp_path, kills=6, lanes=2, seed=1)
    assert report.faults == []
    assert len(report.kills) == 6
    assert len(report.closed) == 2
    assert any(kill.phases for kill in report.kills), "some answers were under way"
    assert any(kill.compared for kill in report.kills)
