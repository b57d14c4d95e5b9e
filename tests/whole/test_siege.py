"""Nobody honest notices more of strangers' abuse than that it takes longer. The full counts are in `make proof`."""

from __future__ import annotations

from pathlib import Path

import pytest
from siege import SMALL, run_siege


@pytest.mark.slow
def test_honest_customers_are_served_under_every_abuse(tmp_path: Path) -> None:
    """Counts so small show nothing of memory that is not given back, so that is left to the full ones."""
    report = run_siege(tmp_path, SMALL, peace_s=1.0, hold_s=0.5, seed=1)
    assert [one.name for one in report.assaults] == list(SMALL)
    assert not report.lost
    for one in report.assaults:
        assert one.refused < one.count, f"{one.name} was cut off before it began"
        assert min(*one.memory_before, *one.memory_after) > 0
