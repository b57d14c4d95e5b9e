"""The ledger on TON, through pytoniq and a real lite-server's wire. Each test opens channels of its own."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from on_devnet import GRAM, RELEASE_KEY, RENT_NANO, Devnet, Relay, new_key, new_terms, opened, running_devnet, signed
from pytoniq_core import Address

from chain.contract import cells
from chain.errors import (
    ChainError,
    ChannelUnusable,
    InsufficientFunds,
    LedgerUnavailable,
    NetworkMismatch,
    TransactionFailed,
)
from chain.ledger import Network
from chain.memory import PREPAID_RENT_NANO, Exit
from chain.ton import open_ton
from chain.tonledger import Head, TonLedger
from chain.voucher import RELEASE_TAG


@pytest.fixture(scope="module")
def devnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    with running_devnet(tmp_path_factory.mktemp("devnet")) as devnet:
        yield devnet


async def test_a_channel_is_read_from_proven_state(devnet: Devnet) -> None:
    async with devnet.funded(new_key(), new_key()) as (payer, payee):
        terms = await new_terms(payer, payee)
        channel = payer.channel_id(terms)
        assert await payee.channel(channel) is None
        await payer.open(terms, GRAM)
        state = await payee.channel(channel)
        assert state
        assert state.terms == terms
        assert (state.deposited_nano, state.settled_nano, state.close_at) == (GRAM, 0, 0)
        assert state.balance_nano == GRAM + PREPAID_RENT_NANO
        with pytest.raises(ChannelUnusable, match="does not run the channel contract"):
            await payer.channel(payer.wallet.account.hash_part)


async def test_a_wallet_without_money_signs_nothing(devnet: Devnet) -> None:
    key = new_key()
    async with (
        devnet.funded(new_key()) as (payer,),
        open_ton(devnet.config, key, network=devnet.network) as poor,
    ):
        with pytest.raises(InsufficientFunds, match="holds 0 nano"):
            await opened(poor, payer)
        await devnet.fund(key, GRAM)
        with pytest.raises(InsufficientFunds):
            await opened(poor, payer, GRAM)
        assert await poor.wallet.balance() == GRAM
        await opened(poor, payer, GRAM // 2)
        with pytest.raises(InsufficientFunds):
            await poor.transfer(payer.wallet.address, GRAM // 2)


async def test_what_cannot_work_is_not_sent(devnet: Devnet) -> None:
    async with devnet.funded(new_key(), new_key()) as (payer, payee):
        terms = await new_terms(payer, payee)
        await payer.open(terms, GRAM)
        before = await payer.wallet.balance()
        with pytest.raises(ChannelUnusable, match="is open"):
            await payer.open(terms, GRAM)
        with pytest.raises(ChannelUnusable, match="no channel"):
            await payer.settle(bytes(32), 1, bytes(64))
        with pytest.raises(ChannelUnusable, match="32 bytes"):
            await payer.open(msgspec.structs.replace(terms, salt=b"short"), GRAM)
        with pytest.raises(ChainError, match="not a TON address"):
            await payer.transfer("the bank", GRAM)
        assert await payer.wallet.balance() == before


async def test_a_stranger_opens_nothing(devnet: Devnet) -> None:
    async with devnet.funded(new_key(), new_key()) as (payer, stranger):
        terms = await new_terms(payer, stranger)
        with pytest.raises(TransactionFailed) as caught:
            await stranger.open(terms, GRAM)
        assert caught.value.exit_code == Exit.NOT_PAYER
        left = await payer.channel(payer.channel_id(terms))
        assert left
        assert (left.deposited_nano, left.balance_nano) == (0, 0)
        await payer.open(terms, GRAM)
        assert [each.exit_code for each in await payer.transactions(payer.channel_id(terms))] == [Exit.NOT_PAYER, 0]


async def test_a_withdrawal_arrives_exactly(devnet: Devnet) -> None:
    async with devnet.funded(new_key()) as (ledger,):
        target = new_key().address(devnet.network)
        await ledger.transfer(target, 3 * GRAM)
        async with open_ton(devnet.config, new_key(), network=devnet.network) as other:
            assert (await other._servers.account(Address(target))).balance_nano == 3 * GRAM


async def test_one_wallet_may_do_many_things_at_once(devnet: Devnet) -> None:
    async with devnet.funded(new_key(), new_key()) as (payer, payee):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(opened, payer, payee)
        assert await payer.wallet.balance() == pytest.approx(17 * GRAM, abs=GRAM // 10)


async def test_a_closed_channel_is_remembered_by_the_chain(devnet: Devnet) -> None:
    """A program that was started afresh still finds it, at either end, whoever closed it."""
    payer_key, payee_key = new_key(), new_key()
    async with devnet.funded(payer_key, payee_key) as (payer, payee):
        channel = await opened(payer, payee)
        await payee.settle(channel, 300, signed(payee, channel, 300))
        await payer.close_by_release(channel, 300, signed(payer, channel, 300, RELEASE_KEY, RELEASE_TAG))
        seen = await payer.transactions(channel)
    assert [(each.op, each.balance_nano) for each in seen] == [
        ("open", GRAM + PREPAID_RENT_NANO),
        ("settle", seen[1].balance_nano),
        ("close_by_release", 0),
    ]
    for key in (payer_key, payee_key):
        async with open_ton(devnet.config, key, network=devnet.network) as restarted:
            assert await restarted.transactions(channel) == seen
    async with open_ton(devnet.config, new_key(), network=devnet.network) as stranger:
        assert await stranger.transactions(channel) == ()


async def test_other_accounts_have_no_operations(devnet: Devnet) -> None:
    async with devnet.funded(new_key()) as (ledger,):
        assert await ledger.transactions(ledger.wallet.account.hash_part) == ()


async def test_a_channel_that_closes_under_our_hands_is_unusable(devnet: Devnet) -> None:
    async with devnet.funded(new_key(), new_key()) as (payer, payee):
        channel = await opened(payer, payee)
        await payee.close_by_payee(channel, None)
        before = await payer.wallet.balance()
        with pytest.raises(ChannelUnusable, match="closed meanwhile"):
            await payer._carry("top_up", channel, cells.top_up(GRAM), GRAM)
        assert before - await payer.wallet.balance() < GRAM // 100
        assert [each.op for each in await payer.transactions(channel)] == ["open", "close_by_payee"]


async def test_two_programs_with_one_wallet_send_each_order_once(devnet: Devnet) -> None:
    key = new_key()
    sent: list[int] = []
    async with (
        devnet.funded(key) as (one,),
        open_ton(devnet.config, key, network=devnet.network) as other,
        trio.open_nursery() as nursery,
    ):

        async def pay(ledger: TonLedger) -> None:
            with suppress(LedgerUnavailable):
                await ledger.transfer(target, GRAM)
                sent.append(GRAM)

        target = new_key().address(devnet.network)
        for ledger in (one, other):
            nursery.start_soon(pay, ledger)
    async with open_ton(devnet.config, key, network=devnet.network) as ledger:
        assert sent
        got = (await ledger._servers.account(Address(target))).balance_nano
        assert sum(sent) - RENT_NANO <= got <= sum(sent)


async def test_an_operation_is_over_when_all_of_it_is_visible(devnet: Devnet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The devnet ends everything in one block; here a server shows it bit by bit."""
    looks: Counter[object] = Counter()
    async with devnet.funded(new_key(), new_key()) as (payer, payee):
        channel = await opened(payer, payee)
        history, transaction = payee._servers.history, payee._servers.transaction

        def hidden(each: Any) -> bool:
            """The order shows first, then one message after the other."""
            looks[each.cell.hash] += 1
            message = each.in_msg
            return looks[each.cell.hash] < (2 if message.is_external else 2 + 2 * (message.info.created_lt % 10))

        async def slow_history(address: Address, head: Head | None, after_lt: int = 0) -> list[Any]:
            return [each for each in await history(address, head, after_lt) if not hidden(each)]

        async def slow_transaction(address: Address, lt: int) -> Any | None:
            looks[lt] += 1
            return await transaction(address, lt) if looks[lt] > 1 else None

        before = await payee.wallet.balance()
        monkeypatch.setattr(payee._servers, "history", slow_history)
        monkeypatch.setattr(payee._servers, "transaction", slow_transaction)
        monkeypatch.setattr("chain.tonledger.POLL_S", 0.01)
        done = await payee.settle(channel, 5, signed(payee, channel, 5))
        monkeypatch.undo()
        assert await payee.wallet.balance() == before + 5 - done.fee_nano
        assert [each.fee_nano for each in await payee.transactions(channel)][1:] == [done.fee_nano]


