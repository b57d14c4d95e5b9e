"""A provider is killed in mid-answer and another, to which a channel is open, goes on. `make proof` has fifty kills."""

from __future__ import annotations

from pathlib import Path

import pytest
from handovers import run_handovers


@pytest.mark.slow
def test_after_kill_9_the_next_provider_goes_on_and_each_is_paid_for_its_part(tmp_path: Path) -> None:
    report = run_handovers(tmp_path, kills=1, seed=1)
    assert report.faults == []
    (one,) = report.handovers
    assert "fell silent" in one.said
    assert "goes on from here" in one.said
    assert min(one.parts_nano) > 0
