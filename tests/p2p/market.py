"""Providers and clients with real books, a model of the chain and a scripted engine, on any network."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import trio
from memory_host import MemoryNetwork, open_memory_network

from chain.book import Book
from chain.errors import BookUnusable
from chain.keeper import BookKeeper
from chain.keys import Ed25519Signer, verify
from chain.ledger import Ledger, Network
from chain.memory import MemoryChain
from chain.records import Role
from chain.settling import SettlePolicy
from inference.engine import Engine, Message, Request
from inference.measure import Measured
from inference.nursery import open_background
from inference.scripted import SCRIPTED_MODEL, Scripted, ScriptedEngine
from p2p.budget import Budget
from p2p.discovery import SEARCH_KEPT_S
from p2p.host import Host
from p2p.keys import peer_id_of
from p2p.manners import Pause
from p2p.peer import LightPeer
from p2p.protocol.allowance import Allowance
from p2p.protocol.price import Prices
from p2p.protocol.sales import PriceList
from p2p.protocol.strategy import FixedPrice, SellerStrategy, TakeIt
from p2p.provider import NO_ALLOWANCE, Provider

NETWORK = Network("devnet", -239)
MODEL = SCRIPTED_MODEL.id
PRICES = Prices(100_000_000, 50_000_000, 300_000_000)
DEAR = Prices(100_000_000, 50_000_000, 60_000_000_000)  # one answer is worth more than the fee of settling it
DEPOSIT_NANO = 100_000_000
CHALLENGE_PERIOD_S = 3600
RICH_NANO = 10_000_000_000
NOON = 1_800_000_000

T = TypeVar("T")


def clock() -> float:
    """Trio's time as unix time."""
    return NOON + trio.current_time()


def signer(*words: str) -> Ed25519Signer:
    return Ed25519Signer(hashlib.sha256("/".join(words).encode()).digest())


def question(content: str = "why is silk strong", max_tokens: int = 40) -> Request:
    return Request(model=MODEL, messages=(Message("user", content),), max_tokens=max_tokens)


class InlineKeeper(BookKeeper):
    """Commits on the event loop, because a mock clock jumps while a thread works.

    `commits_left` fills the disk, `commit_s` makes it slow.
    """

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self.commits_left: int | None = None
        self.commit_s = 0.0

    async def do(self, work: Callable[[Book], T]) -> T:
        await trio.sleep(self.commit_s)
        if self.commits_left is not None:
            if self.commits_left == 0:
                raise BookUnusable("the disk is full")
            self.commits_left -= 1
        with self._book.batch():
            return work(self._book)


class Diary:
    """A trace that remembers."""

    def __init__(self) -> None:
        self.records: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, kind: str, /, **fields: object) -> None:
        msgspec.json.encode(fields)
        self.records.append((kind, fields))

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.records]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [fields for one, fields in self.records if one == kind]


@dataclass
class Seller:
    """A running provider."""

    name: str
    host: Host
    engine: ScriptedEngine
    keeper: InlineKeeper
    ledger: Ledger
    provider: Provider
    diary: Diary
    scope: trio.CancelScope
    stopped: trio.Event = field(default_factory=trio.Event)

    @property
    def peer(self) -> str:
        return self.host.peer

    @property
    def book(self) -> Book:
        return self.keeper._book


@dataclass
class Customer:
    """A running client."""

    name: str
    host: Host
    keeper: InlineKeeper
    ledger: Ledger
    peer: LightPeer
    diary: Diary

    @property
    def book(self) -> Book:
        return self.keeper._book


