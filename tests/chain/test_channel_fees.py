"""What a channel's whole life costs at mainnet's prices of August 2026, both wallets included."""

from __future__ import annotations

from channel_fees import closed_by_payee, deserted, released


def test_opening_and_closing_by_release_costs_at_most_three_and_a_half_thousandths_of_a_gram() -> None:
    assert released().total <= 3_500_000


def test_opening_topping_up_settling_and_closing_by_the_payee_costs_at_most_five_point_six() -> None:
    assert closed_by_payee().total <= 5_600_000


def test_a_payer_that_deserts_does_not_make_it_dearer_than_that() -> None:
    assert deserted().total <= 5_600_000
