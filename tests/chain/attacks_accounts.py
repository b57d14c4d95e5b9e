"""Attacks on the account itself: born with data or other code, deployed again, called after its end."""

from __future__ import annotations

from collections.abc import Callable

from attack import Attack, closed, nothing_more, payer_opens, settled_once, unopened
from channel_world import DEPOSIT, GRAM, PAYEE, PAYER, SIGNED, STRANGER, VALUE, World
from pytoniq_core import Address, Cell, StateInit, begin_cell

from chain.contract import cells
from chain.devnet.chain import internal_message
from chain.errors import ChannelUnusable


def _born(deposited: int, settled: int, close_at: int) -> Callable[[World], bool]:
    """A channel with honest terms whose data say what never happened. Does a payee's check believe them?"""

    def strike(world: World) -> bool:
        terms = world.init.data.refs[0]
        data = begin_cell().store_coins(deposited).store_coins(settled).store_uint(close_at, 64).store_ref(terms)
        return _is_believed(world, StateInit(code=cells.code(), data=data.end_cell()))

    return strike


def _other_code(world: World) -> bool:
    return _is_believed(world, StateInit(code=Cell.empty(), data=world.init.data))


def _more_data(world: World) -> bool:
    data = begin_cell().store_slice(world.init.data.begin_parse()).store_uint(7, 8).end_cell()
    return _is_believed(world, StateInit(code=cells.code(), data=data))


def _is_believed(world: World, init: StateInit) -> bool:
    """Deploy it, fund it well, and look at it as a payee does."""
    address = Address((0, init.serialize().hash))
    world.chain.send(internal_message(STRANGER, address, 10 * GRAM, cells.open_channel(GRAM), init))
    contract = world.chain.contract(address)
    assert contract is not None
    try:
        state = cells.channel_state(address.hash_part, *contract)
    except ChannelUnusable:
        return False
    return state.deposited_nano > 0


def _deployed_anew(by: Address, body: Callable[[World], Cell]) -> Callable[[World], object]:
    """The first state comes along with a call: does it take the place of what is there, or bring back what was?"""
    return lambda world: world.send(by, body(world), init=world.init)


def _with_other_state(world: World) -> None:
    """A call with a state that is not the account's, as if it could be put in the place of the old one."""
    data = begin_cell().store_coins(10**18).store_coins(0).store_uint(0, 64).store_ref(world.init.data.refs[0])
    world.send(
        STRANGER, cells.settle(world.voucher(2 * DEPOSIT)), init=StateInit(code=cells.code(), data=data.end_cell())
    )


def _every_call(world: World) -> None:
    """To an address at which there is nothing any more."""
    for by, body in (
        (PAYEE, cells.settle(world.voucher(SIGNED))),
        (PAYEE, cells.close_by_payee(world.voucher(SIGNED))),
        (PAYER, cells.close_by_release(world.release(0))),
        (PAYER, cells.start_close()),
        (STRANGER, cells.finalise()),
    ):
        world.send(by, body)


def _given_again(world: World) -> None:
    """A stranger leaves money where a channel was, and deploys it to take more out."""
    world.send(STRANGER, Cell.empty(), GRAM, bounce=False)
    world.send(STRANGER, cells.settle(world.voucher(SIGNED)), VALUE, world.init)


ATTACKS = (
    Attack("a channel is born with a deposit", PAYER, None, _born(10 * GRAM, 0, 0), unopened, nothing_more),
    Attack("a channel is born with its end set", PAYER, None, _born(10 * GRAM, 0, 1), unopened, nothing_more),
    Attack(
        "a channel is born with more settled than deposited", PAYER, None, _born(1, 10**9, 0), unopened, nothing_more
    ),
    Attack("a channel is born with more data", PAYER, None, _more_data, unopened, nothing_more),
    Attack("a channel is born with other code", PAYER, None, _other_code, unopened, nothing_more),
    Attack(
        "the payee deploys the channel first and settles before there is a deposit",
        PAYEE,
        "ERR_OVER_DEPOSIT",
        _deployed_anew(PAYEE, lambda w: cells.settle(w.voucher(SIGNED))),
        unopened,
        payer_opens,
    ),
    Attack(
        "a stranger deploys the channel first with junk",
        STRANGER,
        "ERR_UNKNOWN_OP",
        _deployed_anew(STRANGER, lambda w: Cell.empty()),
        unopened,
        payer_opens,
    ),
    Attack(
        "the first state is sent again to wipe out what was settled",
        PAYEE,
        "ERR_STALE_CLAIM",
        _deployed_anew(PAYEE, lambda w: cells.settle(w.voucher(SIGNED // 2))),
        settled_once,
    ),
    Attack("another state is sent to take the place of the data", STRANGER, "ERR_OVER_DEPOSIT", _with_other_state),
    Attack("every operation is called after the end", PAYEE, None, _every_call, closed, nothing_more),
    Attack(
        "the payee deploys a closed channel again and settles its old voucher",
        PAYEE,
        "ERR_OVER_DEPOSIT",
        _deployed_anew(PAYEE, lambda w: cells.settle(w.voucher(SIGNED))),
        closed,
        nothing_more,
    ),
    Attack(
        "the payee deploys a closed channel again and closes it again with its old voucher",
        PAYEE,
        "ERR_OVER_DEPOSIT",
        _deployed_anew(PAYEE, lambda w: cells.close_by_payee(w.voucher(SIGNED))),
        closed,
        nothing_more,
    ),
    Attack(
        "the payer deploys a closed channel again and closes it by an old release",
        PAYER,
        "ERR_OVER_DEPOSIT",
        _deployed_anew(PAYER, lambda w: cells.close_by_release(w.release(1))),
        closed,
        nothing_more,
    ),
    Attack(
        "money is left where a channel was, and the channel deployed again",
        STRANGER,
        "ERR_OVER_DEPOSIT",
        _given_again,
        closed,
        nothing_more,
    ),
)
