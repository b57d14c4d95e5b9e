"""The devnet over its sockets, asked by pytoniq's own unmodified clients, and abused by clients that are not."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any

import msgspec
import pytest
import trio
from nacl.signing import SigningKey
from pytoniq import LiteBalancer, LiteClient, LiteServerError, RunGetMethodError, WalletV4R2, WalletV5R1
from pytoniq_core import Address, Cell
from trio_asyncio import aio_as_trio, open_loop

from chain.contract import cells
from chain.devnet import adnl, control, server
from chain.devnet.chain import GLOBAL_ID
from chain.devnet.control import ControlFailed, open_control
from chain.devnet.server import CannotListen, Devnet, open_devnet
from chain.ledger import ChannelTerms

GRAM = 10**9
SOMEONE = Address((0, b"\x07" * 32))
DEADLINE_S = 10
RENT_NANO = 100  # more than what an address pays for existing during one test


@pytest.fixture
async def devnet() -> AsyncIterator[Devnet]:
    with trio.fail_after(60):
        async with open_devnet() as running:
            yield running


@asynccontextmanager
async def lite_client(devnet: Devnet) -> AsyncIterator[Any]:
    """pytoniq's client, connected, at the trust level that a devnet serves."""
    client = LiteClient.from_config(devnet.global_config(), trust_level=2)
    await aio_as_trio(client.connect)()
    try:
        yield client
    finally:
        await aio_as_trio(client.close)()


async def wallet(client: Any, kind: str = "W5") -> Any:
    """A new key's wallet, not deployed yet."""
    key = SigningKey.generate()
    kinds = {
        "W5": partial(WalletV5R1.from_private_key, network_global_id=GLOBAL_ID),
        "V4R2": WalletV4R2.from_private_key,
    }
    return await aio_as_trio(kinds[kind])(client, bytes(key) + bytes(key.verify_key))


@asynccontextmanager
async def balancer_of(devnet: Devnet, clients: int = 3) -> AsyncIterator[Any]:
    config = devnet.global_config()
    balancer = LiteBalancer([LiteClient.from_config(config, trust_level=2) for _ in range(clients)])
    await aio_as_trio(balancer.start_up)()
    assert balancer.alive_peers_num == clients
    try:
        yield balancer
    finally:
        await aio_as_trio(balancer.close_all)()


async def all_seen(balancer: Any, devnet: Devnet) -> None:
    """Return once each of a balancer's clients knows the newest block: it may ask any of them."""
    for client in balancer._peers:
        await seen(client, devnet)


async def seen(client: Any, devnet: Devnet) -> None:
    """Return once the client knows the newest block."""
    with trio.fail_after(DEADLINE_S):
        while client.last_mc_block.seqno < devnet.chain.head.seqno:  # noqa: ASYNC110 - pytoniq has no event for it
            await trio.sleep(0.01)


