"""How long a provider may give nothing."""

from __future__ import annotations

import pytest

from p2p.protocol.stall import FIRST_FLOOR_S, FLOOR_S, MOST_S, patience_s


@pytest.mark.parametrize(
    ("ttft_ms", "tokens_per_s", "prompt_tokens", "wait_s"),
    [
        (50, 100, None, FLOOR_S),  # a quick machine is given the floor
        (50, 12, None, 8 * 16 / 12),  # a slow one eight times what a piece takes it
        (50, 2, None, 64.0),
        (50, 1, None, MOST_S),
        (50, 0, None, MOST_S),  # no promise at all
        (60_000, 100, None, FLOOR_S),  # the first token has come: its promise is over
        (50, 100, 40, FIRST_FLOOR_S),
        (5_000, 100, 1_000, 50.0),
        (50, 100, 8_000, 80.4),  # a long prompt takes its time
        (50, 100, 0, FIRST_FLOOR_S),
        (1 << 62, 100, 40, MOST_S),  # nobody is waited for because of what it promised
        (50, 100, 1 << 30, MOST_S),
        (0, 1 << 62, 1 << 30, FIRST_FLOOR_S),
    ],
)
def test_patience_follows_the_promise_within_bounds(
    ttft_ms: int, tokens_per_s: int, prompt_tokens: int | None, wait_s: float
) -> None:
    got = patience_s(ttft_ms=ttft_ms, tokens_per_s=tokens_per_s, prompt_tokens=prompt_tokens)
    assert got == pytest.approx(wait_s)
