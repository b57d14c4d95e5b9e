"""A market of one provider and one client over real libp2p on loopback."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from market import DEPOSIT_NANO, MODEL, NETWORK, PRICES, RICH_NANO, Diary, signer

from chain.book import Book
from chain.keeper import BookKeeper
from chain.keys import verify
from chain.memory import MemoryChain
from chain.settling import SettlePolicy
from inference.measure import Measured
from inference.nursery import open_background
from inference.scripted import Scripted, ScriptedEngine
from p2p.budget import Budget
from p2p.host import Host
from p2p.net.libp2p_host import open_host
from p2p.peer import LightPeer
from p2p.protocol.price import Prices
from p2p.protocol.sales import PriceList
from p2p.protocol.strategy import AskForLess, UtilisationPrice
from p2p.provider import Provider
from p2p.trace import Trace, silent

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
    async def provider(
        self,
        scripted: Scripted | None = None,
        *,
        engine: ScriptedEngine | None = None,
        prices: Prices = PRICES,
        price_list: PriceList | None = None,
    ) -> AsyncIterator[Host]:
        self.engine = engine or ScriptedEngine(scripted or Scripted())
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
                    price_list=price_list or PriceList(UtilisationPrice(prices, 20), 1_000_000),
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
    async def client(
        self,
        seen_through: Callable[[Host], Host] = lambda host: host,
        *,
        joins: str = "",
        listen: tuple[str, ...] = (),
        trace: Trace = silent,
    ) -> AsyncIterator[LightPeer]:
        """`joins` is the address of the one that it knows, if that is not the bootstrap."""
        with Book(self._directory / "client", "payer", NETWORK) as book:
            async with self._host("client", listen, joins) as host:
                peer = LightPeer(
                    host=seen_through(host),
                    ledger=self.chain.ledger("buyer"),
                    keeper=BookKeeper(book),
                    identity=signer("client"),
                    payer_key=signer("client", "payer"),
                    budget=Budget(deposit_nano=DEPOSIT_NANO, strategy=AskForLess(10)),
                    clock=time.time,
                    trace=trace,
                )
                await peer.load()
                yield peer

    @asynccontextmanager
    async def _host(self, name: str, listen: tuple[str, ...], joins: str = "") -> AsyncIterator[Host]:
        async with open_host(signer(name).seed, listen, dht_server=bool(listen), network="devnet") as host:
            await host.connect(joins or self._bootstrap.addresses()[0])
            yield host


@asynccontextmanager
async def open_town(directory: Path, patience_s: float = 60.0) -> AsyncIterator[Town]:
    with trio.fail_after(patience_s):
        async with open_host(signer("bootstrap").seed, LISTEN, dht_server=True, network="devnet") as bootstrap:
            yield Town(bootstrap, directory)