@pytest.mark.parametrize("kind", ["W5", "V4R2"])
async def test_a_wallet_is_funded_deployed_and_pays(devnet: Devnet, kind: str) -> None:
    async with open_loop(), lite_client(devnet) as client, open_control(devnet.control) as controls:
        payer = await wallet(client, kind)
        assert await controls.faucet(payer.address.to_str(), GRAM) == GRAM
        assert await aio_as_trio(payer.send_init_external)() == 1
        await seen(client, devnet)
        assert await aio_as_trio(payer.get_seqno)() == 1
        await aio_as_trio(partial(payer.transfer, SOMEONE, GRAM // 10, Cell.empty()))()
        await seen(client, devnet)
        account = await aio_as_trio(client.get_account_state)(SOMEONE)
        assert account.balance == GRAM // 10
        assert await aio_as_trio(payer.get_seqno)() == 2


@pytest.mark.parametrize("kind", ["W5", "V4R2"])
async def test_a_wallet_deploys_and_pays_through_a_balancer_at_trust_level_2(devnet: Devnet, kind: str) -> None:
    async with open_loop(), balancer_of(devnet) as balancer:
        payer = await wallet(balancer, kind)
        devnet.chain.faucet(payer.address, GRAM)
        assert await aio_as_trio(payer.send_init_external)() == 1
        for _ in range(2):
            await all_seen(balancer, devnet)
            await aio_as_trio(partial(payer.transfer, SOMEONE, GRAM // 10, Cell.empty()))()
        await all_seen(balancer, devnet)
        assert (await aio_as_trio(balancer.get_account_state)(SOMEONE)).balance == pytest.approx(
            GRAM // 5, abs=RENT_NANO
        )
        assert await aio_as_trio(payer.get_seqno)() == 3


async def test_account_state_at_trust_level_2_is_the_chains(devnet: Devnet) -> None:
    """pytoniq checks the state's Merkle proof against the shard block before it returns."""
    devnet.chain.faucet(SOMEONE, GRAM)
    devnet.chain.faucet(Address((0, bytes(32))), GRAM)
    async with open_loop(), lite_client(devnet) as client:
        for address in (SOMEONE, Address((0, bytes(32))), Address((-1, b"\xff" * 32))):
            account, shard_account = await aio_as_trio(client.raw_get_account_state)(address)
            ours = devnet.chain.account(address)
            assert (shard_account.cell if shard_account else None) == ours
            assert (account.storage.balance.grams if account else 0) == devnet.chain.balance(address)


async def test_a_channel_is_opened_through_a_wallet_and_read_from_proven_state(devnet: Devnet) -> None:
    async with open_loop(), lite_client(devnet) as client:
        payer = await wallet(client)
        devnet.chain.faucet(payer.address, 3 * GRAM)
        await aio_as_trio(payer.send_init_external)()
        await seen(client, devnet)
        terms = ChannelTerms(
            payer=payer.address.to_str(is_user_friendly=False),
            payee=SOMEONE.to_str(is_user_friendly=False),
            payer_key=b"\x01" * 32,
            payee_key=b"\x02" * 32,
            challenge_period_s=3600,
            open_before=devnet.chain.now() + 600,
            salt=os.urandom(32),
        )
        channel = cells.channel_id(terms)
        pay = partial(
            payer.transfer,
            cells.channel_address(channel),
            GRAM + cells.CALL_VALUE_NANO,
            cells.open_channel(GRAM),
            state_init=cells.state_init(terms),
        )
        await aio_as_trio(pay)()
        await seen(client, devnet)
        account = await aio_as_trio(client.get_account_state)(cells.channel_address(channel))
        state = cells.channel_state(channel, account.state.state_init, account.balance)
        assert state.terms == terms
        assert state.deposited_nano == GRAM
        assert 0 < state.balance_nano - GRAM < cells.CALL_VALUE_NANO


async def test_transactions_are_found_newest_first_and_one_by_its_logical_time(devnet: Devnet) -> None:
    for n in range(1, 21):
        devnet.chain.faucet(SOMEONE, n)
    async with open_loop(), lite_client(devnet) as client:
        found = await aio_as_trio(client.get_transactions)(SOMEONE, 20)
        assert [each.in_msg.info.value_coins for each in found] == list(range(20, 0, -1))
        look_up = partial(client.lookup_block, 0, -(1 << 63), lt=found[3].lt)
        block, header = await aio_as_trio(look_up)()
        assert header.info.seqno == block.seqno
        one = await aio_as_trio(client.get_one_transaction)(SOMEONE, found[3].lt, block)
        assert one.cell == found[3].cell


async def test_many_clients_pay_at_once(devnet: Devnet) -> None:
    paid: list[int] = []

    async def pays(amount_nano: int) -> None:
        async with lite_client(devnet) as client:
            payer = await wallet(client)
            devnet.chain.faucet(payer.address, GRAM)
            await aio_as_trio(payer.send_init_external)()
            for _ in range(2):
                await seen(client, devnet)
                await aio_as_trio(partial(payer.transfer, SOMEONE, amount_nano, Cell.empty()))()
                paid.append(amount_nano)

    async with open_loop():
        async with trio.open_nursery() as nursery:
            for n in range(8):
                nursery.start_soon(pays, 1_000_000 + n)
        async with lite_client(devnet) as client:
            assert (await aio_as_trio(client.get_account_state)(SOMEONE)).balance == pytest.approx(
                sum(paid), abs=RENT_NANO
            )
    assert len(paid) == 16


async def test_clients_see_each_others_doings_in_order(devnet: Devnet) -> None:
    async with open_loop(), lite_client(devnet) as first, lite_client(devnet) as second:
        payer = await wallet(first)
        devnet.chain.faucet(payer.address, GRAM)
        await aio_as_trio(payer.send_init_external)()
        for _ in range(3):
            await seen(first, devnet)
            await aio_as_trio(partial(payer.transfer, SOMEONE, 10_000_000, Cell.empty()))()
        await seen(second, devnet)
        assert (await aio_as_trio(second.get_account_state)(SOMEONE)).balance == pytest.approx(
            30_000_000, abs=RENT_NANO
        )


async def test_a_get_method_of_no_contract_and_a_refused_external_are_clear_errors(devnet: Devnet) -> None:
    async with open_loop(), lite_client(devnet) as client:
        with pytest.raises(RunGetMethodError, match="-256"):
            await aio_as_trio(client.run_get_method)(SOMEONE, "seqno", [])
        payer = await wallet(client)
        devnet.chain.faucet(payer.address, GRAM)
        await aio_as_trio(payer.send_init_external)()
        await seen(client, devnet)
        payer.private_key = bytes(SigningKey.generate()) + bytes(32)  # not the wallet's
        with pytest.raises(LiteServerError, match="exitcode="):
            await aio_as_trio(partial(payer.transfer, SOMEONE, 1, Cell.empty()))()


async def test_a_block_of_another_devnet_is_unknown(devnet: Devnet) -> None:
    async with open_loop(), lite_client(devnet) as client:
        client.last_mc_block.root_hash = bytes(32)
        with pytest.raises(LiteServerError, match="no such masterchain block"):
            await aio_as_trio(client.get_account_state)(SOMEONE)


async def test_an_unserved_query_is_a_clear_error(devnet: Devnet) -> None:
    async with open_loop(), lite_client(devnet) as client:
        with pytest.raises(LiteServerError, match="not served"):
            await aio_as_trio(client.get_config_all)()


async def test_travelling_in_time_moves_what_clients_see(devnet: Devnet) -> None:
    async with open_loop(), lite_client(devnet) as client, open_control(devnet.control) as controls:
        before = (await aio_as_trio(client.get_time)())["now"]
        then = await controls.advance(86400)
        assert before + 86400 <= then <= before + 86400 + DEADLINE_S
        assert (await aio_as_trio(client.get_time)())["now"] >= then


# --- clients that break the rules, beside one that does not


async def test_clients_that_break_the_rules_disturb_nobody_else(devnet: Devnet) -> None:
    async with (
        open_loop(),
        lite_client(devnet) as client,
        AsyncExitStack() as half_open,
        trio.open_nursery() as nursery,
    ):
        for _ in range(20):  # they connect and say nothing
            await half_open.enter_async_context(await trio.open_tcp_stream(devnet.host, devnet.port))
        for hello in (bytes(256), b"GET / HTTP/1.1\r\n" * 16):
            nursery.start_soon(_is_hung_up_on, devnet, hello)
        stranger = LiteClient.from_config(devnet.global_config(), trust_level=2)
        too_big = stranger.handshake() + stranger.encrypt((adnl.MAX_PACKET_BYTES + 1).to_bytes(4, "little"))
        nursery.start_soon(_is_hung_up_on, devnet, too_big)
        for _ in range(10):
            assert (await aio_as_trio(client.get_time)())["now"] > 0
    async with open_loop(), lite_client(devnet) as late:
        assert (await aio_as_trio(late.get_time)())["now"] > 0


async def _is_hung_up_on(devnet: Devnet, sends: bytes) -> None:
    with trio.fail_after(DEADLINE_S):
        async with await trio.open_tcp_stream(devnet.host, devnet.port) as stream:
            await stream.send_all(sends)
            with suppress(trio.BrokenResourceError):
                while await stream.receive_some():
                    pass


async def test_who_comes_when_there_is_no_room_is_hung_up_on_and_may_come_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "MAX_CLIENTS", 2)
    async with open_devnet() as devnet, open_loop(), lite_client(devnet) as client:
        half_open = await trio.open_tcp_stream(devnet.host, devnet.port)
        await trio.sleep(0.1)  # it is let in
        await _is_hung_up_on(devnet, b"")
        with pytest.raises(ControlFailed, match="gone"):
            async with open_control(devnet.control) as controls:
                await controls.advance(1)
        assert (await aio_as_trio(client.get_time)())["now"] > 0
        await half_open.aclose()
        with trio.fail_after(DEADLINE_S):
            while True:
                with suppress(ControlFailed):
                    async with open_control(devnet.control) as controls:
                        await controls.advance(1)
                        break


# --- the control socket


@pytest.mark.parametrize(
    ("address", "amount_nano"),
    [("junk", 1), ("0:ab", 1), ("", 1), ("7:" + "ab" * 32, 1), (SOMEONE.to_str(), 0), (SOMEONE.to_str(), 10**19)],
)
async def test_the_faucet_refuses_nonsense_and_goes_on(devnet: Devnet, address: str, amount_nano: int) -> None:
    async with open_control(devnet.control) as controls:
        with pytest.raises(ControlFailed):
            await controls.faucet(address, amount_nano)
        assert await controls.faucet(SOMEONE.to_str(), 5) == 5


@pytest.mark.parametrize("seconds", [-1, 10**12])
async def test_the_clock_refuses_to_go_back_or_off_the_end(devnet: Devnet, seconds: int) -> None:
    async with open_control(devnet.control) as controls:
        with pytest.raises(ControlFailed, match="seconds"):
            await controls.advance(seconds)


@pytest.mark.parametrize(
    "line", [b"{}\n", b"\xff\n", b'{"command":"stop"}\n', b'{"command":"advance","seconds":"1"}\n']
)
async def test_a_line_that_is_no_command_is_answered_with_an_error(devnet: Devnet, line: bytes) -> None:
    host, _, port = devnet.control.rpartition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(line)
        assert msgspec.json.decode(await stream.receive_some(), type=control.Reply).error


async def test_an_endless_line_costs_its_own_connection_only(devnet: Devnet) -> None:
    host, _, port = devnet.control.rpartition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(b"x" * (control.MAX_LINE_BYTES + 1))
        with trio.fail_after(DEADLINE_S), suppress(trio.BrokenResourceError):
            assert await stream.receive_some() == b""
    async with open_control(devnet.control) as controls:
        assert await controls.faucet(SOMEONE.to_str(), 5) == 5


async def test_no_devnet_is_said_so() -> None:
    for address in ("127.0.0.1:1", "nonsense"):
        with pytest.raises(ControlFailed, match="no devnet"):
            async with open_control(address):
                pass


async def test_a_taken_port_is_said_so(devnet: Devnet) -> None:
    with pytest.raises(CannotListen, match=str(devnet.port)):
        async with open_devnet(port=devnet.port):
            pass
