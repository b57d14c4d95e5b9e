"""The model of the contract: what it moves, what it refuses, and that no nano is ever made or lost."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.resources import files

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, RuleBasedStateMachine, invariant, multiple, rule
from msgspec.structs import replace

from chain.contract import cells
from chain.errors import ChannelUnusable, InsufficientFunds, TransactionFailed
from chain.keys import Ed25519Signer, verify
from chain.ledger import ChannelTerms, Ledger, Network
from chain.memory import CALL_VALUE_NANO, FEES_NANO, MIN_DEPOSIT_NANO, PREPAID_RENT_NANO, Exit, MemoryChain
from chain.voucher import RELEASE_TAG, VOUCHER_TAG, Signer, sign_claim
from chain.wallet import WALLET_MARGIN_NANO

GRAM = 10**9
DEVNET = Network("devnet", -239)
PAYER, PAYEE, STRANGER = ("0:" + name * 32 for name in ("aa", "bb", "cc"))
PAYER_KEY, PAYEE_KEY, WRONG_KEY = (Ed25519Signer(bytes([number]) * 32) for number in (1, 2, 3))


def terms(salt: int = 1) -> ChannelTerms:
    return ChannelTerms(
        payer=PAYER,
        payee=PAYEE,
        payer_key=PAYER_KEY.public_key,
        payee_key=PAYEE_KEY.public_key,
        challenge_period_s=3600,
        open_before=10_000,
        salt=salt.to_bytes(32, "big"),
    )


class Clock:
    def __init__(self) -> None:
        self.now = 1000


class World:
    """A chain with three funded wallets and, after `opened`, one channel."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.chain = MemoryChain(DEVNET, now=lambda: self.clock.now, verify=verify)
        for address in (PAYER, PAYEE, STRANGER):
            self.chain.mint(address, 10 * GRAM)

    def opened(self) -> bytes:
        self.chain.open(PAYER, terms(), GRAM)
        return self.chain.channel_id(terms())

    def signed(self, channel: bytes, amount: int, key: Signer = PAYER_KEY, tag: int = VOUCHER_TAG) -> bytes:
        return sign_claim(key, tag, DEVNET.global_id, channel, amount).signature

    def balances(self) -> tuple[int, int]:
        return self.chain.balance(PAYER), self.chain.balance(PAYEE)


@pytest.fixture
def world() -> World:
    return World()


def test_the_numbers_are_the_contracts() -> None:
    source = files("chain.contract").joinpath("channel.tolk").read_text()
    codes = {name: int(code) for name, code in re.findall(r"const ERR_(\w+) *= (\d+)\b", source)}
    assert {each.name: each.value for each in Exit if each}.items() <= codes.items()
    assert (CALL_VALUE_NANO, MIN_DEPOSIT_NANO) == (cells.CALL_VALUE_NANO, cells.MIN_DEPOSIT_NANO)


def test_a_deposit_is_exact_and_the_rent_is_on_top(world: World) -> None:
    channel = world.opened()
    world.chain.top_up(PAYER, channel, 2 * GRAM)
    state = world.chain.channel(channel)
    assert state
    assert (state.deposited_nano, state.balance_nano) == (3 * GRAM, 3 * GRAM + PREPAID_RENT_NANO)
    fees = FEES_NANO["open"] + FEES_NANO["top_up"]
    assert world.balances() == (7 * GRAM - PREPAID_RENT_NANO - fees, 10 * GRAM)


def test_anyone_settles_and_the_payee_is_paid(world: World) -> None:
    channel = world.opened()
    world.chain.settle(STRANGER, channel, 300, world.signed(channel, 300))
    world.chain.settle(PAYEE, channel, 500, world.signed(channel, 500))
    state = world.chain.channel(channel)
    assert state
    assert state.settled_nano == 500
    assert world.chain.balance(PAYEE) == 10 * GRAM + 500 - FEES_NANO["settle"]
    assert world.chain.balance(STRANGER) == 10 * GRAM - FEES_NANO["settle"]


