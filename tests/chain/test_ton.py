"""The ledger on TON, through pytoniq and a real lite-server's wire, beside the model of it in memory.

One devnet process serves the whole file. Time moves on it for everybody, so each test opens channels of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from pytoniq_core import Address

from chain.contract import cells
from chain.devnet.control import open_control
from chain.errors import (
    ChainError,
    ChannelUnusable,
    InsufficientFunds,
    LedgerUnavailable,
    NetworkMismatch,
    TransactionFailed,
)
from chain.keys import Ed25519Signer, verify
from chain.ledger import ChannelTerms, Ledger, Network, Transaction
from chain.memory import FEES_NANO, PREPAID_RENT_NANO, Exit, MemoryChain
from chain.ton import open_ton
from chain.tonledger import Head, TonLedger
from chain.voucher import RELEASE_TAG, VOUCHER_TAG, Signer, sign_claim
from chain.wallet import WalletKey

GRAM = 10**9
CHALLENGE_S = 3600
RENT_NANO = 1000  # more than what a channel pays for existing during one test, with its time travel
VOUCHER_KEY, RELEASE_KEY = Ed25519Signer(b"\3" * 32), Ed25519Signer(b"\4" * 32)


class Devnet(msgspec.Struct):
    """A running `python -m chain.devnet`."""

    config: dict[str, Any]
    network: Network

    async def fund(self, key: WalletKey, amount_nano: int = 20 * GRAM) -> None:
        async with open_control(self.config["bombyx"]["control"]) as control:
            await control.faucet(key.address(self.network), amount_nano)

    async def advance(self, seconds: int) -> None:
        async with open_control(self.config["bombyx"]["control"]) as control:
            await control.advance(seconds)

    @asynccontextmanager
    async def funded(self, *keys: WalletKey) -> AsyncIterator[list[TonLedger]]:
        """Ledgers of wallets that hold money and have been deployed, by paying each other a little."""
        for key in keys:
            await self.fund(key)
        async with open_ton(self.config, keys[0], network=self.network) as ledger:
            await ledger.transfer(ledger.wallet.address, 1)
            if len(keys) == 1:
                yield [ledger]
            else:
                async with self.funded(*keys[1:]) as others:
                    yield [ledger, *others]


@pytest.fixture(scope="module")
def devnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    path = tmp_path_factory.mktemp("devnet") / "ton.json"
    command = [sys.executable, "-m", "chain.devnet", "--json", "--until-stdin-closes", "--config-out", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline(), "the devnet did not start"
        config = json.loads(path.read_bytes())
        yield Devnet(config, Network(config["bombyx"]["name"], config["bombyx"]["global_id"]))


fresh = iter(range(1, 1 << 20))


def new_key() -> WalletKey:
    return WalletKey(next(fresh).to_bytes(32, "big"))


async def new_terms(payer: Ledger, payee: Ledger) -> ChannelTerms:
    return ChannelTerms(
        payer=payer.wallet.address,
        payee=payee.wallet.address,
        payer_key=VOUCHER_KEY.public_key,
        payee_key=RELEASE_KEY.public_key,
        challenge_period_s=CHALLENGE_S,
        open_before=await payer.now() + 600,
        salt=next(fresh).to_bytes(32, "big"),
    )


def signed(ledger: Ledger, channel: bytes, amount: int, key: Signer = VOUCHER_KEY, tag: int = VOUCHER_TAG) -> bytes:
    return sign_claim(key, tag, ledger.network.global_id, channel, amount).signature


async def opened(payer: Ledger, payee: Ledger, deposit_nano: int = GRAM) -> bytes:
    terms = await new_terms(payer, payee)
    await payer.open(terms, deposit_nano)
    return payer.channel_id(terms)


class Step(msgspec.Struct, frozen=True):
    """What an operation led to."""

    exit_code: int
    deposited_nano: int = 0
    settled_nano: int = 0
    closing_in_s: int = 0


class Story:
    """Drives two ledgers of any kind and writes down what happens."""

    def __init__(self, payer: Ledger, payee: Ledger, advance: Callable[[int], Awaitable[None]]) -> None:
        self.payer, self.payee, self.advance = payer, payee, advance
        self.steps: list[Step] = []
        self.records: list[Transaction] = []
        self.balances: list[int] = []  # of both wallets after each channel, without all fees that they paid
        self._channel = b""
        self._carriers: list[Ledger] = []
        self._paid = {payer: 0, payee: 0}
        self._began = {payer: 0, payee: 0}
        self._looked_lt = {payer: 0, payee: 0}

    async def run(self) -> None:
        for ledger in self._paid:
            await self.received(ledger)
            self._began[ledger] = await ledger.wallet.balance()
        await self.release_after_refusals()
        await self.payee_closes()
        await self.payer_deserts()

    async def release_after_refusals(self) -> None:
        payer, payee = self.payer, self.payee
        channel = await self.open(2 * GRAM, foul=True)
        await self.step(payer, payer.top_up(channel, GRAM))
        await self.step(payer, payer.top_up(channel, 1))
        await self.step(payee, payee.top_up(channel, GRAM))
        await self.step(payee, payee.settle(channel, 400, signed(payee, channel, 400)))
        await self.step(payer, payer.settle(channel, GRAM, signed(payer, channel, GRAM)))
        await self.step(payee, payee.settle(channel, GRAM, signed(payee, channel, GRAM)))
        await self.step(payee, payee.settle(channel, 401, signed(payee, channel, 401)))
        await self.step(payee, payee.settle(channel, 2 * GRAM, signed(payee, channel, 2 * GRAM, RELEASE_KEY)))
        await self.step(payee, payee.settle(channel, 2 * GRAM, signed(payee, channel, 2 * GRAM, tag=RELEASE_TAG)))
        await self.step(payee, payee.settle(channel, 4 * GRAM, signed(payee, channel, 4 * GRAM)))
        await self.step(payee, payee.start_close(channel))
        await self.step(payer, payer.finalise(channel))
        await self.step(payer, payer.close_by_payee(channel, None))
        await self.step(payer, payer.close_by_release(channel, 2 * GRAM, signed(payer, channel, 2 * GRAM)))
        release = signed(payer, channel, 2 * GRAM, RELEASE_KEY, RELEASE_TAG)
        await self.step(payee, payee.close_by_release(channel, 2 * GRAM, release))
        await self.step(payer, payer.close_by_release(channel, 2 * GRAM, release))
        await self.end()

    async def payee_closes(self) -> None:
        channel = await self.open(GRAM)
        await self.step(self.payee, self.payee.close_by_payee(channel, (7, signed(self.payee, channel, 7))))
        await self.end()
        channel = await self.open(GRAM)
        await self.step(self.payee, self.payee.close_by_payee(channel, None))
        await self.end()

    async def payer_deserts(self) -> None:
        payer, payee = self.payer, self.payee
        channel = await self.open(GRAM)
        await self.step(payer, payer.start_close(channel))
        await self.step(payer, payer.start_close(channel))
        await self.step(payer, payer.top_up(channel, GRAM))
        await self.step(payee, payee.settle(channel, 300, signed(payee, channel, 300)))
        await self.step(payer, payer.finalise(channel))
        await self.advance(CHALLENGE_S)
        await self.step(payee, payee.finalise(channel))
        await self.end()

    async def open(self, deposit_nano: int, *, foul: bool = False) -> bytes:
        terms = await new_terms(self.payer, self.payee)
        self._channel, self._carriers = self.payer.channel_id(terms), []
        if foul:
            await self.step(self.payee, self.payee.open(terms, deposit_nano))
            await self.step(self.payer, self.payer.top_up(self._channel, deposit_nano))
        await self.step(self.payer, self.payer.open(terms, deposit_nano))
        return self._channel

    async def step(self, carrier: Ledger, operation: Awaitable[Transaction]) -> None:
        code = 0
        try:
            done = await operation
        except TransactionFailed as failed:
            code = failed.exit_code
        state, now = await carrier.channel(self._channel), await carrier.now()
        if not code:
            assert done.balance_nano == (state.balance_nano if state else 0)
        closing_in_s = state.close_at - now if state and state.close_at else 0
        for ledger in self._paid:
            taken_nano = await self.received(ledger)
            self._paid[ledger] += 0 if ledger is carrier else taken_nano
        self._carriers.append(carrier)
        self.steps.append(Step(code, state.deposited_nano, state.settled_nano, closing_in_s) if state else Step(code))

    async def end(self) -> None:
        """The channel is closed: compare what the chain remembers with what was done, and count the money."""
        records = await self.payer.transactions(self._channel)
        assert await self.payee.transactions(self._channel) == records
        assert [each.exit_code for each in records] == [each.exit_code for each in self.steps[-len(records) :]]
        for carrier, each in zip(self._carriers, records, strict=True):
            self._paid[carrier] += each.fee_nano
        self.records += records
        for ledger in self._paid:
            self.balances.append(await ledger.wallet.balance() + self._paid[ledger] - self._began[ledger])

    async def received(self, ledger: Ledger) -> int:
        """The fees of the wallet's new transactions. On TON it pays for taking what somebody else's operation sent it,
        which the model has no part in.
        """
        if not isinstance(ledger, TonLedger):
            return 0
        taken = await ledger.wallet.history(self._looked_lt[ledger])
        self._looked_lt[ledger] = max((each.lt for each in taken), default=self._looked_lt[ledger])
        return sum(each.total_fees.grams for each in taken)


async def in_memory(network: Network) -> Story:
    now = 1_800_000_000

    async def advance(seconds: int) -> None:
        nonlocal now
        now += seconds

    chain = MemoryChain(network, now=lambda: now, verify=verify)
    payer, payee = (chain.ledger("0:" + name * 32) for name in ("aa", "bb"))
    for ledger in (payer, payee):
        chain.mint(ledger.wallet.address, 20 * GRAM)
    story = Story(payer, payee, advance)
    await story.run()
    return story


@pytest.mark.slow
async def test_the_model_is_exact(devnet: Devnet) -> None:
    """The same story on TON and in memory: equal step by step, but for fees, rent and the passing of seconds."""
    model = await in_memory(devnet.network)
    async with devnet.funded(new_key(), new_key()) as (payer, payee):
        real = Story(payer, payee, devnet.advance)
        await real.run()
    for told, seen in zip(model.steps, real.steps, strict=True):
        assert seen == msgspec.structs.replace(told, closing_in_s=seen.closing_in_s)
        assert 0 <= told.closing_in_s - seen.closing_in_s < 60
    for recorded, done in zip(model.records, real.records, strict=True):
        assert (done.op, done.exit_code) == (recorded.op, recorded.exit_code)
        assert 0 <= recorded.balance_nano - done.balance_nano <= RENT_NANO
    for told_nano, seen_nano in zip(model.balances, real.balances, strict=True):
        assert 0 <= told_nano - seen_nano <= RENT_NANO
    for op, fee_nano in FEES_NANO.items():
        seen_fees = [done.fee_nano for done in real.records if done.op == op and not done.exit_code]
        assert max(seen_fees) == pytest.approx(fee_nano, rel=0.05), op


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
        assert (await ledger._servers.account(Address(target))).balance_nano == sum(sent) > 0


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
    async with open_ton(unnamed, new_key(), network=testnet) as ledger:
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


class Relay:
    """Stands between client and lite-server, and can fall silent, hang up and come back."""

    def __init__(self, config: dict[str, Any], nursery: trio.Nursery) -> None:
        self._server = config["liteservers"][0]
        self._nursery = nursery
        self._port = 0
        self._serving = trio.CancelScope()
        self.chunks_left = 0  # that the client may still send before all is cut; 0 for no end
        self.was_cut = trio.Event()
        self.back = trio.Event()

    async def start(self) -> None:
        (listener,) = await trio.open_tcp_listeners(self._port, host="127.0.0.1")
        self._port = listener.socket.getsockname()[1]
        self._serving = trio.CancelScope()
        self._nursery.start_soon(self._serve, listener, self._serving)

    async def cut(self) -> None:
        self._serving.cancel()
        await trio.testing.wait_all_tasks_blocked()

    async def cut_after(self, chunks: int) -> None:
        """Cut the line when the client has sent so many times, and be back a little later."""
        self.back = trio.Event()
        self.was_cut = trio.Event()
        self.chunks_left = chunks
        await self.was_cut.wait()
        await trio.sleep(0.2)
        await self.start()
        self.back.set()

    def config(self, config: dict[str, Any]) -> dict[str, Any]:
        return config | {"liteservers": [self._server | {"port": self._port}]}

    async def _serve(self, listener: trio.SocketListener, scope: trio.CancelScope) -> None:
        with scope:
            await trio.serve_listeners(self._relay, [listener])

    async def _relay(self, client: trio.SocketStream) -> None:
        server = await trio.open_tcp_stream("127.0.0.1", self._server["port"])
        async with server, trio.open_nursery() as nursery:
            nursery.start_soon(self._copy, client, server, client, nursery.cancel_scope)
            nursery.start_soon(self._copy, server, client, client, nursery.cancel_scope)

    async def _copy(
        self, source: trio.SocketStream, sink: trio.SocketStream, client: trio.SocketStream, done: trio.CancelScope
    ) -> None:
        try:
            async for data in source:
                if source is client and self.chunks_left:
                    self.chunks_left -= 1
                    if not self.chunks_left:
                        self._serving.cancel()
                        self.was_cut.set()
                await sink.send_all(data)
        except trio.BrokenResourceError:
            pass
        done.cancel()


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
