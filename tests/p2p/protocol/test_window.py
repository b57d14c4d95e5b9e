"""How much may be unpaid."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.protocol.price import Prices, Tokens, cost_nano
from p2p.protocol.window import MIN_WINDOW_TOKENS, window_nano

OUTPUT_1 = Prices(0, 0, 1_000_000)  # an output token costs one nano


@pytest.mark.parametrize(
    ("prices", "rtt_ms", "tokens_per_s", "cap_nano", "nano"),
    [
        pytest.param(OUTPUT_1, 10, 50, 1000, 64, id="near: two seconds of reading"),
        pytest.param(OUTPUT_1, 2000, 50, 1000, 200, id="far: what is in flight both ways"),
        pytest.param(OUTPUT_1, 2001, 50, 1000, 201, id="in flight is rounded up"),
        pytest.param(OUTPUT_1, 2000, 50, 100, 100, id="capped"),
        pytest.param(OUTPUT_1, 2000, 50, 0, 1, id="a cap below one token gives one token"),
        pytest.param(Prices(7_000_000, 0, 1_000_000), 10, 50, 5, 7, id="one prompt token must fit as well"),
        pytest.param(Prices(0, 0, 0), 10, 50, 0, 1, id="free tokens"),
    ],
)
def test_window(prices: Prices, rtt_ms: int, tokens_per_s: int, cap_nano: int, nano: int) -> None:
    assert window_nano(prices, rtt_ms=rtt_ms, tokens_per_s=tokens_per_s, cap_nano=cap_nano) == nano


@given(
    st.builds(Prices, *[st.integers(0, 1 << 40)] * 3),
    st.integers(0, 10_000),
    st.integers(0, 10_000),
    st.integers(0, 1 << 50),
)
def test_a_window_always_has_room_for_a_token_and_keeps_to_the_cap_else(
    prices: Prices, rtt_ms: int, tokens_per_s: int, cap_nano: int
) -> None:
    window = window_nano(prices, rtt_ms=rtt_ms, tokens_per_s=tokens_per_s, cap_nano=cap_nano)
    one_token = max(cost_nano(prices, Tokens(input=1)), cost_nano(prices, Tokens(output=1)), 1)
    assert one_token <= window <= max(one_token, cap_nano)
    if cap_nano >= window > one_token:
        assert window == cap_nano or window >= cost_nano(prices, Tokens(output=MIN_WINDOW_TOKENS))
