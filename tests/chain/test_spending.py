"""A wallet's limits on the real chain: what leaves our hands is counted, what comes home is never stopped."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from on_devnet import CHALLENGE_S, GRAM, Devnet, new_key, new_terms, opened, running_devnet, signed

from chain.errors import InsufficientFunds, LimitReached
from chain.purse import Limits, Purse
from chain.ton import open_ton
from chain.tonledger import TonLedger
from chain.wallet import WalletKey

pytestmark = pytest.mark.slow

NOON = 20_000 * 86_400 + 43_200


@pytest.fixture(scope="module")
def devnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    with running_devnet(tmp_path_factory.mktemp("devnet")) as devnet:
        yield devnet


@asynccontextmanager
async def limited(
    devnet: Devnet, folder: Path, key: WalletKey, *, day: int = 100 * GRAM, channel: int = 100 * GRAM, now: float = NOON
) -> AsyncIterator[TonLedger]:
    """A ledger of one process of a wallet."""
    purse = Purse(folder, Limits(day, channel), lambda: now)
    async with open_ton(devnet.config, key, network=devnet.network, purse=purse) as ledger:
        yield ledger


async def test_a_days_limit_holds_for_deposits_and_transfers_together(devnet: Devnet, tmp_path: Path) -> None:
    key = new_key()
    await devnet.fund(key)
    async with devnet.funded(new_key()) as (payee,):
        async with limited(devnet, tmp_path, key, day=3 * GRAM) as payer:
            channel = await opened(payer, payee, GRAM)
            await payer.top_up(channel, GRAM)
            await payer.transfer(payee.wallet.address, GRAM // 2)
        async with limited(devnet, tmp_path, key, day=3 * GRAM) as payer:
            before = await payer.wallet.balance()
            terms = await new_terms(payer, payee)
            with pytest.raises(LimitReached, match=f"{GRAM // 2} left"):
                await payer.open(terms, GRAM)
            with pytest.raises(LimitReached):
                await payer.top_up(channel, GRAM)
            with pytest.raises(LimitReached):
                await payer.transfer(payee.wallet.address, GRAM // 2 + 1)
            assert await payer.wallet.balance() == before
            await payer.transfer(payee.wallet.address, GRAM // 2)
        async with limited(devnet, tmp_path, key, day=3 * GRAM, now=NOON + 86_400) as payer:
            await payer.transfer(payee.wallet.address, GRAM)


async def test_no_limit_keeps_money_from_coming_home(devnet: Devnet, tmp_path: Path) -> None:
    payer_key, payee_key = new_key(), new_key()
    for key in (payer_key, payee_key):
        await devnet.fund(key)
    (tmp_path / "payer").mkdir()
    (tmp_path / "payee").mkdir()
    async with limited(devnet, tmp_path / "payee", payee_key, day=0, channel=0) as payee:
        async with limited(devnet, tmp_path / "payer", payer_key, day=GRAM) as payer:
            channel = await opened(payer, payee, GRAM)
        async with limited(devnet, tmp_path / "payer", payer_key, day=0, channel=0) as payer:
            await payee.settle(channel, 1000, signed(payer, channel, 1000))
            await payer.start_close(channel)
            await payee.settle(channel, 2000, signed(payer, channel, 2000))
            await devnet.advance(CHALLENGE_S + 1)
            await payer.finalise(channel)
            assert await payer.channel(channel) is None


async def test_a_channels_limit_counts_all_of_its_deposits(devnet: Devnet, tmp_path: Path) -> None:
    key = new_key()
    await devnet.fund(key)
    async with devnet.funded(new_key()) as (payee,), limited(devnet, tmp_path, key, channel=GRAM) as payer:
        terms = await new_terms(payer, payee)
        with pytest.raises(LimitReached, match=f"is {GRAM}"):
            await payer.open(terms, GRAM + 1)
        await payer.open(terms, GRAM - 5)
        channel = payer.channel_id(terms)
        with pytest.raises(LimitReached):
            await payer.top_up(channel, 6)
        assert Purse(tmp_path, Limits(0, 0), lambda: NOON).spent_today_nano() == GRAM - 5


async def test_what_was_never_signed_is_not_counted(devnet: Devnet, tmp_path: Path) -> None:
    async with limited(devnet, tmp_path, new_key()) as poor:
        with pytest.raises(InsufficientFunds):
            await poor.transfer(poor.wallet.address, GRAM)
    assert Purse(tmp_path, Limits(0, 0), lambda: NOON).spent_today_nano() == 0


async def test_ledgers_that_share_a_wallet_do_not_void_each_others_orders(devnet: Devnet, tmp_path: Path) -> None:
    key, target = new_key(), new_key().address(devnet.network)
    await devnet.fund(key)
    async with limited(devnet, tmp_path, key) as one, limited(devnet, tmp_path, key) as two:
        async with trio.open_nursery() as nursery:
            for ledger in (one, two, one, two):
                nursery.start_soon(ledger.transfer, target, GRAM)
        assert await one.wallet.balance() < 16 * GRAM
        assert Purse(tmp_path, Limits(0, 0), lambda: NOON).spent_today_nano() == 4 * GRAM
