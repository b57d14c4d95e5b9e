"""The channel contract on the real TVM: what each operation does with the money, and what it refuses.

Every message sent here is also checked for conservation: nothing appears and nothing is lost.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytoniq_core import Address, Cell, MessageAny, ShardAccount, StateInit, begin_cell
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

GRAM = 10**9
DEPOSIT = GRAM
VALUE = cells.CALL_VALUE_NANO
NOW = 1_790_000_000
YEAR_S = 365 * 86400

PAYER, PAYEE, STRANGER = (Address((0, bytes([n]) * 32)) for n in (0xA1, 0xB2, 0xCC))
PAYER_KEY, PAYEE_KEY, STRANGER_KEY = (Ed25519Signer(bytes([n]) * 32) for n in (1, 2, 3))

VM = Vm.from_package()


class Outcome(NamedTuple):
    """What one message to a channel did."""

    exit_code: int
    gas: int
    cost_nano: int  # fees of the channel's transaction and of forwarding what it sent
    rent_nano: int
    fell_nano: int  # by how much the channel's balance is lower
    received: dict[str, list[int]]  # address -> values that arrived there, in order


class World:
    """A chain at a time of our own, and one channel's terms."""

    def __init__(self, **terms: Any) -> None:
        self.now = NOW
        self.chain = Chain(VM, lambda: self.now)
        fresh = ChannelTerms(
            payer=PAYER.to_str(is_user_friendly=False),
            payee=PAYEE.to_str(is_user_friendly=False),
            payer_key=PAYER_KEY.public_key,
            payee_key=PAYEE_KEY.public_key,
            challenge_period_s=3600,
            open_before=NOW + 600,
            salt=bytes(31) + b"\x01",
        )
        self.terms = msgspec.structs.replace(fresh, **terms)
        self.channel = cells.channel_id(self.terms)
        self.address = cells.channel_address(self.channel)

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
        before = self.balance
        message = internal_message(source, self.address, value, body, init, bounce=bounce)
        first, *followed = self.chain.send(message)
        outcome = _outcome(first, followed, before - self.balance)
        arrived = sum(sum(values) for values in outcome.received.values())
        assert value + outcome.fell_nano == arrived + outcome.cost_nano
        return outcome

    def open(self, deposit: int = DEPOSIT, source: Address = PAYER) -> Outcome:
        return self.send(source, cells.open_channel(deposit), deposit + VALUE, self.init)

    def voucher(self, amount: int, *, signer: Ed25519Signer = PAYER_KEY, tag: int = VOUCHER_TAG) -> Claim:
        return sign_claim(signer, tag, GLOBAL_ID, self.channel, amount)

    def release(self, amount: int, *, signer: Ed25519Signer = PAYEE_KEY, tag: int = RELEASE_TAG) -> Claim:
        return sign_claim(signer, tag, GLOBAL_ID, self.channel, amount)

    def settle(self, claim: Claim, source: Address = PAYEE, value: int = VALUE) -> Outcome:
        return self.send(source, cells.settle(GLOBAL_ID, claim), value)


def _outcome(first: Executed, followed: list[Executed], fell: int) -> Outcome:
    transaction = first.transaction
    description = transaction.description
    received: dict[str, list[int]] = {}
    for each in followed:
        to = each.address.to_str(is_user_friendly=False)
        received.setdefault(to, []).append(each.transaction.in_msg.info.value_coins)
    forwarded = sum(message.info.fwd_fee for message in transaction.out_msgs)
    computed = description.compute_ph
    action = description.action
    exit_code = getattr(computed, "exit_code", None)
    assert exit_code is not None, f"no code ran: {computed}"
    return Outcome(
        exit_code=exit_code or (action.result_code if action else 0),
        gas=computed.gas_used,
        cost_nano=transaction.total_fees.grams + forwarded,
        rent_nano=description.storage_ph.storage_fees_collected if description.storage_ph else 0,
        fell_nano=fell,
        received=received,
    )


def at(address: Address, outcome: Outcome) -> list[int]:
    return outcome.received.get(address.to_str(is_user_friendly=False), [])


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
    assert at(PAYEE, settled)[0] == 300_000_000
    assert at(carrier, settled)[-1] == VALUE - settled.cost_nano
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
    closed = opened.send(PAYEE, cells.close_by_payee(GLOBAL_ID, None))
    assert at(PAYER, closed) == [held]
    assert at(PAYEE, closed) == [VALUE - closed.cost_nano]
    assert opened.state() is None


