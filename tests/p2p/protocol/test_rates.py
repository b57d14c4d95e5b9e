"""Token buckets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2p.protocol.rates import Rates


def test_a_burst_and_then_a_rate() -> None:
    rates = Rates(per_s=2, burst=3)
    assert [rates.take("a", 10.0) for _ in range(4)] == [True, True, True, False]
    assert not rates.take("a", 10.4)
    assert rates.take("a", 10.5)
    assert not rates.take("a", 10.9)
    assert [rates.take("a", 100.0) for _ in range(4)] == [True, True, True, False], "no more than the burst is saved"


def test_each_key_has_its_own_and_a_refusal_costs_nothing() -> None:
    rates = Rates(per_s=1, burst=2)
    assert rates.take("a", 0.0, 2)
    assert not rates.take("a", 1.0, 2)
    assert rates.take("b", 1.0, 2)
    assert rates.take("a", 2.0, 2)


def test_spending_on_credit_says_how_long_to_wait() -> None:
    rates = Rates(per_s=4, burst=2)
    assert [rates.spend("a", 0.0) for _ in range(4)] == [0, 0, 0.25, 0.5]
    assert rates.spend("a", 0.5, 2) == 0.5
    assert not rates.take("a", 1.0)
    assert rates.take("a", 1.25)


@given(keys=st.lists(st.integers(0, 3000), max_size=4000))
def test_what_is_full_again_is_forgotten(keys: list[int]) -> None:
    rates = Rates(per_s=1, burst=5)
    for number, key in enumerate(keys):
        rates.take(str(key), number * 0.01)
        assert len(rates) <= 500  # 100 keys a second, each full again a second later, and the room before a sweep
