"""The watchtower on the model of the chain: it settles in time, once, and never with a voucher that is no good."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import trio

from chain.errors import ChargesUnusable, LedgerUnavailable
from chain.keys import Ed25519Signer, verify
from chain.ledger import ChannelState, ChannelTerms, Ledger, Network
from chain.memory import FEES_NANO, MemoryChain
from chain.settling import SettlePolicy
from chain.voucher import VOUCHER_TAG, Claim, sign_claim
from chain.watch import LOOK_AT_LEAST_EVERY_S, Watchtower, look_every_s
from inference.nursery import open_background

NETWORK = Network("devnet", -239)
PAYER, PAYEE, TOWER = ("0:" + digits * 32 for digits in ("aa", "bb", "cc"))
VOUCHER_KEY, RELEASE_KEY = Ed25519Signer(b"\3" * 32), Ed25519Signer(b"\4" * 32)
DEPOSIT = 100_000_000
CHALLENGE_S = 3600
NOON = 1_800_000_000
RISK = 60_000_000


class DownAtTimes:
    """A ledger whose servers can be cut off."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.down = False
        self.looks = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    async def channel(self, channel: bytes) -> ChannelState | None:
        self.looks += 1
        if self.down:
            raise LedgerUnavailable("nobody answers")
        return await self._ledger.channel(channel)


class World:
    """A payer and a payee, and a tower that was given a voucher."""

    def __init__(self) -> None:
        self.chain = MemoryChain(NETWORK, now=lambda: NOON + int(trio.current_time()), verify=verify)
        for address in (PAYER, PAYEE, TOWER):
            self.chain.mint(address, 10 * DEPOSIT)
        self.payer, self.payee = self.chain.ledger(PAYER), self.chain.ledger(PAYEE)
        self.tower_ledger = DownAtTimes(self.chain.ledger(TOWER))
        self.charges: Sequence[Claim] | Exception = ()
        self.reports: list[tuple[str, dict[str, Any]]] = []
        self.tower = Watchtower(
            ledger=self.tower_ledger,
            charges=self._read,
            policy=SettlePolicy(risk_nano=RISK, fee_percent=0),
            report=lambda kind, /, **fields: self.reports.append((kind, fields)),
        )

    async def _read(self) -> Sequence[Claim]:
        if isinstance(self.charges, Exception):
            raise self.charges
        return self.charges

    async def open(self, salt: int = 1) -> bytes:
        terms = ChannelTerms(
            payer=PAYER,
            payee=PAYEE,
            payer_key=VOUCHER_KEY.public_key,
            payee_key=RELEASE_KEY.public_key,
            challenge_period_s=CHALLENGE_S,
            open_before=await self.payer.now() + 600,
            salt=salt.to_bytes(32, "big"),
        )
        await self.payer.open(terms, DEPOSIT)
        return self.payer.channel_id(terms)

    def voucher(self, channel: bytes, amount: int, key: Ed25519Signer = VOUCHER_KEY) -> Claim:
        return sign_claim(key, VOUCHER_TAG, NETWORK.global_id, channel, amount)

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.reports]


async def test_a_channel_that_is_left_alone_costs_nothing() -> None:
    world = World()
    channel = await world.open()
    world.charges = [world.voucher(channel, RISK - 1)]
    for _ in range(3):
        await world.tower.look()
    assert world.reports == [("watching", {"channels": 1})]


async def test_a_payer_that_starts_to_close_is_answered_once_and_the_payee_is_paid() -> None:
    world = World()
    channel = await world.open()
    world.charges = [world.voucher(channel, 5_000_000)]
    await world.tower.look()
    await world.payer.start_close(channel)
    before = world.chain.balance(PAYEE), world.chain.balance(TOWER)
    for _ in range(3):
        await world.tower.look()
    assert world.chain.balance(PAYEE) == before[0] + 5_000_000
    assert world.chain.balance(TOWER) == before[1] - FEES_NANO["settle"]
    assert world.reports[1:] == [
        (
            "settled",
            {
                "channel": channel.hex(),
                "settled_nano": 5_000_000,
                "fee_nano": FEES_NANO["settle"],
                "why": "the payer started to close",
            },
        )
    ]