async def test_an_operation_that_stays_out_of_sight_is_not_taken_for_done(
    devnet: Devnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with devnet.funded(new_key(), new_key()) as (payer, payee):
        channel = await opened(payer, payee)
        monkeypatch.setattr("chain.tonledger.CONFIRM_TIMEOUT_S", 0)
        with pytest.raises(LedgerUnavailable, match="look before it is repeated"):
            await payer.top_up(channel, GRAM)
        monkeypatch.setattr("chain.tonledger.ORDER_LIFE_S", -5)
        with pytest.raises(LedgerUnavailable, match="not taken"):
            await payer.top_up(channel, GRAM)


async def test_another_network_is_refused_before_anything_is_signed(devnet: Devnet) -> None:
    testnet = Network("testnet", -3)
    with pytest.raises(NetworkMismatch, match="not for testnet"):
        async with open_ton(devnet.config, new_key(), network=testnet):
            pass
    unnamed = {name: value for name, value in devnet.config.items() if name != "bombyx"}
    other = Network("devnet", -3)
    async with open_ton(unnamed, new_key(), network=other) as ledger:
        with pytest.raises(NetworkMismatch, match="global id is -239"):
            await ledger.transfer(ledger.wallet.address, 1)


async def test_a_config_file_is_read_or_refused(devnet: Devnet, tmp_path: Path) -> None:
    path = tmp_path / "ton.json"
    with pytest.raises(ChainError, match="cannot read"):
        async with open_ton(path, new_key(), network=devnet.network):
            pass
    for text, message in (("{", "cannot read"), ("[]", "not a TON config"), ("{}", "no lite-server")):
        path.write_text(text)
        with pytest.raises(ChainError, match=message):
            async with open_ton(path, new_key(), network=devnet.network):
                pass
    path.write_text(json.dumps(devnet.config))
    async with open_ton(path, new_key(), network=devnet.network) as ledger:
        assert await ledger.now() > 0


async def test_what_is_raised_inside_comes_out_as_it_is(devnet: Devnet) -> None:
    async def fail() -> None:
        async with open_ton(devnet.config, new_key(), network=devnet.network) as ledger:
            await ledger.now()
            raise KeyError("mine")

    with pytest.raises(KeyError):
        await fail()


async def test_a_server_that_goes_away_is_found_again(devnet: Devnet) -> None:
    key = new_key()
    await devnet.fund(key)
    async with trio.open_nursery() as nursery:
        relay = Relay(devnet.config, nursery)
        await relay.start()
        async with open_ton(relay.config(devnet.config), key, network=devnet.network) as ledger:
            channel = await opened(ledger, ledger)
            await relay.cut()
            with pytest.raises(LedgerUnavailable):
                await ledger.channel(channel)
            with pytest.raises(LedgerUnavailable):
                await ledger.top_up(channel, GRAM)
            await relay.start()
            await ledger.top_up(channel, GRAM)
            await relay.cut()
            await relay.start()
            state = await ledger.channel(channel)
            assert state
            assert state.deposited_nano == 2 * GRAM
        await relay.cut()


@pytest.mark.slow
async def test_a_cut_at_any_point_leaves_no_doubt_about_what_happened(devnet: Devnet) -> None:
    """An operation that returned happened once, one that raised did not happen, wherever the line was cut."""
    key = new_key()
    await devnet.fund(key)
    outcomes = []
    async with trio.open_nursery() as nursery:
        relay = Relay(devnet.config, nursery)
        await relay.start()
        async with open_ton(relay.config(devnet.config), key, network=devnet.network) as ledger:
            channel = await opened(ledger, ledger, GRAM // 10)
            for chunks in range(1, 20, 3):
                nursery.start_soon(relay.cut_after, chunks)
                try:
                    await ledger.top_up(channel, GRAM // 10)
                    outcomes.append(True)
                except LedgerUnavailable:
                    outcomes.append(False)
                while relay.chunks_left:  # it was over before the cut
                    with suppress(LedgerUnavailable):
                        await ledger.now()
                await relay.back.wait()
                state = await ledger.channel(channel)
                assert state
                assert state.deposited_nano == (1 + sum(outcomes)) * GRAM // 10
        await relay.cut()
    assert any(outcomes)


async def test_a_dead_server_is_passed_over(devnet: Devnet) -> None:
    (alive,) = devnet.config["liteservers"]
    config = devnet.config | {"liteservers": [alive | {"port": 1}, alive]}
    async with open_ton(config, new_key(), network=devnet.network) as ledger:
        assert await ledger.wallet.balance() == 0


async def test_a_wrong_server_key_is_no_server(devnet: Devnet) -> None:
    (server,) = devnet.config["liteservers"]
    other = server | {"id": server["id"] | {"key": "A" * 43 + "="}}
    async with open_ton(devnet.config | {"liteservers": [other]}, new_key(), network=devnet.network) as ledger:
        with pytest.raises(LedgerUnavailable):
            await ledger.now()


async def test_cancelling_a_question_leaves_the_ledger_usable(devnet: Devnet) -> None:
    async with open_ton(devnet.config, new_key(), network=devnet.network) as ledger:
        await ledger.now()
        with trio.CancelScope() as scope:
            scope.cancel()
            await ledger.now()
        assert scope.cancelled_caught
        assert await ledger.now() > 0
