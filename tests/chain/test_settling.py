"""When a voucher is carried to the chain: a table, and what holds for all of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.settling import Reason, SettlePolicy, Standing

DAY_S = 86_400
FEE = 1_000
POLICY = SettlePolicy(risk_nano=500_000, fee_percent=1, after_s=DAY_S)


def standing(
    unsettled: int,
    *,
    settled: int = 0,
    deposited: int = 10**7,
    closing: bool = False,
    for_s: float = 0,
    retired: bool = False,
) -> Standing:
    return Standing(
        authorised_nano=settled + unsettled,
        settled_nano=settled,
        deposited_nano=deposited,
        closing=closing,
        unsettled_for_s=for_s,
        retired=retired,
    )


@pytest.mark.parametrize(
    ("channel", "why"),
    [
        (standing(0), None),
        (standing(0, closing=True, for_s=9 * DAY_S), None),
        # the fee is a hundredth
        (standing(99_999), None),
        (standing(100_000), Reason.CHEAP),
        (standing(99_999, settled=10**6), None),
        # the limit
        (standing(500_000), Reason.RISK),
        (standing(500_000, closing=True), Reason.RISK),
        # the payer closes
        (standing(1_001, closing=True), Reason.CLOSING),
        (standing(1_000, closing=True), None),
        # the deposit
        (standing(89_999, deposited=100_000), None),
        (standing(90_000, deposited=100_000), Reason.USED_UP),
        (standing(9_999, settled=90_000, deposited=100_000), None),
        (standing(10_000, settled=90_000, deposited=100_000), Reason.USED_UP),
        (standing(900, deposited=1_000), None),
        # time
        (standing(5_000, for_s=DAY_S - 1), None),
        (standing(5_000, for_s=DAY_S), Reason.OLD),
        (standing(1_000, for_s=DAY_S), None),
        # a book from a backup
        (standing(1_001, retired=True), Reason.RETIRED),
        (standing(1_000, retired=True), None),
    ],
)
def test_a_voucher_is_carried_when_it_pays_or_when_waiting_is_a_risk(channel: Standing, why: Reason | None) -> None:
    assert POLICY.why(channel, FEE) is why


def test_a_limit_of_one_nano_settles_everything_at_once() -> None:
    assert SettlePolicy(risk_nano=1).why(standing(1), FEE) is Reason.RISK
    assert SettlePolicy(risk_nano=1).why(standing(0), FEE) is None
    assert SettlePolicy(risk_nano=0).why(standing(0), FEE) is None


def test_the_fee_may_be_left_out_of_account() -> None:
    policy = SettlePolicy(risk_nano=10**12, fee_percent=0)
    assert policy.why(standing(10**9, deposited=10**12), FEE) is None
    assert policy.why(standing(10**9, deposited=10**12), 0) is Reason.CHEAP


amounts = st.integers(0, 10**10)


@given(amounts, amounts, amounts, st.booleans(), st.booleans(), st.floats(0, 1e9), st.integers(0, 10**7))
def test_no_settlement_costs_more_than_it_brings_unless_the_limit_says_so(
    unsettled: int, settled: int, deposited: int, closing: bool, retired: bool, for_s: float, fee: int
) -> None:
    channel = standing(unsettled, settled=settled, deposited=deposited, closing=closing, for_s=for_s, retired=retired)
    why = POLICY.why(channel, fee)
    assert why in (None, Reason.RISK) or unsettled > fee
    assert (why is Reason.RISK) == (unsettled >= POLICY.risk_nano)
    if (closing or retired) and unsettled > fee:
        assert why


@given(amounts, amounts, st.booleans(), st.floats(0, 1e9), st.integers(0, 10**7))
def test_more_unsettled_is_never_less_reason(
    unsettled: int, deposited: int, closing: bool, for_s: float, fee: int
) -> None:
    less = POLICY.why(standing(unsettled, deposited=deposited, closing=closing, for_s=for_s), fee)
    more = POLICY.why(standing(unsettled + 1, deposited=deposited, closing=closing, for_s=for_s), fee)
    assert more or not less
