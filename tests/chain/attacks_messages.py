"""Attacks with messages that are malformed, come from outside, or pretend to be our own that bounced."""

from __future__ import annotations

from collections.abc import Callable

from attack import Attack, payer_opens
from channel_world import GRAM, PAYEE, PAYER, SIGNED, STRANGER, STRANGER_KEY, VALUE, World
from pytoniq_core import Address, Cell, MessageAny, begin_cell
from pytoniq_core.tlb.transaction import ExternalMsgInfo

from chain.contract import cells
from chain.devnet.chain import internal_message
from chain.devnet.vm import NotAccepted

UNDERFLOW = 9  # the TVM's own: a cell ends before what is read from it

Body = Callable[[World], Cell]

BODIES: dict[str, tuple[Address, Body]] = {
    "nothing": (STRANGER, lambda w: Cell.empty()),
    "a settle": (PAYEE, lambda w: cells.settle(w.voucher(SIGNED))),
    "a close by the payee": (PAYEE, lambda w: cells.close_by_payee(w.voucher(SIGNED))),
    "a close by release": (PAYER, lambda w: cells.close_by_release(w.release(0))),
    "a start of closing": (PAYER, lambda w: cells.start_close()),
    "a top-up": (PAYER, lambda w: cells.top_up(GRAM)),
}


def _settle(world: World) -> Cell:
    return cells.settle(world.voucher(SIGNED))


def _cut(body: Cell, bits: int) -> Cell:
    """The first bits of a body."""
    return begin_cell().store_bits(body.bits[:bits]).end_cell()


def _op(opcode: int) -> Cell:
    return begin_cell().store_uint(opcode, 32).store_uint(0, 64).end_cell()


def _text() -> Cell:
    return begin_cell().store_uint(0, 32).store_bytes(b"give it all to me").end_cell()


def _shifted(world: World) -> Cell:
    """A good voucher, padded at the front."""
    claim = world.voucher(SIGNED)
    return (
        begin_cell()
        .store_bits(cells.settle(claim).bits[:96])
        .store_uint(0, 8)
        .store_bits(cells.settle(claim).bits[96:])
        .end_cell()
    )


def _followed(world: World) -> Cell:
    """A forged voucher, and the good one behind it and below it."""
    forged = cells.settle(world.voucher(SIGNED + 1, signer=STRANGER_KEY))
    good = _settle(world)
    return begin_cell().store_bits(forged.bits + good.bits[:200]).store_ref(good).end_cell()


def _below(world: World) -> Cell:
    """An operation whose voucher is in a reference, as cells once were laid out."""
    good = _settle(world)
    return (
        begin_cell().store_bits(good.bits[:96]).store_ref(begin_cell().store_bits(good.bits[96:]).end_cell()).end_cell()
    )


def _deep(world: World) -> Cell:
    cell = _settle(world)
    for _ in range(200):
        cell = begin_cell().store_ref(cell).end_cell()
    return cell


def _sends(body: Body) -> Callable[[World], object]:
    return lambda world: world.send(STRANGER, body(world))


def _from_outside(body: Body) -> Callable[[World], object]:
    return lambda world: world.send_external(body(world))


def _junk(world: World) -> None:
    for n in range(40):
        junk = begin_cell().store_uint(n, 32).store_bytes(bytes([n]) * n).store_ref(cells.finalise()).end_cell()
        world.send(STRANGER, junk, bounce=n % 2 == 0)


def _bounced(source: Address, body: Body) -> Callable[[World], object]:
    """A message that says that it is one of the channel's coming back. Validators let nobody send such a one."""

    def strike(world: World) -> None:
        message = internal_message(source, world.address, VALUE, body(world))
        forged = MessageAny.deserialize(message.begin_parse())
        forged.info.bounced = True
        world.deliver(forged.serialize())
        assert world.last is not None
        assert not world.last.received

    return strike


def _awaited(world: World) -> None:
    """There is money where the channel will be, enough to pay for a message from outside."""
    world.send(STRANGER, Cell.empty(), GRAM, bounce=False)


def _external_deploy(world: World) -> bool:
    """The first state from outside, with a body that is good from inside."""
    message = MessageAny(ExternalMsgInfo(None, world.address, 0), world.init, cells.open_channel(GRAM))
    try:
        world.chain.send_external(message.serialize())
    except NotAccepted:
        return False
    return True


def _external_flood(world: World) -> bool:
    """Were one of them taken, the channel would pay for its gas."""
    return any(world.send_external(begin_cell().store_uint(n, 32).end_cell()) for n in range(100))


MALFORMED: dict[str, tuple[int | str, Body]] = {
    "nothing": ("ERR_UNKNOWN_OP", lambda w: Cell.empty()),
    "one bit": ("ERR_UNKNOWN_OP", lambda w: begin_cell().store_bit_int(1).end_cell()),
    "31 bits of an operation": ("ERR_UNKNOWN_OP", lambda w: _cut(cells.finalise(), 31)),
    "an operation next to ours": ("ERR_UNKNOWN_OP", lambda w: _op(0x42590008)),
    "the operation before ours": ("ERR_UNKNOWN_OP", lambda w: _op(0x42590000)),
    "a payout": ("ERR_UNKNOWN_OP", lambda w: _op(0x42590010)),
    "an excess": ("ERR_UNKNOWN_OP", lambda w: _op(0xD53276DB)),
    "a text": ("ERR_UNKNOWN_OP", lambda w: _text()),
    "a voucher 200 references deep": ("ERR_UNKNOWN_OP", _deep),
    "a settle without a query id": (UNDERFLOW, lambda w: _cut(_settle(w), 32)),
    "a settle without a voucher": (UNDERFLOW, lambda w: _cut(_settle(w), 96)),
    "a settle without a signature": (UNDERFLOW, lambda w: _cut(_settle(w), 160)),
    "a settle with half a signature": (UNDERFLOW, lambda w: _cut(_settle(w), 160 + 256)),
    "a settle with 511 bits of signature": (UNDERFLOW, lambda w: _cut(_settle(w), 160 + 511)),
    "a settle with its voucher in a reference": (UNDERFLOW, _below),
    "a settle with a padded voucher": ("ERR_BAD_SIGNATURE", _shifted),
    "a settle with a forged voucher before a good one": ("ERR_BAD_SIGNATURE", _followed),
}

ATTACKS = (
    *(
        Attack(f"a stranger sends {name}", STRANGER, refused, _sends(body))
        for name, (refused, body) in MALFORMED.items()
    ),
    Attack(
        "the payer sends a top-up without an amount",
        PAYER,
        UNDERFLOW,
        lambda w: w.send(PAYER, _cut(cells.top_up(GRAM), 96), 2 * GRAM),
    ),
    Attack(
        "the payee closes with a voucher that is announced and not there",
        PAYEE,
        UNDERFLOW,
        lambda w: w.send(PAYEE, _cut(cells.close_by_payee(w.voucher(SIGNED)), 97)),
    ),
    Attack("a stranger sends heaps of junk", STRANGER, "ERR_UNKNOWN_OP", _junk),
    *(Attack(f"{name} comes from outside", STRANGER, None, _from_outside(body)) for name, (_, body) in BODIES.items()),
    Attack("a hundred messages from outside are to burn the balance", STRANGER, None, _external_flood),
    Attack("an open with its first state comes from outside", STRANGER, None, _external_deploy, _awaited, payer_opens),
    *(
        Attack(f"{name} pretends to have bounced", source, 0, _bounced(source, body))
        for name, (source, body) in BODIES.items()
    ),
)