def test_every_close_pays_what_is_owed_and_gives_back_the_rest(world: World) -> None:
    closes: dict[str, Callable[[bytes], object]] = {
        "close_by_payee": lambda c: world.chain.close_by_payee(PAYEE, c, (400, world.signed(c, 400))),
        "close_by_release": lambda c: world.chain.close_by_release(
            PAYER, c, 400, world.signed(c, 400, PAYEE_KEY, RELEASE_TAG)
        ),
    }
    for salt, (op, close) in enumerate(closes.items(), start=10):
        before = sum(world.balances())
        payee_before = world.chain.balance(PAYEE)
        world.chain.open(PAYER, terms(salt), GRAM)
        channel = world.chain.channel_id(terms(salt))
        world.chain.settle(STRANGER, channel, 100, world.signed(channel, 100))
        close(channel)
        assert world.chain.channel(channel) is None
        fee = FEES_NANO["close_by_payee"] if op == "close_by_payee" else 0
        assert world.chain.balance(PAYEE) == payee_before + 400 - fee
        assert sum(world.balances()) == before - sum(
            done.fee_nano for done in world.chain.transactions(channel) if done.op != "settle"
        )


def test_a_payee_may_close_without_a_voucher(world: World) -> None:
    channel = world.opened()
    world.chain.close_by_payee(PAYEE, channel, None)
    assert world.balances() == (10 * GRAM - FEES_NANO["open"], 10 * GRAM - FEES_NANO["close_by_payee"])


def test_a_deserted_channel_comes_back_after_the_challenge_period(world: World) -> None:
    channel = world.opened()
    world.chain.start_close(PAYER, channel)
    world.clock.now += 3599
    world.chain.settle(PAYEE, channel, 70, world.signed(channel, 70))
    with pytest.raises(TransactionFailed, match=str(Exit.TOO_EARLY.value)):
        world.chain.finalise(STRANGER, channel)
    world.clock.now += 1
    world.chain.finalise(STRANGER, channel)
    assert world.chain.balance(PAYER) == 10 * GRAM - 70 - FEES_NANO["open"] - FEES_NANO["start_close"]
    assert [(done.op, done.exit_code) for done in world.chain.transactions(channel)] == [
        ("open", 0),
        ("start_close", 0),
        ("settle", 0),
        ("finalise", Exit.TOO_EARLY),
        ("finalise", 0),
    ]


def test_a_refusal_says_why_costs_its_fee_and_changes_nothing(world: World) -> None:
    channel = world.opened()
    world.chain.settle(PAYEE, channel, 500, world.signed(channel, 500))
    chain, signed = world.chain, world.signed
    refusals: list[tuple[Exit, Callable[[], object]]] = [
        (Exit.NOT_PAYER, lambda: chain.open(STRANGER, terms(2), GRAM)),
        (Exit.NOT_PAYER, lambda: chain.top_up(STRANGER, channel, GRAM)),
        (Exit.LOW_DEPOSIT, lambda: chain.top_up(PAYER, channel, MIN_DEPOSIT_NANO - 1)),
        (Exit.BAD_SIGNATURE, lambda: chain.settle(PAYEE, channel, 600, signed(channel, 600, WRONG_KEY))),
        (Exit.BAD_SIGNATURE, lambda: chain.settle(PAYEE, channel, 600, signed(channel, 600, tag=RELEASE_TAG))),
        (Exit.BAD_SIGNATURE, lambda: chain.settle(PAYEE, channel, 600, signed(bytes(32), 600))),
        (Exit.STALE_CLAIM, lambda: chain.settle(PAYEE, channel, 499, signed(channel, 499))),
        (Exit.STALE_CLAIM, lambda: chain.settle(PAYEE, channel, 500, signed(channel, 500))),
        (Exit.OVER_DEPOSIT, lambda: chain.settle(PAYEE, channel, GRAM + 1, signed(channel, GRAM + 1))),
        (Exit.NOT_PAYEE, lambda: chain.close_by_payee(PAYER, channel, None)),
        (Exit.STALE_CLAIM, lambda: chain.close_by_payee(PAYEE, channel, (1, signed(channel, 1)))),
        (Exit.NOT_PAYER, lambda: chain.close_by_release(PAYEE, channel, 600, bytes(64))),
        (Exit.BAD_SIGNATURE, lambda: chain.close_by_release(PAYER, channel, 600, signed(channel, 600))),
        (Exit.NOT_PAYER, lambda: chain.start_close(PAYEE, channel)),
        (Exit.NOT_CLOSING, lambda: chain.finalise(PAYER, channel)),
    ]
    state = chain.channel(channel)
    for code, refused in refusals:
        paid = chain.fees_nano
        with pytest.raises(TransactionFailed) as caught:
            refused()
        assert caught.value.exit_code == code
        assert chain.fees_nano > paid
        assert chain.channel(channel) == state
    chain.start_close(PAYER, channel)
    with pytest.raises(TransactionFailed, match=str(Exit.CLOSING.value)):
        chain.start_close(PAYER, channel)
    with pytest.raises(TransactionFailed, match=str(Exit.CLOSING.value)):
        chain.top_up(PAYER, channel, GRAM)


