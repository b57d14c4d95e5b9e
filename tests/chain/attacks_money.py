"""Attacks by amounts: too little value, dust, failing actions, rent for years, the balance drained to the last nano."""

from __future__ import annotations

from collections.abc import Callable

from attack import (
    Attack,
    nothing_more,
    opened,
    payee_closes,
    payer_leaves,
    payer_opens,
    payer_releases,
    unopened,
)
from channel_world import (
    CHALLENGE_S,
    DEPOSIT,
    GRAM,
    NOT_ENOUGH,
    OUT_OF_GAS,
    PAYEE,
    PAYER,
    SIGNED,
    STRANGER,
    YEAR_S,
    World,
    at,
)
from pytoniq_core import Address, Cell

from chain.contract import cells

OUT_OF_RANGE, OVERFLOW = 5, 8  # the TVM's own: a number does not fit its field, or its cell
MOST_COINS = 2**120 - 1

Body = Callable[[World], Cell]

CALLS: dict[str, tuple[Address, Body]] = {
    "settles": (STRANGER, lambda w: cells.settle(w.voucher(SIGNED))),
    "closes as the payee": (PAYEE, lambda w: cells.close_by_payee(None)),
    "closes by release": (PAYER, lambda w: cells.close_by_release(w.release(DEPOSIT))),
    "starts to close": (PAYER, lambda w: cells.start_close()),
    "tops up": (PAYER, lambda w: cells.top_up(GRAM)),
}
# What runs the code and cannot send what it sends.
SHORT = {"settles": 500_000, "closes as the payee": 400_000, "starts to close": 400_000, "tops up": GRAM}


def _brings(source: Address, body: Body, value: int) -> Callable[[World], object]:
    return lambda world: [world.send(source, body(world), value, bounce=bounce) for bounce in (True, False)]


def _period_over(world: World) -> None:
    opened(world)
    world.start_close()
    world.chain.advance(CHALLENGE_S)


def _bleeds(world: World) -> None:
    """Hundreds of calls that run as far as their value takes them and are refused there."""
    for value in range(0, 500_000, 5_000):
        for bounce in (True, False):
            world.send(STRANGER, cells.settle(world.voucher(SIGNED)), value, bounce=bounce)


def _gift_given(world: World) -> None:
    """Somebody sent money that is nobody's deposit."""
    opened(world)
    world.send(STRANGER, Cell.empty(), GRAM, bounce=False)


def _gifts(world: World) -> None:
    """Of every size: does one of them make an honest operation fail?"""
    for value in (0, 1, 1_000, GRAM):
        world.send(STRANGER, Cell.empty(), value, bounce=False)


def _dust(world: World) -> None:
    """A stranger carries the payee's smallest vouchers, each below the fee of sending it."""
    opened(world)
    for amount in (1, 2, 3):
        assert world.settle(world.voucher(amount), STRANGER).exit_code == 0


# --- rent


def _almost_all_settled(world: World) -> None:
    """All is signed, and all but three million is settled."""
    opened(world)
    world.signed = DEPOSIT
    world.settle(world.voucher(DEPOSIT - 3_000_000))


def _all_settled(world: World) -> None:
    opened(world)
    world.signed = DEPOSIT
    world.settle(world.voucher(DEPOSIT))


def _after(years: int, before: Callable[[World], None]) -> Callable[[World], None]:
    def wait(world: World) -> None:
        before(world)
        world.chain.advance(years * YEAR_S)

    return wait


def _drained(world: World) -> None:
    """Rent left less than was owed, and all of it was paid out."""
    _almost_all_settled(world)
    world.chain.advance(4 * YEAR_S)
    assert world.settle(world.voucher(DEPOSIT), STRANGER).exit_code == 0
    assert world.balance == 0


def _dust_is_all(world: World) -> None:
    opened(world)
    world.signed = 4


def _all_signed(world: World) -> None:
    opened(world)
    world.signed = DEPOSIT


def payee_gets_all(world: World) -> list[str]:
    """Rent for as long as it is prepaid takes nothing from what is owed."""
    done = world.settle(world.voucher(DEPOSIT), STRANGER)
    return [] if done.exit_code == 0 and at(PAYEE, done) == [DEPOSIT] else ["rent was taken from what is owed"]


def _pokes(world: World) -> None:
    """Calls that are refused, to have the rent taken often."""
    for _ in range(20):
        world.finalise(STRANGER)


def _overdrawn(world: World) -> None:
    """A voucher for what rent has taken, carried by somebody else, again and again."""
    for _ in range(3):
        world.settle(world.voucher(DEPOSIT + 1), STRANGER)


