from __future__ import annotations

import pytest

from inference.backoff import Backoff


def test_the_wait_doubles_up_to_half_a_minute_and_success_resets_it() -> None:
    backoff, now, waits = Backoff(), 1000.0, []
    assert backoff.wait_s(now) == 0
    for _ in range(10):
        backoff.died(now)
        waits.append(backoff.wait_s(now))
        now += waits[-1]
        assert backoff.wait_s(now) == 0
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30])
    backoff.worked()
    backoff.died(now)
    assert backoff.wait_s(now) == pytest.approx(0.1)