@pytest.mark.parametrize("owed", [1, 10_000, 400_000_000, DEPOSIT])
def test_close_by_payee_pays_what_a_last_voucher_owes(opened: World, owed: int) -> None:
    held = opened.balance
    closed = opened.send(PAYEE, cells.close_by_payee(GLOBAL_ID, opened.voucher(owed)))
    assert closed.exit_code == 0
    assert at(PAYER, closed) == [held - owed]
    assert at(PAYEE, closed) == [owed + VALUE - closed.cost_nano]
    assert opened.state() is None


def test_close_by_payee_takes_a_voucher_that_was_settled_already(opened: World) -> None:
    opened.settle(opened.voucher(50_000_000), STRANGER)
    closed = opened.send(PAYEE, cells.close_by_payee(GLOBAL_ID, opened.voucher(50_000_000)))
    assert closed.exit_code == 0
    assert at(PAYEE, closed) == [VALUE - closed.cost_nano]


@pytest.mark.parametrize("owed", [1, 10_000, 400_000_000, DEPOSIT])
def test_close_by_release_pays_both_at_once(opened: World, owed: int) -> None:
    held = opened.balance
    closed = opened.send(PAYER, cells.close_by_release(GLOBAL_ID, opened.release(owed)))
    assert closed.exit_code == 0
    assert at(PAYEE, closed) == [owed]
    assert at(PAYER, closed) == [held - owed + VALUE - closed.cost_nano]
    assert opened.state() is None


def test_close_by_release_of_nothing_sends_the_payee_nothing(opened: World) -> None:
    closed = opened.send(PAYER, cells.close_by_release(GLOBAL_ID, opened.release(0)))
    assert closed.exit_code == 0
    assert at(PAYEE, closed) == []


def test_start_close_sets_the_end_and_moves_no_money(opened: World) -> None:
    started = opened.send(PAYER, cells.start_close())
    assert started.exit_code == 0
    assert started.fell_nano == 0
    assert opened.known().close_at == NOW + 3600
    assert at(PAYER, started) == [VALUE - started.cost_nano]


def test_payee_settles_while_closing_and_even_after_the_period(opened: World) -> None:
    opened.send(PAYER, cells.start_close())
    opened.chain.advance(1800)
    assert opened.settle(opened.voucher(100_000_000)).exit_code == 0
    opened.chain.advance(3600)
    assert opened.settle(opened.voucher(200_000_000)).exit_code == 0
    assert opened.known().settled_nano == 200_000_000


@pytest.mark.parametrize("carrier", [PAYER, PAYEE, STRANGER])
def test_finalise_by_anyone_pays_the_payer(opened: World, carrier: Address) -> None:
    opened.send(PAYER, cells.start_close())
    opened.chain.advance(3600)
    held = opened.balance
    finalised = opened.send(carrier, cells.finalise())
    assert finalised.exit_code == 0
    assert at(PAYER, finalised)[0] == held - finalised.rent_nano
    assert at(carrier, finalised)[-1] == VALUE + finalised.rent_nano - finalised.cost_nano
    assert opened.state() is None


# --- what is refused, and that a refusal changes nothing

Act = Callable[[World], Outcome]


def _send_signed(world: World, tag: int, global_id: int, channel: bytes) -> Outcome:
    """A settle whose claim and signature agree, with these fields."""
    claim = sign_claim(PAYER_KEY, tag, global_id, channel, 5)
    body = cells.settle(global_id, claim) if tag == VOUCHER_TAG else cells.close_by_release(global_id, claim)
    settle_op = body.begin_parse()
    settle_op.load_uint(32)
    return world.send(PAYEE, begin_cell().store_uint(0x42590003, 32).store_slice(settle_op).end_cell())


