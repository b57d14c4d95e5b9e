"""Attacks by calling what is another's to call, or calling too early, too late or twice."""

from __future__ import annotations

from attack import Attack, closed, closing, nothing_more, opened, payer_opens, settled_once, unopened
from channel_world import CHALLENGE_S, DEPOSIT, GRAM, NOW, PAYEE, PAYER, STRANGER, World
from pytoniq_core import Address

from chain.contract import cells

DUST = cells.MIN_DEPOSIT_NANO


# The same account numbers on the masterchain: other accounts, held by somebody else.
PAYER_TWIN, PAYEE_TWIN = (Address((-1, address.hash_part)) for address in (PAYER, PAYEE))


def _late(world: World) -> None:
    world.now = world.terms.open_before + 1


def _closing_now(world: World) -> None:
    opened(world)
    world.start_close()


def _closing_again(world: World) -> None:
    opened(world)
    world.start_close()
    world.chain.advance(CHALLENGE_S // 2)


def _closing_unopened(world: World) -> None:
    """The payer deployed the channel by starting to close it before it was ever opened."""
    world.send(PAYER, cells.start_close(), init=world.init)


def _redeploy(world: World) -> None:
    """Anybody can: the first state of a channel is public."""
    world.send(PAYEE, cells.start_close(), init=world.init)


def _top_up_in_flight(world: World) -> None:
    """The payee closes, brings the channel back, and the payer's top-up, sent before, arrives."""
    _redeploy(world)
    world.top_up(DEPOSIT)
    world.settle(world.voucher(4 * DEPOSIT // 10))


def _late_open_repeated(world: World) -> None:
    _late(world)
    world.open()
    world.settle(world.voucher(4 * DEPOSIT // 10))


def _masterchain() -> World:
    return World(workchain=-1, open_before=NOW + 10**6)


def _open_on_masterchain(world: World) -> None:
    """The payer was talked into it: gas costs 150 times as much there."""
    world.open(value=DEPOSIT + GRAM)


def _settle_on_masterchain(world: World) -> None:
    world.settle(world.voucher(4 * DEPOSIT // 10), value=GRAM)


ATTACKS = (
    # opening
    Attack(
        "a stranger opens a channel with dust before its payer does",
        STRANGER,
        "ERR_NOT_PAYER",
        lambda w: w.open(DUST, STRANGER),
        unopened,
        payer_opens,
    ),
    Attack(
        "the payee opens a channel with dust before its payer does",
        PAYEE,
        "ERR_NOT_PAYER",
        lambda w: w.open(DUST, PAYEE),
        unopened,
        payer_opens,
    ),
    Attack(
        "the payer's twin on the masterchain opens",
        PAYER_TWIN,
        "ERR_NOT_PAYER",
        lambda w: w.open(DUST, PAYER_TWIN),
        unopened,
        payer_opens,
    ),
    Attack("an open is delivered twice and locks a second deposit", PAYEE, "ERR_ALREADY_OPEN", lambda w: w.open()),
    Attack(
        "an open that was delayed past its term",
        PAYEE,
        "ERR_TOO_LATE",
        lambda w: w.open(),
        _late,
        nothing_more,
    ),
    Attack(
        "a closed channel is opened again, late, and its old voucher settled",
        PAYEE,
        "ERR_OVER_DEPOSIT",
        _late_open_repeated,
        closed,
        nothing_more,
    ),
    Attack(
        "the payer opens with a deposit below the fees of settling it",
        PAYER,
        "ERR_LOW_DEPOSIT",
        lambda w: w.open(DUST - 1),
        unopened,
        payer_opens,
    ),
    Attack(
        "the payer opens a channel that is closing already",
        PAYER,
        "ERR_CLOSING",
        lambda w: w.open(),
        _closing_unopened,
        nothing_more,
    ),
    Attack(
        "one voucher is settled on the basechain and on a twin of the channel on the masterchain",
        PAYEE,
        "ERR_OVER_DEPOSIT",
        _settle_on_masterchain,
        _open_on_masterchain,
        nothing_more,
        _masterchain,
    ),
    Attack(
        "the payer opens the channel's twin on the masterchain",
        PAYER,
        "ERR_NOT_BASECHAIN",
        _open_on_masterchain,
        unopened,
        nothing_more,
        _masterchain,
    ),
    # topping up
    Attack("a stranger tops up", STRANGER, "ERR_NOT_PAYER", lambda w: w.top_up(GRAM, STRANGER)),
    Attack("the payee tops up", PAYEE, "ERR_NOT_PAYER", lambda w: w.top_up(GRAM, PAYEE)),
    Attack("the payer's twin tops up", PAYER_TWIN, "ERR_NOT_PAYER", lambda w: w.top_up(GRAM, PAYER_TWIN)),
    Attack(
        "the payer tops up while closing, so that the payee goes on serving",
        PAYER,
        "ERR_CLOSING",
        lambda w: w.top_up(),
        closing,
    ),
    Attack("the payer tops up with dust", PAYER, "ERR_LOW_DEPOSIT", lambda w: w.top_up(DUST - 1)),
    Attack(
        "a top-up takes the place of an open that would be too late",
        PAYEE,
        "ERR_NOT_OPEN",
        lambda w: w.send(PAYER, cells.top_up(GRAM), 2 * GRAM, w.init),
        _late,
        nothing_more,
    ),
    Attack(
        "the payee closes, deploys the channel again, and settles from a top-up that was in flight",
        PAYEE,
        "ERR_OVER_DEPOSIT",
        _top_up_in_flight,
        closed,
        nothing_more,
    ),
    # closing
    Attack(
        "a stranger closes as if it were the payee",
        STRANGER,
        "ERR_NOT_PAYEE",
        lambda w: w.close_by_payee(None, STRANGER),
    ),
    Attack(
        "a stranger closes with the payee's voucher",
        STRANGER,
        "ERR_NOT_PAYEE",
        lambda w: w.close_by_payee(w.voucher(400_000_000), STRANGER),
    ),
    Attack(
        "the payee's twin closes",
        PAYEE_TWIN,
        "ERR_NOT_PAYEE",
        lambda w: w.close_by_payee(w.voucher(400_000_000), PAYEE_TWIN),
    ),
    Attack(
        "the payer closes as if it were the payee, without a voucher",
        PAYER,
        "ERR_NOT_PAYEE",
        lambda w: w.close_by_payee(None, PAYER),
    ),
    Attack(
        "the payer closes as if it were the payee, with an old voucher",
        PAYER,
        "ERR_NOT_PAYEE",
        lambda w: w.close_by_payee(w.voucher(1), PAYER),
        settled_once,
    ),
    Attack(
        "a stranger carries a release and takes the rest",
        STRANGER,
        "ERR_NOT_PAYER",
        lambda w: w.close_by_release(w.release(400_000_000), STRANGER),
    ),
    Attack(
        "the payee carries its own release and takes the rest",
        PAYEE,
        "ERR_NOT_PAYER",
        lambda w: w.close_by_release(w.release(400_000_000), PAYEE),
    ),
    Attack(
        "the payer's twin carries a release and takes the rest",
        PAYER_TWIN,
        "ERR_NOT_PAYER",
        lambda w: w.close_by_release(w.release(400_000_000), PAYER_TWIN),
    ),
    Attack(
        "a stranger starts to close, to make the payee settle and leave",
        STRANGER,
        "ERR_NOT_PAYER",
        lambda w: w.start_close(STRANGER),
    ),
    Attack("the payee starts to close", PAYEE, "ERR_NOT_PAYER", lambda w: w.start_close(PAYEE)),
    Attack("the payer's twin starts to close", PAYER_TWIN, "ERR_NOT_PAYER", lambda w: w.start_close(PAYER_TWIN)),
    Attack(
        "the payer starts to close again and again, to move the end",
        PAYER,
        "ERR_CLOSING",
        lambda w: [w.start_close() for _ in range(3)],
        _closing_again,
    ),
    Attack("the payer finalises an open channel", PAYER, "ERR_NOT_CLOSING", lambda w: w.finalise()),
    Attack("the payee finalises an open channel", PAYEE, "ERR_NOT_CLOSING", lambda w: w.finalise(PAYEE)),
    Attack("a stranger finalises an open channel", STRANGER, "ERR_NOT_CLOSING", lambda w: w.finalise(STRANGER)),
    Attack(
        "a stranger finalises a channel before it is opened",
        STRANGER,
        "ERR_NOT_CLOSING",
        lambda w: w.send(STRANGER, cells.finalise(), init=w.init),
        unopened,
        payer_opens,
    ),
    Attack("the payer finalises a second early", PAYER, "ERR_TOO_EARLY", lambda w: w.finalise(), closing),
    Attack(
        "a stranger finalises a second early",
        STRANGER,
        "ERR_TOO_EARLY",
        lambda w: w.finalise(STRANGER),
        closing,
    ),
    Attack(
        "the payer starts to close and finalises in the same second",
        PAYER,
        "ERR_TOO_EARLY",
        lambda w: w.finalise(),
        _closing_now,
    ),
)
