"""Amounts as people type them: exactly what they say, or refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.errors import LocalError
from p2p.gram import nano_of
from p2p.story import gram


@given(st.integers(1, 10**18 - 1))
def test_every_amount_can_be_said_in_gram_and_in_nano(nano: int) -> None:
    assert nano_of(gram(nano)) == nano_of(gram(nano).removesuffix(" GRAM")) == nano_of(f"{nano}nano") == nano


@pytest.mark.parametrize(
    ("text", "nano"),
    [
        ("1", 10**9),
        ("0.1", 10**8),
        ("0.000000001", 1),
        ("999999999.999999999", 10**18 - 1),
        ("01.50", 15 * 10**8),
        ("2 gram", 2 * 10**9),
        ("7 nano", 7),
    ],
)
def test_an_amount_is_read_without_rounding(text: str, nano: int) -> None:
    assert nano_of(text) == nano


@pytest.mark.parametrize(
    "text",
    [
        *("", "0", "0.0", "0nano", "-1", "+1", "1.", ".5", "1,5", "1e3", "1_000", "0.0000000001", "1.5nano"),
        *("٣", " 1", "1\n", "1 TON", "nan", "inf", "1" * 10, "1" * 19 + "nano", "x" * 1000),
    ],
)
def test_anything_else_is_refused_in_one_short_line(text: str) -> None:
    with pytest.raises(LocalError) as caught:
        nano_of(text)
    assert len(str(caught.value)) < 160
    assert "\n" not in str(caught.value)