REFUSED_WHILE_OPEN: dict[str, tuple[str, Act]] = {
    "open again": ("ERR_ALREADY_OPEN", lambda w: w.open()),
    "open by a stranger": ("ERR_NOT_PAYER", lambda w: w.open(source=STRANGER)),
    "top-up by a stranger": ("ERR_NOT_PAYER", lambda w: w.send(STRANGER, cells.top_up(GRAM), 2 * GRAM)),
    "top-up by the payee": ("ERR_NOT_PAYER", lambda w: w.send(PAYEE, cells.top_up(GRAM), 2 * GRAM)),
    "tiny top-up": ("ERR_LOW_DEPOSIT", lambda w: w.send(PAYER, cells.top_up(cells.MIN_DEPOSIT_NANO - 1), GRAM)),
    "top-up with less than it names": ("ERR_LOW_VALUE", lambda w: w.send(PAYER, cells.top_up(GRAM), GRAM)),
    "voucher by a stranger": ("ERR_BAD_SIGNATURE", lambda w: w.settle(w.voucher(5, signer=STRANGER_KEY))),
    "voucher by the payee": ("ERR_BAD_SIGNATURE", lambda w: w.settle(w.voucher(5, signer=PAYEE_KEY))),
    "voucher for another amount": (
        "ERR_BAD_SIGNATURE",
        lambda w: w.settle(msgspec.structs.replace(w.voucher(5), amount_nano=6)),
    ),
    "release as voucher": (
        "ERR_BAD_TAG",
        lambda w: _send_signed(w, RELEASE_TAG, GLOBAL_ID, w.channel),
    ),
    "testnet voucher": ("ERR_BAD_NETWORK", lambda w: _send_signed(w, VOUCHER_TAG, -3, w.channel)),
    "voucher of another channel": (
        "ERR_BAD_CHANNEL",
        lambda w: _send_signed(w, VOUCHER_TAG, GLOBAL_ID, bytes(32)),
    ),
    "over the deposit": ("ERR_OVER_DEPOSIT", lambda w: w.settle(w.voucher(DEPOSIT + 1))),
    "voucher for nothing": ("ERR_STALE_CLAIM", lambda w: w.settle(w.voucher(0))),
    "settle with too little value": ("ERR_LOW_VALUE", lambda w: w.settle(w.voucher(5), value=500_000)),
    "payee's close by a stranger": ("ERR_NOT_PAYEE", lambda w: w.send(STRANGER, cells.close_by_payee(GLOBAL_ID, None))),
    "payee's close by the payer": ("ERR_NOT_PAYEE", lambda w: w.send(PAYER, cells.close_by_payee(GLOBAL_ID, None))),
    "payee's close over the deposit": (
        "ERR_OVER_DEPOSIT",
        lambda w: w.send(PAYEE, cells.close_by_payee(GLOBAL_ID, w.voucher(DEPOSIT + 1))),
    ),
    "payee's close with his own voucher": (
        "ERR_BAD_SIGNATURE",
        lambda w: w.send(PAYEE, cells.close_by_payee(GLOBAL_ID, w.voucher(5, signer=PAYEE_KEY))),
    ),
    "release carried by a stranger": (
        "ERR_NOT_PAYER",
        lambda w: w.send(STRANGER, cells.close_by_release(GLOBAL_ID, w.release(5))),
    ),
    "release carried by the payee": (
        "ERR_NOT_PAYER",
        lambda w: w.send(PAYEE, cells.close_by_release(GLOBAL_ID, w.release(5))),
    ),
    "release forged by the payer": (
        "ERR_BAD_SIGNATURE",
        lambda w: w.send(PAYER, cells.close_by_release(GLOBAL_ID, w.release(0, signer=PAYER_KEY))),
    ),
    "release over the deposit": (
        "ERR_OVER_DEPOSIT",
        lambda w: w.send(PAYER, cells.close_by_release(GLOBAL_ID, w.release(DEPOSIT + 1))),
    ),
    "start close by a stranger": ("ERR_NOT_PAYER", lambda w: w.send(STRANGER, cells.start_close())),
    "start close by the payee": ("ERR_NOT_PAYER", lambda w: w.send(PAYEE, cells.start_close())),
    "finalise while open": ("ERR_NOT_CLOSING", lambda w: w.send(PAYER, cells.finalise())),
    "unknown operation": (
        "ERR_UNKNOWN_OP",
        lambda w: w.send(STRANGER, begin_cell().store_uint(0xDEADBEEF, 32).end_cell()),
    ),
    "plain transfer": ("ERR_UNKNOWN_OP", lambda w: w.send(STRANGER, Cell.empty())),
}


@pytest.mark.parametrize("name", REFUSED_WHILE_OPEN)
def test_refused_while_open(opened: World, name: str) -> None:
    error, act = REFUSED_WHILE_OPEN[name]
    before = opened.known()
    assert act(opened).exit_code == CODE[error]
    assert opened.known() == before


def test_voucher_cannot_be_settled_twice_or_after_a_later_one(opened: World) -> None:
    opened.settle(opened.voucher(300_000_000))
    before = opened.known()
    assert opened.settle(opened.voucher(300_000_000)).exit_code == CODE["ERR_STALE_CLAIM"]
    assert opened.settle(opened.voucher(299_999_999)).exit_code == CODE["ERR_STALE_CLAIM"]
    assert opened.known() == before