def test_a_channel_opens_in_time_or_not_at_all(world: World) -> None:
    world.clock.now = 10_001
    with pytest.raises(TransactionFailed) as caught:
        world.opened()
    assert caught.value.exit_code == Exit.TOO_LATE


def test_a_strangers_attempt_does_not_keep_the_payer_from_opening(world: World) -> None:
    channel = world.chain.channel_id(terms())
    with pytest.raises(TransactionFailed, match=str(Exit.NOT_PAYER.value)):
        world.chain.open(STRANGER, terms(), GRAM)
    with pytest.raises(TransactionFailed, match=str(Exit.NOT_OPEN.value)):
        world.chain.top_up(PAYER, channel, GRAM)
    world.opened()
    state = world.chain.channel(channel)
    assert state
    assert state.deposited_nano == GRAM


def test_what_cannot_be_sent_costs_nothing(world: World) -> None:
    channel = world.opened()
    with pytest.raises(ChannelUnusable, match="no channel"):
        world.chain.settle(PAYEE, bytes(32), 1, bytes(64))
    with pytest.raises(ChannelUnusable, match="is open"):
        world.chain.open(PAYER, terms(), GRAM)
    with pytest.raises(ChannelUnusable, match="32 bytes"):
        world.chain.open(PAYER, replace(terms(), salt=b"short"), GRAM)
    world.chain.transfer(PAYEE, STRANGER, 10 * GRAM - WALLET_MARGIN_NANO - CALL_VALUE_NANO)
    paid = world.chain.fees_nano
    with pytest.raises(InsufficientFunds):
        world.chain.settle(PAYEE, channel, 1, world.signed(channel, 1))
    with pytest.raises(InsufficientFunds):
        world.chain.transfer(PAYEE, STRANGER, GRAM)
    assert world.chain.fees_nano == paid


def test_an_old_address_revives_old_vouchers(world: World) -> None:
    """Why a salt is never used twice: this is the contract's own behaviour, not a fault of the model."""
    channel = world.opened()
    world.chain.close_by_payee(PAYEE, channel, (500, world.signed(channel, 500)))
    world.opened()
    world.chain.settle(PAYEE, channel, 500, world.signed(channel, 500))
    state = world.chain.channel(channel)
    assert state
    assert state.settled_nano == 500


def test_the_ledger_never_waits(world: World) -> None:
    """A simulator without an event loop drives it by hand."""
    ledger: Ledger = world.chain.ledger(PAYER)
    coroutine = ledger.open(terms(), GRAM)
    with pytest.raises(StopIteration) as finished:
        coroutine.send(None)
    assert finished.value.value.op == "open"


async def test_the_ledger_is_the_chain_seen_from_one_wallet(world: World) -> None:
    payer, payee = world.chain.ledger(PAYER), world.chain.ledger(PAYEE)
    channel = payer.channel_id(terms())
    await payer.open(terms(), GRAM)
    await payer.top_up(channel, GRAM)
    await payee.settle(channel, 5, world.signed(channel, 5))
    await payer.start_close(channel)
    world.clock.now += 3600
    await payee.finalise(channel)
    assert [done.op for done in await payee.transactions(channel)] == [
        "open",
        "top_up",
        "settle",
        "start_close",
        "finalise",
    ]
    await payer.open(terms(2), GRAM)
    await payee.close_by_payee(payer.channel_id(terms(2)), None)
    await payer.open(terms(3), GRAM)
    third = payer.channel_id(terms(3))
    await payer.close_by_release(third, 9, world.signed(third, 9, PAYEE_KEY, RELEASE_TAG))
    assert await payer.channel(third) is None
    await payee.transfer(STRANGER, GRAM)
    assert await payer.now() == world.clock.now
    assert await world.chain.ledger(STRANGER).wallet.balance() == 11 * GRAM