async def test_a_limit_on_risk_is_kept_and_later_vouchers_start_from_what_is_settled() -> None:
    world = World()
    channel = await world.open()
    for amount, settled in ((RISK - 1, 0), (RISK, RISK), (RISK + 20_000_000, RISK), (DEPOSIT, DEPOSIT)):
        world.charges = [world.voucher(channel, amount)]
        await world.tower.look()
        state = await world.payer.channel(channel)
        assert state
        assert state.settled_nano == settled


@pytest.mark.parametrize("fault", ["another key", "over the deposit"])
async def test_a_voucher_that_the_chain_would_refuse_is_not_carried(fault: str) -> None:
    world = World()
    channel = await world.open()
    bad = (
        world.voucher(channel, DEPOSIT + 1)
        if fault == "over the deposit"
        else world.voucher(channel, RISK, RELEASE_KEY)
    )
    world.charges = [bad]
    before = world.chain.balance(TOWER)
    for _ in range(2):
        await world.tower.look()
    assert world.kinds() == ["watching", "bad_charge"]
    assert world.chain.balance(TOWER) == before


async def test_what_is_gone_from_the_chain_is_nobodys_business() -> None:
    world = World()
    channel = await world.open()
    world.charges = [world.voucher(channel, RISK), world.voucher(bytes(32), RISK)]
    await world.payee.close_by_payee(channel, None)
    await world.tower.look()
    assert world.kinds() == ["watching"]


async def test_when_the_chain_cannot_be_reached_it_goes_on_looking_and_then_settles() -> None:
    world = World()
    channels = [await world.open(1), await world.open(2)]
    world.charges = [world.voucher(channel, 5_000_000) for channel in channels]
    for channel in channels:
        await world.payer.start_close(channel)
    world.tower_ledger.down = True
    await world.tower.look()
    world.charges = ChargesUnusable("the owner writes it just now")
    await world.tower.look()
    assert world.kinds() == ["watching", "look_failed", "look_failed", "charges_failed", "look_failed", "look_failed"]
    world.tower_ledger.down = False
    await world.tower.look()
    assert world.kinds()[-2:] == ["settled"] * 2


async def test_every_channel_is_looked_at_four_times_in_its_challenge_period(
    autojump_clock: trio.testing.MockClock,
) -> None:
    world = World()
    world.charges = [world.voucher(await world.open(), 5_000_000)]
    async with open_background() as background:
        background.start_soon(world.tower.run)
        await trio.sleep(CHALLENGE_S)
        background.cancel_scope.cancel()
    assert world.tower_ledger.looks >= CHALLENGE_S / LOOK_AT_LEAST_EVERY_S
    assert look_every_s([40, 3600]) == 10
    assert look_every_s([]) == LOOK_AT_LEAST_EVERY_S


async def test_a_close_that_begins_at_any_moment_is_answered_within_the_challenge_period(
    autojump_clock: trio.testing.MockClock,
) -> None:
    world = World()
    channel = await world.open()
    world.charges = [world.voucher(channel, 5_000_000)]
    async with open_background() as background:
        background.start_soon(world.tower.run)
        await trio.sleep(LOOK_AT_LEAST_EVERY_S + 0.5)
        await world.payer.start_close(channel)
        await trio.sleep(CHALLENGE_S + 1)
        background.cancel_scope.cancel()
    before = world.chain.balance(PAYER)
    await world.payer.finalise(channel)
    assert world.chain.balance(PAYER) - before < DEPOSIT - 5_000_000 + 10_000_000
    assert world.kinds() == ["watching", "settled"]
