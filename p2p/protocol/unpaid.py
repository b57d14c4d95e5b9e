"""Core: the ends of an answer that costs nothing, because it is given, or because nothing is charged.

No channel carries it. Where messages and receipts have a place for one there are zeros, and so for vouchers.
"""

from __future__ import annotations

from chain.channel import Payee, Payer, State
from chain.voucher import Claim
from p2p.errors import RemoteError
from p2p.protocol.session import Save, SaveClaim, SaveReceipt

NO_CHANNEL = bytes(32)
NO_KEY = bytes(32)
_NO_SIGNATURE = bytes(64)
_NO_CHAIN = 0


class _Nobody:
    """Signs vouchers for nothing, with nothing."""

    public_key = NO_KEY

    def sign(self, message: bytes) -> bytes:
        return _NO_SIGNATURE


def unpaid_payer() -> Payer:
    """The client's end. It never authorises more than nothing."""
    payer = Payer(NO_CHANNEL, _NO_CHAIN, _Nobody())
    payer.state = State.OPEN
    return payer


def unpaid_payee() -> Payee:
    """The provider's end. It takes no voucher for more than nothing."""
    payee = Payee(NO_CHANNEL, _NO_CHAIN, NO_KEY, lambda *_: False)
    payee.state = State.OPEN
    return payee


def require_no_channel(first: Claim) -> None:
    """A session that costs nothing begins without a channel. Raises `RemoteError`."""
    if first.channel != NO_CHANNEL or first.amount_nano:
        raise RemoteError("bad_voucher", "a voucher for what costs nothing")


def is_to_be_saved(save: Save) -> bool:
    """Of what costs nothing there is only the receipt to be kept."""
    if isinstance(save, SaveReceipt):
        return True
    return (save.claim.channel if isinstance(save, SaveClaim) else save.channel) != NO_CHANNEL