ATTACKS = (
    # too little value
    *(
        Attack(
            f"{name} with value for gas and not for messages",
            CALLS[name][0],
            NOT_ENOUGH,
            _brings(*CALLS[name], value),
        )
        for name, value in SHORT.items()
    ),
    *(
        Attack(f"{name} with value for half the gas", source, OUT_OF_GAS, _brings(source, body, 150_000))
        for name, (source, body) in CALLS.items()
    ),
    *(
        Attack(f"{name} with no value at all", source, None, _brings(source, body, 0))
        for name, (source, body) in CALLS.items()
    ),
    Attack(
        "finalises with value for gas and not for messages",
        STRANGER,
        NOT_ENOUGH,
        _brings(STRANGER, lambda w: cells.finalise(), 400_000),
        _period_over,
        nothing_more,
    ),
    Attack("calls that cannot pay for their messages bleed the channel", STRANGER, NOT_ENOUGH, _bleeds),
    Attack(
        "the payer names a deposit that it does not bring",
        PAYER,
        NOT_ENOUGH,
        lambda w: w.open(100 * GRAM, value=GRAM),
        unopened,
        payer_opens,
    ),
    Attack(
        "the payer brings the deposit and not the rent",
        PAYER,
        NOT_ENOUGH,
        lambda w: w.open(value=DEPOSIT + 1_000_000),
        unopened,
        payer_opens,
    ),
    Attack(
        "the payer names a top-up that it does not bring, to be covered by what the channel holds",
        PAYER,
        NOT_ENOUGH,
        lambda w: w.send(PAYER, cells.top_up(DEPOSIT)),
    ),
    Attack(
        "the payer names the greatest top-up that there can be",
        PAYER,
        OUT_OF_RANGE,
        lambda w: w.send(PAYER, cells.top_up(MOST_COINS)),
    ),
    Attack(
        "the payer names the greatest deposit that there can be",
        PAYER,
        OVERFLOW,
        lambda w: w.open(MOST_COINS, value=GRAM),
        unopened,
        payer_opens,
    ),
    Attack(
        "a stranger makes a gift, to be settled over the deposit", PAYEE, "ERR_OVER_DEPOSIT", _overdrawn, _gift_given
    ),
    Attack("a stranger sends gifts", STRANGER, "ERR_UNKNOWN_OP", _gifts),
    Attack(
        "dust is settled, and settled again",
        STRANGER,
        "ERR_STALE_CLAIM",
        lambda w: w.settle(w.voucher(3), STRANGER),
        _dust,
    ),
    Attack(
        "dust is all that is owed, so that its payout fails the payer's close",
        PAYEE,
        "ERR_NOT_PAYER",
        lambda w: w.close_by_release(w.release(4), PAYEE),
        _dust_is_all,
        payer_releases,
    ),
    # rent
    *(
        Attack(f"{name}, and a stranger pokes the channel", STRANGER, "ERR_NOT_CLOSING", _pokes, before, after)
        for name, before, after in (
            ("two years' rent, and all is owed", _after(2, _all_signed), payee_gets_all),
            ("a year's rent on a spent channel", _after(1, _all_settled), payee_closes),
            ("thirty years' rent on a full channel", _after(30, opened), payee_closes),
            ("thirty years' rent on a spent channel", _after(30, _all_settled), payee_closes),
            ("thirty years' rent and the payee's last nano owed", _after(30, _almost_all_settled), payee_closes),
            ("thirty years' rent and the payer closes by release", _after(30, _almost_all_settled), payer_releases),
            ("four years' rent and the payer closes by release", _after(4, _almost_all_settled), payer_releases),
            ("four years' rent and the payee closes", _after(4, _almost_all_settled), payee_closes),
            ("four years' rent and the payer leaves", _after(4, _almost_all_settled), payer_leaves),
        )
    ),
    *(
        Attack(f"{name}, and the payee would have more", PAYEE, "ERR_OVER_DEPOSIT", _overdrawn, before, after)
        for name, before, after in (
            ("thirty years' rent", _after(30, _all_settled), payer_leaves),
            ("four years' rent", _after(4, _almost_all_settled), payer_leaves),
            ("a balance of the prepaid rent alone", _all_settled, payer_leaves),
        )
    ),
    Attack(
        "the balance was drained to the last nano, and a voucher that it paid in part comes again",
        STRANGER,
        "ERR_STALE_CLAIM",
        lambda w: w.settle(w.voucher(DEPOSIT), STRANGER),
        _drained,
    ),
    Attack(
        "the balance was drained to the last nano, and is finalised before its time",
        STRANGER,
        "ERR_NOT_CLOSING",
        lambda w: w.finalise(STRANGER),
        _drained,
        payer_leaves,
    ),
)
