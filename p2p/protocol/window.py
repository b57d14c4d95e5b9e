"""Core: how much may be unpaid, or paid ahead, at any moment."""

from __future__ import annotations

from p2p.protocol.price import PER_TOKENS, Prices

# About two seconds of reading; at $0.30 per million tokens it is worth $0.00002.
MIN_WINDOW_TOKENS = 64


def window_nano(prices: Prices, *, rtt_ms: int, tokens_per_s: int, cap_nano: int) -> int:
    """max(64 output tokens, 2 x RTT x rate) in money, at most `cap_nano`, but never less than one token of any kind."""
    in_flight = -(-2 * rtt_ms * tokens_per_s // 1000)
    tokens = max(MIN_WINDOW_TOKENS, in_flight)
    return max(1, one_token_nano(prices), min(cap_nano, -(-tokens * prices.output // PER_TOKENS)))


def one_token_nano(prices: Prices) -> int:
    """What one more token of the dearer kind costs at most."""
    return -(-max(prices.input, prices.output) // PER_TOKENS)
