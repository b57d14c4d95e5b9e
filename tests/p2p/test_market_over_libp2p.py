"""The same market over real libp2p on loopback, with books whose commits run in threads and the true clock."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from market import DEPOSIT_NANO, MODEL, NETWORK, PRICES, RICH_NANO, Diary, question, signer

from chain.book import Book
from chain.channel import State
from chain.keeper import BookKeeper
from chain.keys import verify
from chain.memory import MemoryChain
from chain.settling import SettlePolicy
from inference.engine import Delta
from inference.measure import Measured
from inference.nursery import open_background
from inference.script import answer as script
from inference.scripted import Scripted, ScriptedEngine
from p2p.errors import Refused, Unavailable
from p2p.host import Host
from p2p.net.libp2p_host import open_host
from p2p.peer import Budget, LightPeer
from p2p.protocol import session
from p2p.protocol.sales import PriceList
from p2p.protocol.strategy import AskForLess, UtilisationPrice
from p2p.provider import Provider

pytestmark = pytest.mark.slow

LISTEN = ("/ip4/127.0.0.1/tcp/0",)


class Town:
    """A chain, a bootstrap, one provider and one client, each on a host of its own."""

    def __init__(self, bootstrap: Host, directory: Path) -> None:
        self.chain = MemoryChain(NETWORK, now=lambda: int(time.time()), verify=verify)
        self.diary = Diary()
        self.engine: ScriptedEngine
        self.book: Book
        self._bootstrap = bootstrap
        self._directory = directory
        for address in ("seller", "buyer"):
            self.chain.mint(address, RICH_NANO)

    @asynccontextmanager
    async def provider(self, scripted: Scripted | None = None) -> AsyncIterator[Host]:
        self.engine = ScriptedEngine(scripted or Scripted())
        # The book closes last: the host ends the sessions that still write to it.
        with Book(self._directory / "provider", "payee", NETWORK) as self.book:
            async with self._host("provider", LISTEN) as host, open_background() as background:
                provider = Provider(
                    host=host,
                    engine=self.engine,
                    measured={MODEL: Measured(50, 100)},
                    ledger=self.chain.ledger("seller"),
                    keeper=BookKeeper(self.book),
                    identity=signer("provider"),
                    payee_key=signer("provider", "payee"),
                    price_list=PriceList(UtilisationPrice(PRICES, 20), 1_000_000),
                    deposit_min_nano=DEPOSIT_NANO // 2,
                    challenge_period_s=3600,
                    settle_policy=SettlePolicy(risk_nano=1),
                    clock=time.time,
                    trace=self.diary,
                )
                await background.start(provider.run)
                yield host
                background.cancel_scope.cancel()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[LightPeer]:
        with Book(self._directory / "client", "payer", NETWORK) as book:
            async with self._host("client", ()) as host:
                peer = LightPeer(
                    host=host,
                    ledger=self.chain.ledger("buyer"),
                    keeper=BookKeeper(book),
                    identity=signer("client"),
                    payer_key=signer("client", "payer"),
                    budget=Budget(deposit_nano=DEPOSIT_NANO, strategy=AskForLess(10)),
                    clock=time.time,
                )
                await peer.load()
                yield peer

    @asynccontextmanager
    async def _host(self, name: str, listen: tuple[str, ...]) -> AsyncIterator[Host]:
        async with open_host(signer(name).seed, listen, dht_server=bool(listen), network="devnet") as host:
            await host.connect(self._bootstrap.addresses()[0])
            yield host


@asynccontextmanager
async def open_town(directory: Path) -> AsyncIterator[Town]:
    with trio.fail_after(60):
        async with open_host(signer("bootstrap").seed, LISTEN, dht_server=True, network="devnet") as bootstrap:
            yield Town(bootstrap, directory)


async def settled(town: Town, nano: int) -> None:
    """The provider settles after it has answered, and tells nobody."""
    while town.book.channels()[0].settled_nano < nano:  # noqa: ASYNC110
        await trio.sleep(0.01)


async def test_an_answer_is_bought_and_its_channel_closed(tmp_path: Path) -> None:
    request = question("why " * 1000, max_tokens=60)
    expected = "".join(item.text for item in script(request) if isinstance(item, Delta))
    async with open_town(tmp_path) as town, town.provider(Scripted(tokens_per_s=400)), town.client() as client:
        deal = await client.agree(await client.find(MODEL), request)
        assert deal.quote.prices == PRICES.scaled(90, 100)
        async with client.answer(deal, request) as answer:
            assert "".join([piece async for piece in answer]) == expected
        assert answer.receipt is not None
        await settled(town, answer.authorised_nano)
        transaction = await client.close_channel(answer.channel)
        assert transaction.op == "close_by_release"
        (known,) = await client.channels()
        assert (known.state, known.settled_nano) == (State.CLOSED, answer.receipt.session_total_nano)
        assert town.chain.balance("seller") < RICH_NANO, "fees"
        assert town.engine.capacity().free == 4


async def test_a_reader_who_leaves_and_one_who_is_slow(tmp_path: Path) -> None:
    request = question(max_tokens=200)
    async with open_town(tmp_path) as town, town.provider(Scripted(slots=1, tokens_per_s=200)), town.client() as client:
        async with client.answer(await client.agree(await client.find(MODEL), request), request) as answer:
            async for _ in answer:
                break
        assert answer.receipt is not None
        assert answer.receipt.reason == "cancelled"
        assert answer.receipt.tokens.output < 100
        async with client.answer(await client.agree(await client.find(MODEL), request), request) as answer:
            async for _ in answer:
                await trio.sleep(0.01)
        assert answer.completion_tokens == 200
        assert town.engine.capacity().free == 1


async def test_the_provider_says_why_before_it_hangs_up(tmp_path: Path) -> None:
    async with open_town(tmp_path) as town, town.provider(Scripted(fail_after=0)), town.client() as client:
        async with client.answer(await client.agree(await client.find(MODEL), question()), question()) as answer:
            with pytest.raises(Refused) as caught:
                await anext(answer)
        assert caught.value.reason == "engine_failed"


async def test_a_provider_that_goes_away_in_the_middle(tmp_path: Path) -> None:
    request = question(max_tokens=100)
    async with open_town(tmp_path) as town, town.client() as client, open_background() as background:
        going, gone = trio.CancelScope(), trio.Event()
        await background.start(until_cancelled, town, Scripted(tokens_per_s=20), going, gone)
        async with client.answer(await client.agree(await client.find(MODEL), request), request) as answer:
            await anext(answer)
            going.cancel()
            with pytest.raises(Unavailable):
                await read(answer)
        (known,) = await client.channels()
        assert 0 < known.delivered_nano <= known.authorised_nano
        await gone.wait()
        async with town.provider(Scripted(tokens_per_s=400)):
            async with client.answer(await client.agree(await client.find(MODEL), request), request) as answer:
                await read(answer)
            assert town.book.channels()[0].delivered_nano == answer.delivered_nano


async def until_cancelled(
    town: Town, scripted: Scripted, scope: trio.CancelScope, gone: trio.Event, *, task_status: trio.TaskStatus[None]
) -> None:
    with scope:
        async with town.provider(scripted):
            task_status.started()
            await trio.sleep_forever()
    gone.set()


async def read(answer: object) -> None:
    async for _ in answer:  # type: ignore[attr-defined]
        pass


async def test_garbage_over_a_real_stream_costs_the_stream(tmp_path: Path) -> None:
    async with open_town(tmp_path) as town, town.provider() as host, town.client() as client:
        for garbage in (b"\x05hello", b"\xff\xff\xff\xff"):
            stream = await client._host.open(host.peer, session.PROTOCOL)
            await stream.write(garbage)
            with pytest.raises(Unavailable):
                await stream.read(1)
        async with client.chat(question().messages, model=MODEL, max_tokens=10) as answer:
            await read(answer)
        assert answer.completion_tokens == 10
