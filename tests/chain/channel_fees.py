"""What a channel's operations cost, whole: both W5 wallets, forwarding and the channel, at mainnet's prices of 2026-08.

A fee is what left everybody's accounts and went to no other, so nothing can be forgotten; rent is not in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from channel_world import NOW, SIGNED
from pytoniq_core import Address, Cell, MessageAny, StateInit
from pytoniq_core.tlb.block import CurrencyCollection
from pytoniq_core.tlb.transaction import ExternalMsgInfo, InternalMsgInfo

from chain import w5
from chain.contract import cells
from chain.devnet.chain import GLOBAL_ID, Chain, Executed
from chain.devnet.vm import Vm
from chain.keys import Ed25519Signer
from chain.ledger import ChannelTerms
from chain.voucher import RELEASE_TAG, VOUCHER_TAG, Claim, sign_claim

GRAM = 10**9
CHALLENGE_S = 300
ORDER_LIFE_S = 3600

PAYER_KEY, PAYEE_KEY = Ed25519Signer(b"\x01" * 32), Ed25519Signer(b"\x02" * 32)


class Fee(NamedTuple):
    """Of one operation, in nano. `gas` is the contract's own."""

    total: int
    wallets: int  # of all wallets that took part
    forwarding: int  # of messages between accounts
    channel: int
    gas: int


class Wallet:
    """A W5 wallet that is deployed and holds money."""

    def __init__(self, chain: Chain, seed: int) -> None:
        self._chain = chain
        self._signer = Ed25519Signer(bytes([seed]) * 32)
        self.raw = w5.wallet_address(self._signer.public_key, GLOBAL_ID)
        self.address = Address(self.raw)
        self._taken = 0
        chain.faucet(self.address, 50 * GRAM)
        self.send(self.address, 1, Cell.empty())

    def send(self, to: Address, value: int, body: Cell, init: StateInit | None = None) -> Sequence[Executed]:
        money = CurrencyCollection(value, None)
        message = MessageAny(InternalMsgInfo(True, True, False, None, to, money, 0, 0, 0, 0), init, body)
        valid_until = self._chain.now() + ORDER_LIFE_S
        order = w5.order(self._signer, GLOBAL_ID, self._taken, valid_until, message)
        first = None if self._taken else w5.state_init(self._signer.public_key, GLOBAL_ID)
        self._taken += 1
        return self._chain.send_external(MessageAny(ExternalMsgInfo(None, self.address, 0), first, order).serialize())


class Life:
    """One channel between two wallets, and what each operation on it cost."""

    def __init__(self) -> None:
        self._chain = Chain(Vm.from_package(), lambda: NOW)
        self._payer, self._payee, self._stranger = (Wallet(self._chain, seed) for seed in (11, 12, 13))
        self._terms = ChannelTerms(
            payer=self._payer.raw,
            payee=self._payee.raw,
            payer_key=PAYER_KEY.public_key,
            payee_key=PAYEE_KEY.public_key,
            challenge_period_s=CHALLENGE_S,
            open_before=NOW + 600,
            salt=b"\x07" * 32,
        )
        self._channel = cells.channel_id(self._terms)
        self.fees: dict[str, Fee] = {}

    def open(self) -> None:
        self._carry("open", self._payer, cells.open_channel(GRAM), GRAM, cells.state_init(self._terms))

    def top_up(self) -> None:
        self._carry("top-up", self._payer, cells.top_up(GRAM), GRAM)

    def settle(self, *, by_a_watchtower: bool = False) -> None:
        carrier, name = (self._stranger, " by a watchtower") if by_a_watchtower else (self._payee, "")
        self._carry(f"settle{name}", carrier, cells.settle(self._voucher(SIGNED)))

    def close_by_payee(self) -> None:
        self._carry("close by payee", self._payee, cells.close_by_payee(self._voucher(2 * SIGNED)))

    def close_by_release(self) -> None:
        release = sign_claim(PAYEE_KEY, RELEASE_TAG, GLOBAL_ID, self._channel, SIGNED)
        self._carry("close by release", self._payer, cells.close_by_release(release))

    def start_close(self) -> None:
        self._carry("start close", self._payer, cells.start_close())

    def finalise(self) -> None:
        self._chain.advance(CHALLENGE_S)
        self._carry("finalise", self._payer, cells.finalise())

    @property
    def total(self) -> int:
        return sum(fee.total for fee in self.fees.values())

    def _voucher(self, amount: int) -> Claim:
        return sign_claim(PAYER_KEY, VOUCHER_TAG, GLOBAL_ID, self._channel, amount)

    def _carry(self, name: str, carrier: Wallet, body: Cell, amount: int = 0, init: StateInit | None = None) -> None:
        accounts = [self._payer.address, self._payee.address, self._stranger.address]
        channel = cells.channel_address(self._channel)
        held = sum(self._chain.balance(each) for each in (*accounts, channel))
        done = carrier.send(channel, amount + cells.CALL_VALUE_NANO, body, init)
        assert not any(each.transaction.description.aborted for each in done)
        rent = sum(_rent(each.transaction) for each in done)
        total = held - rent - sum(self._chain.balance(each) for each in (*accounts, channel))
        (own,) = (each.transaction for each in done if each.address == channel)
        forwarding = sum(message.info.fwd_fee for each in done for message in each.transaction.out_msgs)
        by_channel = own.total_fees.grams - _rent(own)
        self.fees[name] = Fee(
            total, total - by_channel - forwarding, forwarding, by_channel, own.description.compute_ph.gas_used
        )


def _rent(transaction: Any) -> int:
    storage = transaction.description.storage_ph
    collected: int = storage.storage_fees_collected if storage else 0
    return collected


def released() -> Life:
    """Open, and close by release."""
    life = Life()
    life.open()
    life.close_by_release()
    return life


def closed_by_payee() -> Life:
    """Open, top up, settle, and close by the payee."""
    life = Life()
    life.open()
    life.top_up()
    life.settle()
    life.close_by_payee()
    return life


def deserted() -> Life:
    """Open, start to close, have a watchtower settle, and finalise."""
    life = Life()
    life.open()
    life.start_close()
    life.settle(by_a_watchtower=True)
    life.finalise()
    return life
