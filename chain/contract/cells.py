"""Cells of the channel contract, to and from this package's types. The layouts are those of channel.tolk."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from pytoniq_core import Address, Builder, Cell, Slice, StateInit, begin_cell

from chain.errors import ChannelUnusable
from chain.ledger import ChannelState, ChannelTerms, Op
from chain.voucher import Claim

CALL_VALUE_NANO = 20_000_000
"""Enough to attach to any operation at five times the prices of 2026; what is not used comes back."""

MIN_DEPOSIT_NANO = 10_000_000
"""The contract takes no deposit or top-up below this."""

_OPCODES: dict[Op, int] = {
    "open": 0x42590001,
    "top_up": 0x42590002,
    "settle": 0x42590003,
    "close_by_payee": 0x42590004,
    "close_by_release": 0x42590005,
    "start_close": 0x42590006,
    "finalise": 0x42590007,
}
_OPS = {opcode: op for op, opcode in _OPCODES.items()}


@cache
def code() -> Cell:
    """The compiled contract."""
    return Cell.one_from_boc(files(__package__).joinpath("channel.boc").read_bytes())


@cache
def code_hash() -> bytes:
    """The 32 bytes that every channel's code must hash to, as pinned when it was compiled."""
    return bytes.fromhex(files(__package__).joinpath("channel.hash").read_text())


def state_init(terms: ChannelTerms) -> StateInit:
    """The code and first data of a channel, to be sent along with its first deposit.

    Raises `ChannelUnusable` for terms that no channel can have: a key or salt that is not 32 bytes, a bad address.
    """
    return StateInit(code=code(), data=_channel_data(terms))


def channel_id(terms: ChannelTerms) -> bytes:
    """The 32-byte account id that `terms` give. Raises `ChannelUnusable` as `state_init` does."""
    account_id: bytes = state_init(terms).serialize().hash
    return account_id


def channel_address(channel: bytes) -> Address:
    """Where the channel with this account id lives."""
    return Address((0, channel))


def open_channel(amount_nano: int, query_id: int = 0) -> Cell:
    """Open with exactly this deposit. Send it with the state init; attach the amount and `CALL_VALUE_NANO`."""
    return _message("open", query_id).store_coins(amount_nano).end_cell()


def top_up(amount_nano: int, query_id: int = 0) -> Cell:
    """Add exactly this to the deposit. Attach the amount and `CALL_VALUE_NANO`."""
    return _message("top_up", query_id).store_coins(amount_nano).end_cell()


def settle(voucher: Claim, query_id: int = 0) -> Cell:
    """Carry a payer's voucher. For this and all below attach `CALL_VALUE_NANO`."""
    return _store_claim(_message("settle", query_id), voucher).end_cell()


def close_by_payee(voucher: Claim | None, query_id: int = 0) -> Cell:
    """Close at once, with a last voucher if there is one."""
    body = _message("close_by_payee", query_id).store_bit_int(voucher is not None)
    return (body if voucher is None else _store_claim(body, voucher)).end_cell()


def close_by_release(release: Claim, query_id: int = 0) -> Cell:
    """Close at once with the payee's release."""
    return _store_claim(_message("close_by_release", query_id), release).end_cell()


def start_close(query_id: int = 0) -> Cell:
    """Start the challenge period."""
    return _message("start_close", query_id).end_cell()


def finalise(query_id: int = 0) -> Cell:
    """Close after the challenge period."""
    return _message("finalise", query_id).end_cell()


def operation(body: Cell) -> Op | None:
    """Which operation a message to a channel asks for; `None` for anything else that may arrive there."""
    source = body.begin_parse()
    return _OPS.get(source.load_uint(32)) if len(body.bits) >= 32 else None


def channel_state(channel: bytes, state: StateInit, balance_nano: int) -> ChannelState:
    """Read what an account holds. `state` must be proven; then so is the result.

    Raises `ChannelUnusable` if the account is not a channel of ours: other code, or data that did not begin as an
    empty channel with the terms it shows, which could claim any deposit.
    """
    if state.code is None or state.data is None or state.code.hash != code_hash():
        raise ChannelUnusable("the account does not run the channel contract")
    try:
        found = _read_channel(state.data.begin_parse(), balance_nano)
    except Exception as error:  # the reader raises many kinds for data that is not a channel's
        raise ChannelUnusable("the account's data are not a channel's") from error
    if channel_id(found.terms) != channel:
        raise ChannelUnusable("the channel was not opened empty with the terms that it shows")
    return found


def _message(op: Op, query_id: int) -> Builder:
    return begin_cell().store_uint(_OPCODES[op], 32).store_uint(query_id, 64)


def _store_claim(to: Builder, claim: Claim) -> Builder:
    """The contract knows the rest of what was signed: purpose, network and channel."""
    return to.store_uint(claim.amount_nano, 64).store_bytes(claim.signature)


def _channel_data(terms: ChannelTerms) -> Cell:
    if not len(terms.payer_key) == len(terms.payee_key) == len(terms.salt) == 32:
        raise ChannelUnusable("keys and salt of a channel are 32 bytes each")
    try:
        return _fresh_channel(_terms(terms))
    except Exception as error:  # the builder raises many kinds for what does not fit a field
        raise ChannelUnusable("these terms do not fit a channel") from error


def _fresh_channel(terms: Cell) -> Cell:
    nothing_yet = begin_cell().store_coins(0).store_coins(0).store_uint(0, 64)
    return nothing_yet.store_ref(terms).end_cell()


def _terms(terms: ChannelTerms) -> Cell:
    release = begin_cell().store_bytes(terms.payee_key).store_bytes(terms.salt).end_cell()
    cell = begin_cell().store_address(_address(terms.payer)).store_address(_address(terms.payee))
    cell = cell.store_bytes(terms.payer_key)
    return cell.store_uint(terms.challenge_period_s, 32).store_uint(terms.open_before, 32).store_ref(release).end_cell()


def _address(text: str) -> Address:
    address = Address(text)
    if address.wc not in (-1, 0) or len(address.hash_part) != 32:  # the reader takes any length
        raise ValueError("not a TON address")
    return address


def _read_channel(data: Slice, balance_nano: int) -> ChannelState:
    deposited, settled, close_at = data.load_coins(), data.load_coins(), data.load_uint(64)
    return ChannelState(
        terms=_read_terms(data.load_ref().begin_parse()),
        deposited_nano=deposited,
        settled_nano=settled,
        close_at=close_at,
        balance_nano=balance_nano,
    )


def _read_terms(terms: Slice) -> ChannelTerms:
    payer, payee = _read_address(terms), _read_address(terms)
    payer_key = terms.load_bytes(32)
    challenge_period_s, open_before = terms.load_uint(32), terms.load_uint(32)
    release = terms.load_ref().begin_parse()
    return ChannelTerms(
        payer=payer,
        payee=payee,
        payer_key=payer_key,
        payee_key=release.load_bytes(32),
        challenge_period_s=challenge_period_s,
        open_before=open_before,
        salt=release.load_bytes(32),
    )


def _read_address(source: Slice) -> str:
    address: Any = source.load_address()
    if not isinstance(address, Address):
        raise TypeError("not an internal address")
    text: str = address.to_str(is_user_friendly=False)
    return text
