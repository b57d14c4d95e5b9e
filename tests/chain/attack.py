"""What an attack on a channel is, and how its damage is measured.

Each attack is played twice, once without the strike, on the contract's code as it runs on the real TVM. Afterwards the
honest sides go on as if nothing had happened, and the books of the two plays are compared to the nano.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from channel_world import CHALLENGE_S, CODE, GRAM, PAYEE, PAYER, SIGNED, STRANGER, VALUE, Outcome, World, at, raw
from pytoniq_core import Address

from chain.contract import cells
from chain.ledger import ChannelState

OWN_FEES_NANO = 1_000_000  # what a victim may pay for messages of its own that it sent in vain

NAMES = {raw(PAYER): "payer", raw(PAYEE): "payee", raw(STRANGER): "stranger"}

Play = Callable[[World], object]


def opened(world: World) -> None:
    """The usual start: a deposit, and a voucher that the payee has not settled."""
    assert world.open().exit_code == 0


def unopened(_: World) -> None:
    """Nobody has sent anything yet."""


def closing(world: World) -> None:
    """The payer started to close, and one second is left."""
    opened(world)
    assert world.start_close().exit_code == 0
    world.chain.advance(CHALLENGE_S - 1)


def settled_once(world: World) -> None:
    """The payee settled an older voucher."""
    opened(world)
    assert world.settle(world.voucher(SIGNED // 2)).exit_code == 0


def settled_all(world: World) -> None:
    """The payee settled the highest voucher."""
    opened(world)
    assert world.settle(world.voucher(SIGNED)).exit_code == 0


def closed(world: World) -> None:
    """The payee closed: the account is gone."""
    opened(world)
    assert world.close_by_payee(world.voucher(SIGNED)).exit_code == 0


def nothing_more(_: World) -> list[str]:
    """Ends there."""
    return []


def payee_closes(world: World) -> list[str]:
    """The payee takes what is left of what was signed, the payer gets the rest."""
    state = world.state()
    if state is None:
        return ["the channel is gone"]
    done = world.close_by_payee(world.voucher(world.signed))
    return _not_done("payee's close", done) or _mispaid(
        done, world.signed, state, VALUE - done.cost_nano + done.rent_nano
    )


def payer_opens(world: World) -> list[str]:
    """The first deposit, then a channel's usual end."""
    return _not_done("open", world.open()) or payee_closes(world)


def payer_leaves(world: World) -> list[str]:
    """The payer closes alone, bringing enough for any rent that is due, and a stranger ends it."""
    failed = _not_done("start of closing", world.send(PAYER, cells.start_close(), GRAM, bounce=False))
    world.chain.advance(CHALLENGE_S)
    return failed or _not_done("end of closing", world.finalise(STRANGER))


def payer_releases(world: World) -> list[str]:
    """The payee releases the channel and the payer closes it."""
    state = world.known()
    done = world.close_by_release(world.release(world.signed))
    return _not_done("payer's close", done) or _mispaid(done, world.signed, state)


class Attack(NamedTuple):
    """`refused` is what the channel answers to the strike's last message: an error's name in the contract, a code of
    the TVM, 0 if it is passed over, or `None` if no code ran.
    """

    name: str
    by: Address
    refused: str | int | None
    strike: Play  # returns True if something was taken that nobody may send
    before: Callable[[World], None] = opened
    after: Callable[[World], list[str]] = payee_closes
    world: Callable[[], World] = World

    @property
    def exit_code(self) -> int | None:
        return CODE[self.refused] if isinstance(self.refused, str) else self.refused


class Damage(NamedTuple):
    """`harms` says who gained or lost what against the rules; empty if the attack failed."""

    harms: list[str]
    exit_code: int | None  # of the last message of the strike
    cost_nano: int  # of the attempt, to the attacker


def play(attack: Attack) -> Damage:
    """Play it with and without the strike, and compare."""
    calm, struck = attack.world(), attack.world()
    for world in (calm, struck):
        attack.before(world)
        world.last = None
    began = struck.gained[raw(attack.by)]
    harms = ["it was taken"] if attack.strike(struck) is True else []
    exit_code = struck.last.exit_code if struck.last else None
    if attack.exit_code and exit_code == 0:
        harms.append("it was accepted")
    cost = began - struck.gained[raw(attack.by)]
    harms += _changes(calm, struck)
    attack.after(calm)
    harms += attack.after(struck)
    return Damage(harms + _shifts(raw(attack.by), calm, struck), exit_code, cost)


def _changes(calm: World, struck: World) -> list[str]:
    """In what the channel says of itself. Its balance may grow: that is a gift to the payer."""
    before, after = calm.state(), struck.state()
    if before is None or after is None:
        gone = before is not None and bool(before.deposited_nano)
        here = after is not None and bool(after.deposited_nano)
        return ["the channel was destroyed"] * gone + ["the channel was opened"] * here
    return [
        f"{name} went from {was} to {now}"
        for name in ("deposited_nano", "settled_nano", "close_at")
        if (was := getattr(before, name)) != (now := getattr(after, name))
    ] + (["the balance fell"] if after.balance_nano + struck.rent_nano < before.balance_nano + calm.rent_nano else [])


def _shifts(attacker: str, calm: World, struck: World) -> list[str]:
    """In what everybody has in the end."""
    harms = []
    for address in calm.gained.keys() | struck.gained.keys():
        shift = struck.gained[address] - calm.gained[address]
        name = NAMES.get(address, "another")
        if shift > 0 and (address == attacker or address not in NAMES):
            harms.append(f"{name} gained {shift}")
        if shift < -OWN_FEES_NANO and address != attacker and address in NAMES:
            harms.append(f"{name} lost {-shift}")
    return harms


def _not_done(what: str, outcome: Outcome) -> list[str]:
    return [] if outcome.exit_code == 0 else [f"the {what} failed with {outcome.exit_code}"]


def _mispaid(done: Outcome, signed: int, state: ChannelState, unused: int = 0) -> list[str]:
    """Whether the payee got exactly what was owed, as far as rent left it, beside what its own message left over."""
    held = state.balance_nano - done.rent_nano
    owed = min(signed - state.settled_nano, max(0, held))
    got = sum(at(PAYEE, done)) - unused
    return [f"the payee got {got} of {owed}"] if got != owed else []