def test_release_below_what_was_settled_is_refused(opened: World) -> None:
    opened.settle(opened.voucher(300_000_000))
    refused = opened.send(PAYER, cells.close_by_release(GLOBAL_ID, opened.release(299_999_999)))
    assert refused.exit_code == CODE["ERR_STALE_CLAIM"]


def test_a_closing_channel_takes_no_money_and_ends_no_sooner(opened: World) -> None:
    opened.send(PAYER, cells.start_close())
    before = opened.known()
    assert opened.send(PAYER, cells.top_up(GRAM), 2 * GRAM).exit_code == CODE["ERR_CLOSING"]
    assert opened.send(PAYER, cells.start_close()).exit_code == CODE["ERR_CLOSING"]
    opened.chain.advance(3599)
    assert opened.send(PAYER, cells.finalise()).exit_code == CODE["ERR_TOO_EARLY"]
    assert msgspec.structs.replace(opened.known(), balance_nano=0) == msgspec.structs.replace(before, balance_nano=0)


def test_the_first_deposit_must_be_in_time_large_enough_and_the_payers(world: World) -> None:
    assert world.open(source=STRANGER).exit_code == CODE["ERR_NOT_PAYER"]
    assert world.open(cells.MIN_DEPOSIT_NANO - 1).exit_code == CODE["ERR_LOW_DEPOSIT"]
    world.now = world.terms.open_before + 1
    assert world.open().exit_code == CODE["ERR_TOO_LATE"]
    assert world.known().deposited_nano == world.balance == 0


def test_open_is_taken_until_the_last_second(world: World) -> None:
    world.now = world.terms.open_before
    assert world.open(cells.MIN_DEPOSIT_NANO).exit_code == 0


def test_a_channel_deployed_by_a_stranger_can_still_be_opened_by_its_payer(world: World) -> None:
    """The state is public; whoever deploys it first can neither open it nor get in the way."""
    assert world.open(source=STRANGER).exit_code == CODE["ERR_NOT_PAYER"]
    assert world.send(PAYER, cells.top_up(GRAM), 2 * GRAM).exit_code == CODE["ERR_NOT_OPEN"]
    assert world.settle(world.voucher(5)).exit_code == CODE["ERR_OVER_DEPOSIT"]
    world.now += 500
    assert world.open().exit_code == 0
    assert world.known().deposited_nano == DEPOSIT


def test_nothing_works_on_a_closed_channel(opened: World) -> None:
    opened.send(PAYEE, cells.close_by_payee(GLOBAL_ID, opened.voucher(70_000_000)))
    message = internal_message(
        PAYEE, opened.address, VALUE, cells.settle(GLOBAL_ID, opened.voucher(80_000_000)), bounce=True
    )
    first, back = opened.chain.send(message)
    assert first.transaction.description.compute_ph.type_ == "skipped"
    assert back.address == PAYEE
    assert opened.state() is None


def test_external_messages_are_not_accepted(opened: World) -> None:
    before = opened.known()
    for body in (Cell.empty(), cells.settle(GLOBAL_ID, opened.voucher(5)), cells.finalise()):
        message = MessageAny(ExternalMsgInfo(None, opened.address, 0), None, body).serialize()
        with pytest.raises(NotAccepted):
            opened.chain.send_external(message)
    assert opened.known() == before


def test_a_bounced_message_is_ignored(opened: World) -> None:
    before = opened.known()
    message = internal_message(STRANGER, opened.address, VALUE, begin_cell().store_uint(0xFFFFFFFF, 32).end_cell())
    bounced = MessageAny.deserialize(message.begin_parse())
    bounced.info.bounced = True
    (done,) = opened.chain.send(bounced.serialize())
    assert done.transaction.description.compute_ph.exit_code == 0
    after = opened.known()
    assert after.balance_nano > before.balance_nano
    assert msgspec.structs.replace(after, balance_nano=0) == msgspec.structs.replace(before, balance_nano=0)


# --- over time


def test_rent_beyond_what_was_prepaid_shortens_the_payout_and_fails_nothing(opened: World) -> None:
    opened.settle(opened.voucher(DEPOSIT - 3_000_000))
    opened.chain.advance(4 * YEAR_S)
    held = opened.balance
    closed = opened.send(PAYEE, cells.close_by_payee(GLOBAL_ID, opened.voucher(DEPOSIT)))
    left = held - closed.rent_nano
    assert 0 < left < 3_000_000
    assert closed.exit_code == 0
    assert at(PAYER, closed) == []
    assert at(PAYEE, closed) == [left + VALUE - closed.cost_nano + closed.rent_nano]


