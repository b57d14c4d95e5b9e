from __future__ import annotations

import memory_grid
import pytest

from inference.fitting import MEBIBYTE


@pytest.mark.slow
def test_what_fits_runs_under_a_hard_limit_and_what_does_not_fails() -> None:
    budget, slots = 250 * MEBIBYTE, 1
    longest = memory_grid.fits(budget, slots)
    assert 2048 < longest < 8192
    assert memory_grid.run_limited(budget, slots, longest) == "served"
    assert memory_grid.run_limited(budget, slots, memory_grid.beyond(longest, slots)).startswith("Engine")
