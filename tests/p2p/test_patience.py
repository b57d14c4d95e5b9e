"""Coming back at the time that a refusal names, and giving up in time."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock

from p2p.errors import Refused, Unavailable
from p2p.patience import RETRY_LEAST_S, patiently

NEVER, NOW = None, 0


@pytest.mark.parametrize(
    ("retries", "patience_s", "took_s", "done"),
    [
        ([], 10, 0, True),
        ([2], 10, 2, True),
        ([2, 3], 10, 5, True),
        ([NOW, NOW], 10, 2 * RETRY_LEAST_S, True),
        ([NEVER], 10, 0, False),
        ([2, NEVER], 10, 2, False),
        ([11], 10, 0, False),
        ([6, 6], 10, 6, False),
        ([1 << 62], 10, 0, False),
        ([NOW] * 1000, 10, 10, False),
    ],
)
async def test_retries(
    retries: Sequence[int | None], patience_s: float, took_s: float, done: bool, autojump_clock: MockClock
) -> None:
    left = list(retries)

    async def attempt() -> str:
        await trio.lowlevel.checkpoint()
        if left:
            raise Refused("busy", retry_after_s=left.pop(0))
        return "done"

    began = trio.current_time()
    if done:
        assert await patiently(attempt, patience_s) == "done"
    else:
        with pytest.raises(Refused):
            await patiently(attempt, patience_s)
    assert trio.current_time() - began == pytest.approx(took_s)


async def test_what_is_no_refusal_is_not_tried_again() -> None:
    async def attempt() -> None:
        await trio.lowlevel.checkpoint()
        raise Unavailable("gone")

    with pytest.raises(Unavailable):
        await patiently(attempt, 10)