class Chains(RuleBasedStateMachine):
    """Anyone does anything at any time; money is conserved and the payee's promises hold."""

    channels: Bundle[bytes] = Bundle("channels")

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.minted = self.world.chain.total()
        self.salt = 0
        self.settled: dict[bytes, int] = {}
        self.senders = (PAYER, PAYEE, STRANGER)

    def attempt(self, act: Callable[[], object]) -> bool:
        try:
            act()
        except (TransactionFailed, ChannelUnusable, InsufficientFunds):
            return False
        return True

    @rule(target=channels, sender=st.sampled_from((PAYER, PAYER, STRANGER)), deposit=st.integers(0, 4 * GRAM))
    def open(self, sender: str, deposit: int) -> bytes | MultipleResults[bytes]:
        self.salt += 1
        opened = self.attempt(lambda: self.world.chain.open(sender, terms(self.salt), deposit))
        return self.world.chain.channel_id(terms(self.salt)) if opened else multiple()

    @rule(channel=channels, sender=st.sampled_from((PAYER, STRANGER)), amount=st.integers(0, GRAM))
    def top_up(self, channel: bytes, sender: str, amount: int) -> None:
        before = self.world.chain.channel(channel)
        if self.attempt(lambda: self.world.chain.top_up(sender, channel, amount)):
            after = self.world.chain.channel(channel)
            assert before
            assert after
            assert after.deposited_nano == before.deposited_nano + amount

    @rule(channel=channels, sender=st.integers(0, 2), amount=st.integers(0, 5 * GRAM), honest=st.booleans())
    def settle(self, channel: bytes, sender: int, amount: int, honest: bool) -> None:
        signature = self.world.signed(channel, amount, PAYER_KEY if honest else WRONG_KEY)
        if self.attempt(lambda: self.world.chain.settle(self.senders[sender], channel, amount, signature)):
            assert honest
            self.settled[channel] = amount

    @rule(channel=channels, sender=st.integers(0, 2))
    def start_close(self, channel: bytes, sender: int) -> None:
        if self.attempt(lambda: self.world.chain.start_close(self.senders[sender], channel)):
            assert self.senders[sender] == PAYER

    @rule(seconds=st.integers(0, 4000))
    def wait(self, seconds: int) -> None:
        self.world.clock.now += seconds

    @rule(channel=channels, sender=st.integers(0, 2), amount=st.integers(0, GRAM), way=st.integers(0, 2))
    def close(self, channel: bytes, sender: int, amount: int, way: int) -> None:
        chain, who = self.world.chain, self.senders[sender]
        voucher = self.world.signed(channel, amount)
        release = self.world.signed(channel, amount, PAYEE_KEY, RELEASE_TAG)
        state, payee_before = chain.channel(channel), chain.balance(PAYEE)
        closes: tuple[Callable[[], object], ...] = (
            lambda: chain.close_by_payee(who, channel, (amount, voucher)),
            lambda: chain.close_by_release(who, channel, amount, release),
            lambda: chain.finalise(who, channel),
        )
        if self.attempt(closes[way]):
            assert chain.channel(channel) is None
            if way == 1:
                assert state
                assert chain.balance(PAYEE) - payee_before == amount - state.settled_nano

    @invariant()
    def no_money_is_made_or_lost(self) -> None:
        assert self.world.chain.total() == self.minted
        assert all(self.world.chain.balance(address) >= 0 for address in self.senders)

    @invariant()
    def a_channel_holds_what_it_owes(self) -> None:
        for channel, settled in self.settled.items():
            state = self.world.chain.channel(channel)
            if state:
                assert state.settled_nano == settled
                assert state.balance_nano == state.deposited_nano - settled + PREPAID_RENT_NANO


TestChains = Chains.TestCase
TestChains.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