def test_settle_pays_what_is_left_and_owes_the_rest_until_a_top_up(opened: World) -> None:
    opened.settle(opened.voucher(DEPOSIT - 3_000_000))
    opened.chain.advance(4 * YEAR_S)
    settled = opened.settle(opened.voucher(DEPOSIT))
    paid = at(PAYEE, settled)[0]
    assert 0 < paid < 3_000_000
    assert opened.known().settled_nano == DEPOSIT - 3_000_000 + paid
    opened.send(PAYER, cells.top_up(cells.MIN_DEPOSIT_NANO), cells.MIN_DEPOSIT_NANO + VALUE)
    assert at(PAYEE, opened.settle(opened.voucher(DEPOSIT)))[0] == 3_000_000 - paid


def test_prepaid_rent_covers_what_it_says_and_the_bounds_hold(opened: World) -> None:
    account = ShardAccount.deserialize(opened.chain.account(opened.address).begin_parse()).account  # type: ignore[union-attr]
    used = account.storage_stat.used
    assert used.cells <= CONST["STATE_CELLS"]
    assert used.bits <= CONST["STATE_BITS"]
    opened.chain.advance(2 * YEAR_S)
    settled = opened.settle(opened.voucher(DEPOSIT))
    assert at(PAYEE, settled)[0] == DEPOSIT
    assert opened.balance >= 0


def test_junk_only_makes_the_balance_grow(opened: World) -> None:
    before = opened.known()
    for n in range(40):
        junk = begin_cell().store_uint(n, 32).store_bytes(bytes([n]) * n).end_cell()
        opened.send(STRANGER, junk, VALUE, bounce=False)
    after = opened.known()
    assert after.balance_nano > before.balance_nano
    assert after.deposited_nano == before.deposited_nano


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
    closed = world.send(PAYEE, cells.close_by_payee(GLOBAL_ID, world.voucher(max(owed, before))))
    assert at(PAYEE, closed) == [max(owed, before) - before + VALUE - closed.cost_nano + closed.rent_nano]


# --- what it costs

Life = Callable[[World], list[Outcome]]


def _cooperative(w: World) -> list[Outcome]:
    return [w.open(), w.send(PAYER, cells.close_by_release(GLOBAL_ID, w.release(400_000_000)))]


def _by_payee(w: World) -> list[Outcome]:
    return [
        w.open(),
        w.send(PAYER, cells.top_up(GRAM), GRAM + VALUE),
        w.settle(w.voucher(400_000_000)),
        w.send(PAYEE, cells.close_by_payee(GLOBAL_ID, w.voucher(700_000_000))),
    ]


def _contested(w: World) -> list[Outcome]:
    done = [w.open(), w.send(PAYER, cells.start_close()), w.settle(w.voucher(400_000_000), STRANGER)]
    w.chain.advance(3600)
    return [*done, w.send(PAYER, cells.finalise())]


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
    assert max(outcome.gas for outcome in outcomes) < CONST["MAX_GAS"]
    assert at_most_nano / 2 < sum(outcome.cost_nano for outcome in outcomes) < at_most_nano


def test_every_operation_works_with_the_least_value_that_it_takes(opened: World) -> None:
    """So `callFee` is enough: a message is refused for its value, or it works."""
    least = _least_value(opened)
    assert opened.settle(opened.voucher(5), STRANGER, least).exit_code == 0
    assert opened.send(PAYER, cells.top_up(cells.MIN_DEPOSIT_NANO), cells.MIN_DEPOSIT_NANO + least).exit_code == 0
    assert opened.send(PAYER, cells.start_close(), least).exit_code == 0
    opened.chain.advance(3600)
    assert opened.send(STRANGER, cells.finalise(), least).exit_code == 0
    for by_payee in (True, False):
        world = World()
        world.open()
        payees, payers = world.voucher(5), world.release(5)
        body = cells.close_by_payee(GLOBAL_ID, payees) if by_payee else cells.close_by_release(GLOBAL_ID, payers)
        assert world.send(PAYEE if by_payee else PAYER, body, least).exit_code == 0


def _least_value(opened: World) -> int:
    low, high = 0, VALUE
    while low + 1 < high:
        middle = (low + high) // 2
        refused = opened.settle(opened.voucher(DEPOSIT + 1), STRANGER, middle).exit_code != CODE["ERR_OVER_DEPOSIT"]
        low, high = (middle, high) if refused else (low, middle)
    return high
