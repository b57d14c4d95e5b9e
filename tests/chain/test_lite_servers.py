"""A network of several lite-servers of which one lies, hangs or forgets: the honest ones are believed."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from nacl.signing import SigningKey
from on_devnet import GRAM, new_key, new_terms
from pytoniq_core import Address, Cell

from chain.devnet import adnl, blocks, tl
from chain.devnet.chain import Chain
from chain.devnet.liteserver import LiteServer
from chain.devnet.server import Devnet
from chain.devnet.vm import Vm
from chain.errors import ChainError, LedgerUnavailable, NetworkMismatch
from chain.ledger import Network
from chain.ton import open_ton
from chain.tonledger import TonLedger
from chain.wallet import WalletKey
from inference.nursery import open_background

MAINNET = Network("mainnet", -239)  # by name and global id: its rules are for money that is real
TESTNET = Network("testnet", -3)

Server = Callable[[bytes], Any]
Query = Callable[[dict[str, Any]], bytes]


class Net:
    """One chain, or several that pretend to be it, behind any number of servers."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.chain = Chain(Vm.from_package())
        self.dropped: list[str] = []
        self._servers: list[dict[str, Any]] = []
        self._nursery = nursery

    async def serve(self, answer: Server | None = None) -> str:
        """One more server, an honest one unless it is told what to answer; returns its name."""
        key, answers = SigningKey.generate(), answer or LiteServer(self.chain).answer

        async def one(stream: trio.SocketStream) -> None:
            await adnl.serve(stream, key, answers)

        (listener,) = await self._nursery.start(partial(trio.serve_tcp, one, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        self._servers += Devnet(self.chain, "127.0.0.1", port, bytes(key.verify_key), "").global_config()["liteservers"]
        return f"127.0.0.1:{port}"

    async def lying(self, query: str, lie: Callable[[Query], Query], chain: Chain | None = None) -> str:
        """One more server, honest but for one kind of question."""
        server = LiteServer(chain or self.chain)
        name = f"liteServer.{query}"
        server._queries[name] = lie(server._queries[name])
        return await self.serve(server.answer)

    def config(self, *order: int) -> dict[str, Any]:
        plain = Devnet(self.chain, "127.0.0.1", 0, bytes(32), "").global_config()
        del plain["bombyx"]
        return plain | {"liteservers": [self._servers[place] for place in order] or self._servers}

    @asynccontextmanager
    async def open(self, *order: int, key: WalletKey | None = None) -> AsyncIterator[TonLedger]:
        """A wallet with money, whose servers are asked in this order."""
        key = key or new_key()
        self.chain.faucet(Address(key.address(MAINNET)), 5 * GRAM)
        heard: Callable[[str, str], None] = lambda name, why: self.dropped.append(f"{name}: {why}")  # noqa: E731
        async with open_ton(self.config(*order), key, network=MAINNET, dropped=heard) as ledger:
            yield ledger


@pytest.fixture
async def net() -> AsyncIterator[Net]:
    async with open_background() as nursery:
        yield Net(nursery)
        nursery.cancel_scope.cancel()


def nothing_there(honest: Query) -> Query:
    def answer(fields: dict[str, Any]) -> bytes:
        _, said, _ = tl.decode(honest(fields))
        return tl.encode("liteServer.accountState", **said | {"state": b"", "proof": b"", "shard_proof": b""})

    return answer


def clock_ahead(honest: Query) -> Query:
    def answer(fields: dict[str, Any]) -> bytes:
        return tl.encode("liteServer.currentTime", now=tl.decode(honest(fields))[1]["now"] + 86_400)

    return answer


def keeps_it(_: Query) -> Query:
    return lambda _: tl.encode("liteServer.sendMsgStatus", status=1)


def far_ahead(honest: Query) -> Query:
    def answer(fields: dict[str, Any]) -> bytes:
        _, said, _ = tl.decode(honest(fields))
        said["last"]["seqno"] += 1_000_000
        return tl.encode("liteServer.masterchainInfo", **said)

    return answer


def forgets_the_newest(honest: Query) -> Query:
    def answer(fields: dict[str, Any]) -> bytes:
        _, said, _ = tl.decode(honest(fields))
        rest = blocks.bag_of_cells(Cell.from_boc(said["transactions"])[1:])
        return tl.encode("liteServer.transactionList", ids=said["ids"][1:], transactions=rest)

    return answer


async def test_a_channel_is_what_two_servers_say(net: Net) -> None:
    for _ in range(2):
        await net.serve()
    async with net.open() as payer, net.open() as payee:
        terms = await new_terms(payer, payee)
        await payer.open(terms, GRAM)
        state = await payee.channel(payee.channel_id(terms))
    assert state
    assert state.deposited_nano == GRAM
    assert net.dropped == []


@pytest.mark.parametrize("place", [0, 1])
async def test_a_server_that_hides_an_account_is_outvoted_and_named(net: Net, place: int) -> None:
    liar = await net.lying("getAccountState", nothing_there)
    for _ in range(2):
        await net.serve()
    async with net.open(*((0, 1, 2) if place == 0 else (1, 0, 2))) as ledger:
        assert await ledger.wallet.balance() == 5 * GRAM
        assert net.dropped == [f"{liar}: others say otherwise"]
        assert await ledger.wallet.balance() == 5 * GRAM
    assert len(net.dropped) == 1


async def test_a_server_of_a_forked_chain_is_outvoted_and_named(net: Net) -> None:
    """Its proofs are good, as far as one server's can be: it made the blocks."""
    key = new_key()
    fork = copy.copy(net.chain)
    fork._accounts, fork.blocks = dict(net.chain._accounts), list(net.chain.blocks)
    forger = await net.serve(LiteServer(fork).answer)
    for _ in range(2):
        await net.serve()
    async with net.open(key=key) as ledger:
        for _ in range(3):
            fork.faucet(Address(key.address(MAINNET)), 1000 * GRAM)
            net.chain.tick()
        assert await ledger.wallet.balance() == 5 * GRAM
    assert net.dropped == [f"{forger}: others say otherwise"]


async def test_of_two_servers_that_differ_neither_is_believed(net: Net) -> None:
    liar = await net.lying("getAccountState", nothing_there)
    honest = await net.serve()
    async with net.open() as ledger:
        with pytest.raises(LedgerUnavailable, match="do not agree") as caught:
            await ledger.wallet.balance()
    assert liar in str(caught.value)
    assert honest in str(caught.value)


@pytest.mark.parametrize(
    ("query", "lie"),
    [("getTime", clock_ahead), ("getMasterchainInfo", far_ahead), ("getTransactions", forgets_the_newest)],
)
async def test_a_server_that_lies_about_something_else_is_found_out_too(
    net: Net, query: str, lie: Callable[[Query], Query]
) -> None:
    liar = await net.lying(query, lie)
    for _ in range(2):
        await net.serve()
    async with net.open() as ledger:
        await ledger.transfer(ledger.wallet.address, 1)
    assert [one.split(": ")[0] for one in net.dropped] in ([], [liar])
    if query != "getMasterchainInfo":  # that one fails already when its newest block is looked up
        assert net.dropped


async def test_a_server_that_keeps_orders_to_itself_delays_nothing(net: Net) -> None:
    await net.lying("sendMessage", keeps_it)
    await net.serve()
    async with net.open() as ledger:
        with trio.fail_after(20):
            await ledger.transfer(ledger.wallet.address, 1)


async def test_a_server_that_hangs_is_passed_over_and_then_asked_last(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chain.ton.ANSWER_TIMEOUT_S", 1)

    async def silent(_: bytes) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    await net.serve(silent)
    for _ in range(2):
        await net.serve()
    async with net.open() as ledger:
        started = trio.current_time()
        await ledger.wallet.balance()
        assert trio.current_time() - started > 0.9
        with trio.fail_after(0.9):
            await ledger.wallet.balance()
    assert net.dropped == []


async def test_one_server_is_not_enough_where_money_is_real(net: Net) -> None:
    await net.serve()
    for servers in ((0,), (0, 0)):
        with pytest.raises(ChainError, match="names 1 lite-server, and on mainnet 2 must agree"):
            async with open_ton(net.config(*servers), new_key(), network=MAINNET):
                pass


async def test_a_server_of_another_network_is_dropped_and_several_are_a_wrong_config(net: Net) -> None:
    """Two devnets share a global id; the state that their chains began with tells them apart."""
    other = Chain(Vm.from_package(), clock=lambda: 1_800_000_000)
    strangers = [await net.serve(LiteServer(other).answer) for _ in range(2)]
    for _ in range(2):
        await net.serve()
    async with net.open(0, 2, 3) as ledger:
        assert await ledger.wallet.balance() == 5 * GRAM
        assert net.dropped == [f"{strangers[0]}: it speaks for another network"]
    async with net.open(0, 1) as ledger:
        with pytest.raises(NetworkMismatch, match="began with another state"):
            await ledger.transfer(ledger.wallet.address, 1)
    assert other.balance(Address(ledger.wallet.address)) == 0


async def test_a_name_and_a_global_id_that_do_not_belong_together_are_refused(net: Net) -> None:
    await net.serve()
    with pytest.raises(NetworkMismatch, match="has not the global id"):
        async with open_ton(net.config(), new_key(), network=Network("testnet", -239)):
            pass


@pytest.mark.parametrize(
    "damage",
    [
        {"liteservers": [{"ip": 1}]},
        {"liteservers": [7]},
        {"liteservers": 7},
        {"liteservers": [{"ip": "x", "port": 1, "id": {"key": "a"}}, {"ip": 1, "port": 1, "id": {"key": "b"}}]},
        {"validator": {"zero_state": {"root_hash": "abcde"}}},
        {"validator": 7},
    ],
)
async def test_a_damaged_config_is_refused(net: Net, damage: dict[str, Any]) -> None:
    for _ in range(2):
        await net.serve()
    with pytest.raises(ChainError):
        async with open_ton(net.config() | damage, new_key(), network=MAINNET):
            pass
