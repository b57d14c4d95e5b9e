"""The channel contract on the real TVM: what each operation does with the money.

What it refuses is in test_attacks.py.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from channel_world import (
    CHALLENGE_S,
    CONST,
    DEPOSIT,
    GRAM,
    NOT_ENOUGH,
    NOW,
    OUT_OF_GAS,
    PAYEE,
    PAYER,
    STRANGER,
    STRANGER_KEY,
    VALUE,
    YEAR_S,
    Outcome,
    World,
    at,
    raw,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pytoniq_core import Address, ShardAccount

from chain.contract import cells


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def opened() -> World:
    world = World()
    assert world.open().exit_code == 0
    return world


# --- what each operation does


def test_open_deposits_exactly_the_amount_and_returns_the_excess(world: World) -> None:
    opened = world.open()
    state = world.known()
    assert opened.exit_code == 0
    assert (state.deposited_nano, state.settled_nano, state.close_at) == (DEPOSIT, 0, 0)
    assert state.terms == world.terms
    prepaid_rent = world.balance - DEPOSIT
    assert 2 * YEAR_S * 0.03 < prepaid_rent < 5_000_000
    assert at(PAYER, opened) == [VALUE - prepaid_rent - opened.cost_nano]


def test_top_up_adds_exactly_the_amount(opened: World) -> None:
    before = opened.balance
    topped_up = opened.send(PAYER, cells.top_up(DEPOSIT), DEPOSIT + VALUE)
    assert topped_up.exit_code == 0
    assert opened.known().deposited_nano == 2 * DEPOSIT
    assert opened.balance == before + DEPOSIT
    assert at(PAYER, topped_up) == [VALUE - topped_up.cost_nano]


@pytest.mark.parametrize("carrier", [PAYEE, PAYER, STRANGER])
def test_settle_pays_the_payee_whoever_carries_it(opened: World, carrier: Address) -> None:
    settled = opened.settle(opened.voucher(300_000_000), carrier)
    assert settled.exit_code == 0
    assert settled.fell_nano == 300_000_000
    expected = {raw(PAYEE): [300_000_000], raw(carrier): [VALUE - settled.cost_nano]}
    if carrier == PAYEE:  # all in one message, which spares him a fee
        expected = {raw(PAYEE): [300_000_000 + VALUE - settled.cost_nano]}
    assert settled.received == expected
    assert opened.known().settled_nano == 300_000_000


def test_settle_lets_the_balance_fall_by_exactly_the_difference_and_rent(opened: World) -> None:
    opened.settle(opened.voucher(100_000_000))
    opened.chain.advance(YEAR_S)
    settled = opened.settle(opened.voucher(100_000_007), STRANGER)
    assert settled.rent_nano > 0
    assert settled.fell_nano == 7 + settled.rent_nano
    assert at(PAYEE, settled) == [7]


def test_settle_of_the_whole_deposit_leaves_the_prepaid_rent(opened: World) -> None:
    prepaid_rent = opened.balance - DEPOSIT
    assert opened.settle(opened.voucher(DEPOSIT)).exit_code == 0
    assert opened.balance == prepaid_rent


def test_close_by_payee_without_a_voucher_returns_everything_to_the_payer(opened: World) -> None:
    held = opened.balance
    closed = opened.close_by_payee(None)
    assert at(PAYER, closed) == [held]
    assert at(PAYEE, closed) == [VALUE - closed.cost_nano]
    assert opened.state() is None


@pytest.mark.parametrize("owed", [1, 10_000, 400_000_000, DEPOSIT])
def test_close_by_payee_pays_what_a_last_voucher_owes(opened: World, owed: int) -> None:
    held = opened.balance
    closed = opened.close_by_payee(opened.voucher(owed))
    assert closed.exit_code == 0
    assert at(PAYER, closed) == [held - owed]
    assert at(PAYEE, closed) == [owed + VALUE - closed.cost_nano]
    assert opened.state() is None


def test_close_by_payee_takes_a_voucher_that_was_settled_already(opened: World) -> None:
    opened.settle(opened.voucher(50_000_000), STRANGER)
    closed = opened.close_by_payee(opened.voucher(50_000_000))
    assert closed.exit_code == 0
    assert at(PAYEE, closed) == [VALUE - closed.cost_nano]


@pytest.mark.parametrize("owed", [1, 10_000, 400_000_000, DEPOSIT])
def test_close_by_release_pays_both_at_once(opened: World, owed: int) -> None:
    held = opened.balance
    closed = opened.close_by_release(opened.release(owed))
    assert closed.exit_code == 0
    assert at(PAYEE, closed) == [owed]
    assert at(PAYER, closed) == [held - owed + VALUE - closed.cost_nano]
    assert opened.state() is None


def test_close_by_release_of_nothing_sends_the_payee_nothing(opened: World) -> None:
    closed = opened.close_by_release(opened.release(0))
    assert closed.exit_code == 0
    assert at(PAYEE, closed) == []


def test_start_close_sets_the_end_and_moves_no_money(opened: World) -> None:
    started = opened.start_close()
    assert started.exit_code == 0
    assert started.fell_nano == 0
    assert opened.known().close_at == NOW + 3600
    assert at(PAYER, started) == [VALUE - started.cost_nano]


def test_payee_settles_while_closing_and_even_after_the_period(opened: World) -> None:
    opened.start_close()
    opened.chain.advance(1800)
    assert opened.settle(opened.voucher(100_000_000)).exit_code == 0
    opened.chain.advance(3600)
    assert opened.settle(opened.voucher(200_000_000)).exit_code == 0
    assert opened.known().settled_nano == 200_000_000


@pytest.mark.parametrize("carrier", [PAYER, PAYEE, STRANGER])
def test_finalise_by_anyone_pays_the_payer(opened: World, carrier: Address) -> None:
    opened.start_close()
    opened.chain.advance(3600)
    held = opened.balance
    finalised = opened.finalise(carrier)
    assert finalised.exit_code == 0
    left, unused = held - finalised.rent_nano, VALUE + finalised.rent_nano - finalised.cost_nano
    expected = {raw(PAYER): [left + unused]} if carrier == PAYER else {raw(PAYER): [left], raw(carrier): [unused]}
    assert finalised.received == expected
    assert opened.state() is None


def test_open_is_taken_until_the_last_second(world: World) -> None:
    world.now = world.terms.open_before
    assert world.open(cells.MIN_DEPOSIT_NANO).exit_code == 0


# --- over time


def test_rent_beyond_what_was_prepaid_shortens_the_payout_and_fails_nothing(opened: World) -> None:
    opened.settle(opened.voucher(DEPOSIT - 3_000_000))
    opened.chain.advance(4 * YEAR_S)
    held = opened.balance
    closed = opened.close_by_payee(opened.voucher(DEPOSIT))
    left = held - closed.rent_nano
    assert 0 < left < 3_000_000
    assert closed.exit_code == 0
    assert at(PAYER, closed) == []
    assert at(PAYEE, closed) == [left + VALUE - closed.cost_nano + closed.rent_nano]


def test_settle_pays_what_is_left_and_owes_the_rest_until_a_top_up(opened: World) -> None:
    opened.settle(opened.voucher(DEPOSIT - 3_000_000))
    opened.chain.advance(4 * YEAR_S)
    settled = opened.settle(opened.voucher(DEPOSIT), STRANGER)
    (paid,) = at(PAYEE, settled)
    assert 0 < paid < 3_000_000
    assert opened.known().settled_nano == DEPOSIT - 3_000_000 + paid
    opened.send(PAYER, cells.top_up(cells.MIN_DEPOSIT_NANO), cells.MIN_DEPOSIT_NANO + VALUE)
    assert at(PAYEE, opened.settle(opened.voucher(DEPOSIT), STRANGER)) == [3_000_000 - paid]


def test_prepaid_rent_covers_what_it_says_and_the_bounds_hold(opened: World) -> None:
    account = ShardAccount.deserialize(opened.chain.account(opened.address).begin_parse()).account  # type: ignore[union-attr]
    used = account.storage_stat.used
    assert used.cells <= CONST["STATE_CELLS"]
    assert used.bits <= CONST["STATE_BITS"]
    opened.chain.advance(2 * YEAR_S)
    settled = opened.settle(opened.voucher(DEPOSIT), STRANGER)
    assert at(PAYEE, settled) == [DEPOSIT]
    assert opened.balance >= 0


# --- properties

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["settle", "top_up", "start_close", "finalise", "advance", "foreign"]),
        st.integers(1, 40 * cells.MIN_DEPOSIT_NANO),
        st.sampled_from([PAYER, PAYEE, STRANGER]),
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(STEPS, st.integers(0, DEPOSIT))
def test_whatever_happens_the_payee_can_get_what_was_signed(steps: list[tuple[str, int, Address]], owed: int) -> None:
    """Until a challenge period has passed in silence, the highest voucher within the deposit is worth its amount."""
    world = World()
    world.open()
    for kind, amount, who in steps:
        if kind == "settle":
            world.settle(world.voucher(min(amount, owed)), who)
        elif kind == "top_up":
            world.send(who, cells.top_up(amount), amount + VALUE)
        elif kind == "start_close":
            world.send(who, cells.start_close())
        elif kind == "finalise":
            world.send(who, cells.finalise())
        elif kind == "advance":
            world.chain.advance(amount % 300)
        else:
            world.settle(world.voucher(amount, signer=STRANGER_KEY), who)
    state = world.known()
    assert world.balance >= state.deposited_nano - state.settled_nano
    before = state.settled_nano
    closed = world.close_by_payee(world.voucher(max(owed, before)))
    assert at(PAYEE, closed) == [max(owed, before) - before + VALUE - closed.cost_nano + closed.rent_nano]


# --- what it costs

Life = Callable[[World], list[Outcome]]


def _cooperative(w: World) -> list[Outcome]:
    return [w.open(), w.close_by_release(w.release(400_000_000))]


def _by_payee(w: World) -> list[Outcome]:
    return [
        w.open(),
        w.send(PAYER, cells.top_up(GRAM), GRAM + VALUE),
        w.settle(w.voucher(400_000_000)),
        w.close_by_payee(w.voucher(700_000_000)),
    ]


def _contested(w: World) -> list[Outcome]:
    done = [w.open(), w.start_close(), w.settle(w.voucher(400_000_000), STRANGER)]
    w.chain.advance(3600)
    return [*done, w.finalise()]


LIVES: dict[str, tuple[Life, int]] = {
    "open, close by release": (_cooperative, 1_200_000),
    "open, top up, settle, close by payee": (_by_payee, 2_400_000),
    "open, start close, settle, finalise": (_contested, 2_400_000),
}


@pytest.mark.parametrize("name", LIVES)
def test_what_a_whole_life_costs_at_the_channel(world: World, name: str) -> None:
    """Fees of the channel's own transactions and of what they send; carriers' wallets come on top."""
    life, at_most_nano = LIVES[name]
    outcomes = life(world)
    assert [outcome.exit_code for outcome in outcomes] == [0] * len(outcomes)
    assert at_most_nano / 2 < sum(outcome.cost_nano for outcome in outcomes) < at_most_nano


Call = Callable[[World, int], Outcome]
CALLS: dict[str, Call] = {
    "open": lambda w, value: w.send(PAYER, cells.open_channel(GRAM), GRAM + value, w.init),
    "top-up": lambda w, value: w.send(PAYER, cells.top_up(GRAM), GRAM + value),
    "settle": lambda w, value: w.send(STRANGER, cells.settle(w.voucher(5)), value),
    "close by payee": lambda w, value: w.send(PAYEE, cells.close_by_payee(w.voucher(5)), value),
    "close by release": lambda w, value: w.send(PAYER, cells.close_by_release(w.release(5)), value),
    "start close": lambda w, value: w.send(PAYER, cells.start_close(), value),
    "finalise": lambda w, value: w.send(STRANGER, cells.finalise(), value),
}


@pytest.mark.parametrize("name", CALLS)
def test_an_operation_works_with_the_least_value_that_pays_for_it_and_not_with_one_nano_less(name: str) -> None:
    """What the carrier brings beyond it comes back, so the least value is what it costs."""

    def call(value: int) -> tuple[World, Outcome]:
        world = World()
        if name != "open":
            world.open()
        if name == "finalise":
            world.start_close()
            world.now += CHALLENGE_S
        return world, CALLS[name](world, value)

    low, high = 0, VALUE
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (low, middle) if call(middle)[1].exit_code == 0 else (middle, high)
    assert call(high)[1].exit_code == 0
    refused, short = call(low)
    assert short.exit_code in (NOT_ENOUGH, OUT_OF_GAS)
    assert short.fell_nano <= short.rent_nano
    state = refused.state()
    assert (state.deposited_nano if state else 0) == (0 if name == "open" else DEPOSIT)
    assert high < cells.CALL_VALUE_NANO / 5