class Market:
    """A chain, a directory for books, and a network in memory."""

    def __init__(self, directory: Path, network: MemoryNetwork, nursery: trio.Nursery) -> None:
        self.network = network
        self.chain = MemoryChain(NETWORK, now=lambda: int(clock()), verify=verify)
        self._directory = directory
        self._nursery = nursery
        self._books: list[Book] = []
        self._customers = 0

    async def seller(
        self,
        scripted: Scripted | None = None,
        *,
        name: str = "provider",
        prices: Prices = PRICES,
        strategy: SellerStrategy | None = None,
        price_list: PriceList | None = None,
        window_cap_nano: int = 1_000_000,
        settle_at_nano: int = 1 << 40,
        settle_after_s: float = float("inf"),
        retired_wait_s: float = float("inf"),
        deposit_min_nano: int = DEPOSIT_NANO // 2,
        allowance: Allowance = NO_ALLOWANCE,
        pause: Callable[[], Pause | None] = lambda: None,
        went_out: Callable[[int], None] = lambda _: None,
        ledger: Callable[[Ledger], Ledger] = lambda plain: plain,
        engine: Engine | None = None,
    ) -> Seller:
        """Start a provider. The same name again is the same one, restarted from its book."""
        identity = signer(name)
        host = await self.network.join(peer_id_of(identity.public_key))
        plain = ScriptedEngine(scripted or Scripted())
        keeper, money, diary = self._keeper(name, "payee"), ledger(self._wallet(name)), Diary()
        provider = Provider(
            host=host,
            engine=engine or plain,
            measured={model.id: Measured(50, 100) for model in plain.models()},
            ledger=money,
            keeper=keeper,
            identity=identity,
            payee_key=signer(name, "payee"),
            price_list=price_list or PriceList(strategy or FixedPrice(prices), window_cap_nano),
            deposit_min_nano=deposit_min_nano,
            challenge_period_s=CHALLENGE_PERIOD_S,
            settle_policy=SettlePolicy(risk_nano=settle_at_nano, after_s=settle_after_s, retired_wait_s=retired_wait_s),
            allowance=allowance,
            pause=pause,
            went_out=went_out,
            clock=clock,
            trace=diary,
        )
        seller = Seller(name, host, plain, keeper, money, provider, diary, trio.CancelScope())
        await self._nursery.start(_run, seller)
        if self._customers:
            await trio.sleep(SEARCH_KEPT_S)  # those who have looked around already will look again
        return seller

    async def customer(
        self,
        name: str = "client",
        *,
        budget: Budget | None = None,
        ledger: Callable[[Ledger], Ledger] = lambda plain: plain,
    ) -> Customer:
        """Start a client. The same name again is the same one restarted, or another process beside it, on one book."""
        identity = signer(name)
        host = await self.network.join(peer_id_of(identity.public_key))
        keeper, money, diary = self._keeper(name, "payer"), ledger(self._wallet(name)), Diary()
        peer = LightPeer(
            host=host,
            ledger=money,
            keeper=keeper,
            identity=identity,
            payer_key=signer(name, "payer"),
            budget=budget or Budget(deposit_nano=DEPOSIT_NANO, strategy=TakeIt()),
            clock=clock,
            trace=diary,
        )
        await peer.load()
        self._customers += 1
        return Customer(name, host, keeper, money, peer, diary)

    async def kill(self, one: Seller | Customer) -> None:
        """No goodbye; its book can be opened again."""
        self.network.kill(one.host.peer)
        if isinstance(one, Seller):
            one.scope.cancel()
            await one.stopped.wait()
        self._books.remove(one.book)
        one.book.close()

    def lose_book(self, one: Seller | Customer) -> None:
        """Its disk is gone. It must not run."""
        for file in self._directory.glob(f"{one.name}.sqlite*"):
            file.unlink()

    def close(self) -> None:
        for book in self._books:
            book.close()

    def _keeper(self, name: str, role: Role) -> InlineKeeper:
        self._books.append(Book(self._directory / f"{name}.sqlite", role, NETWORK))
        return InlineKeeper(self._books[-1])

    def _wallet(self, name: str) -> Ledger:
        address = "0:" + hashlib.sha256(name.encode()).hexdigest()
        if not self.chain.balance(address):
            self.chain.mint(address, RICH_NANO)
        return self.chain.ledger(address)


async def _run(seller: Seller, *, task_status: trio.TaskStatus[None]) -> None:
    try:
        with seller.scope:
            await seller.provider.run(task_status=task_status)
    finally:
        seller.stopped.set()


@asynccontextmanager
async def open_market(directory: Path) -> AsyncIterator[Market]:
    """Everything ends with the context, and no handler had a bug meanwhile."""
    async with open_memory_network() as network, open_background() as nursery:
        market = Market(directory, network, nursery)
        try:
            yield market
        finally:
            nursery.cancel_scope.cancel()
            market.close()
