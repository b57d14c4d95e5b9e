"""One channel on the real TVM at a time of our own, for tests: who sends what, and where the money goes.

Every message is checked for conservation: nothing appears and nothing is lost, and nobody is paid nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from pytoniq_core import Address, Cell, MessageAny, StateInit
from pytoniq_core.tlb.transaction import ExternalMsgInfo

from chain.contract import cells
from chain.devnet.chain import GLOBAL_ID, Chain, Executed, internal_message
from chain.devnet.vm import NotAccepted, Vm
from chain.keys import Ed25519Signer
from chain.ledger import ChannelState, ChannelTerms
from chain.voucher import RELEASE_TAG, VOUCHER_TAG, Claim, sign_claim

SOURCE = (Path(cells.__file__).parent / "channel.tolk").read_text()
CONST = {
    name: int(value, 0)
    for name, value in re.findall(r"const (\w+) *= (0x[0-9a-f]+|\d+)(?: +//.*)?$", SOURCE, re.MULTILINE)
}
CODE = {name: value for name, value in CONST.items() if name.startswith("ERR_")}
NOT_ENOUGH = 37  # the action phase's own code: the message did not bring what it was to leave or to send
OUT_OF_GAS = -14  # the TVM's own

GRAM = 10**9
DEPOSIT = GRAM
SIGNED = 400_000_000
VALUE = cells.CALL_VALUE_NANO
NOW = 1_790_000_000
CHALLENGE_S = 3600
YEAR_S = 365 * 86400

PAYER, PAYEE, STRANGER = (Address((0, bytes([n]) * 32)) for n in (0xA1, 0xB2, 0xCC))
PAYER_KEY, PAYEE_KEY, STRANGER_KEY = (Ed25519Signer(bytes([n]) * 32) for n in (1, 2, 3))

VM = Vm.from_package()


class Outcome(NamedTuple):
    """What one message to a channel did."""

    exit_code: int | None  # of the code or of its actions; `None` if no code ran
    gas: int
    cost_nano: int  # fees of the channel's transaction and of forwarding what it sent
    rent_nano: int
    fell_nano: int  # by how much the channel's balance is lower
    received: dict[str, list[int]]  # address -> values that arrived there, in order


class World:
    """A chain at a time of our own, and one channel's terms."""

    def __init__(self, *, workchain: int = 0, **terms: Any) -> None:
        self.now = NOW
        self.chain = Chain(VM, lambda: self.now)
        fresh = ChannelTerms(
            payer=raw(PAYER),
            payee=raw(PAYEE),
            payer_key=PAYER_KEY.public_key,
            payee_key=PAYEE_KEY.public_key,
            challenge_period_s=CHALLENGE_S,
            open_before=NOW + 600,
            salt=bytes(31) + b"\x01",
        )
        self.terms = msgspec.structs.replace(fresh, **terms)
        self.channel = cells.channel_id(self.terms)
        self.address = Address((workchain, self.channel))
        self.gained: Counter[str] = Counter()  # by each address: what it received less what it sent
        self.signed = SIGNED  # the highest amount that the payer has signed, for those who play to the end
        self.rent_nano = 0  # that the channel paid
        self.last: Outcome | None = None

    @property
    def init(self) -> StateInit:
        return cells.state_init(self.terms)

    @property
    def balance(self) -> int:
        return self.chain.balance(self.address)

    def state(self) -> ChannelState | None:
        contract = self.chain.contract(self.address)
        return None if contract is None else cells.channel_state(self.channel, *contract)

    def known(self) -> ChannelState:
        state = self.state()
        assert state is not None
        return state

    def send(
        self, source: Address, body: Cell, value: int = VALUE, init: StateInit | None = None, *, bounce: bool = True
    ) -> Outcome:
        """Send a message to the channel and add up where the money went."""
        return self.deliver(internal_message(source, self.address, value, body, init, bounce=bounce))

    def deliver(self, message: Cell) -> Outcome:
        """`send` a message that was made elsewhere."""
        before = self.balance
        first, *followed = self.chain.send(message)
        outcome = _outcome(first, followed, before - self.balance)
        sent = first.transaction.in_msg.info
        arrived = sum(sum(values) for values in outcome.received.values())
        assert sent.value_coins + outcome.fell_nano == arrived + outcome.cost_nano
        self.gained[raw(sent.src)] -= sent.value_coins
        for address, values in outcome.received.items():
            self.gained[address] += sum(values)
        self.rent_nano += outcome.rent_nano
        self.last = outcome
        return outcome

    def send_external(self, body: Cell) -> bool:
        """Send a message from outside; whether the channel took it."""
        try:
            self.chain.send_external(MessageAny(ExternalMsgInfo(None, self.address, 0), None, body).serialize())
        except NotAccepted:
            return False
        return True

    def open(self, deposit: int = DEPOSIT, source: Address = PAYER, value: int | None = None) -> Outcome:
        return self.send(source, cells.open_channel(deposit), deposit + VALUE if value is None else value, self.init)

    def top_up(self, amount: int = GRAM, source: Address = PAYER) -> Outcome:
        return self.send(source, cells.top_up(amount), amount + VALUE)

    def voucher(self, amount: int, *, signer: Ed25519Signer = PAYER_KEY, tag: int = VOUCHER_TAG) -> Claim:
        return sign_claim(signer, tag, GLOBAL_ID, self.channel, amount)

    def release(self, amount: int, *, signer: Ed25519Signer = PAYEE_KEY, tag: int = RELEASE_TAG) -> Claim:
        return sign_claim(signer, tag, GLOBAL_ID, self.channel, amount)

    def settle(self, claim: Claim, source: Address = PAYEE, value: int = VALUE) -> Outcome:
        return self.send(source, cells.settle(claim), value)

    def close_by_payee(self, claim: Claim | None, source: Address = PAYEE) -> Outcome:
        return self.send(source, cells.close_by_payee(claim))

    def close_by_release(self, claim: Claim, source: Address = PAYER) -> Outcome:
        return self.send(source, cells.close_by_release(claim))

    def start_close(self, source: Address = PAYER) -> Outcome:
        return self.send(source, cells.start_close())

    def finalise(self, source: Address = PAYER) -> Outcome:
        return self.send(source, cells.finalise())


def _outcome(first: Executed, followed: list[Executed], fell: int) -> Outcome:
    transaction = first.transaction
    description = transaction.description
    received: dict[str, list[int]] = {}
    for each in followed:
        value = each.transaction.in_msg.info.value_coins
        assert value > 0 or each.address == transaction.in_msg.info.src, "a payout of nothing"
        received.setdefault(raw(each.address), []).append(value)
    forwarded = sum(message.info.fwd_fee for message in transaction.out_msgs)
    computed, action = description.compute_ph, description.action
    ran = computed.type_ != "skipped"
    return Outcome(
        exit_code=(computed.exit_code or (action.result_code if action else 0)) if ran else None,
        gas=computed.gas_used if ran else 0,
        cost_nano=transaction.total_fees.grams + forwarded,
        rent_nano=description.storage_ph.storage_fees_collected if description.storage_ph else 0,
        fell_nano=fell,
        received=received,
    )


def raw(address: Address) -> str:
    text: str = address.to_str(is_user_friendly=False)
    return text


def at(address: Address, outcome: Outcome) -> list[int]:
    """What arrived there."""
    return outcome.received.get(raw(address), [])
