"""js-libp2p as a customer: it finds a provider of ours, agrees on a price and buys, whichever of the two dialled.

All that it knows of the protocol is in docs/PROTOCOL.md. The channel is opened and closed on chain by us, for a wallet
is no part of the wire; what js signed is held against the provider's book and against what the chain paid.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from explorer import history
from js_peer import JsError, JsPeer, js_peer, needs_js
from local import CHEAP, SCRIPTED, Bare, Provider, start_bare, start_provider
from on_devnet import Devnet
from processes import Processes

from chain.backup import BOOK_FILE
from chain.contract.cells import code
from chain.ledger import ChannelTerms, Ledger, Network
from chain.records import open_records
from chain.wallet import WalletKey
from inference.engine import Delta, Message, Request
from inference.script import answer
from p2p.keys import verify_by_peer
from p2p.network_file import read_network, write_network
from p2p.protocol.receipt import SignedReceipt, verify_receipt
from p2p.protocol.wire import decode

pytestmark = [pytest.mark.slow, needs_js]

DEVNET = Network("devnet", -239)
DEPOSIT_NANO = 100_000_000
LONG_PROMPT = "why is silk so strong? " * 400  # worth several windows

js_dials = pytest.mark.parametrize("js_dials", [True, False], ids=["js dials", "the provider dials"])


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bare]:
    with Processes(tmp_path_factory.mktemp("bare")) as started:
        yield start_bare(started)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    with Processes(tmp_path) as started:
        yield started


@dataclass
class Shop:
    """A customer in JavaScript, a provider in a process of its own, and in the end a channel between them."""

    js: JsPeer
    provider: Provider
    network: Path
    channel: dict[str, Any] = field(default_factory=dict)  # as js keeps it

    async def agree(self, max_tokens: int, **counter: object) -> dict[str, Any]:
        """A quote that js accepted: `body`, and `object` as it was signed."""
        sizes = {"promptTokens": 4000, "maxTokens": max_tokens}
        agreed: dict[str, Any] = await self.js.do("agree", peer=self.provider.peer, model=SCRIPTED, **sizes, **counter)
        return agreed

    async def buy(self, quote: dict[str, Any], request: Request, **how: object) -> dict[str, Any]:
        """What js says of the answer that it bought."""
        given = {"quote": quote, "request": msgspec.to_builtins(request), "channel": self.channel}
        bought: dict[str, Any] = await self.js.do("buy", peer=self.provider.peer, **given, **how)
        self.channel = bought["channel"]
        return bought


@asynccontextmanager
async def open_shop(bare: Bare, processes: Processes, *, js_dials: bool) -> AsyncIterator[Shop]:
    """Js knows our bootstrap peer, or is itself the one that the provider knows."""
    async with js_peer("customer", network="devnet") as js:
        file = bare.file
        if not js_dials:
            file = processes.directory / "network.json"
            write_network(file, msgspec.structs.replace(read_network(bare.file), bootstraps=tuple(js.addresses)))
        provider = start_provider(processes, file, "seller", *CHEAP, "--discount-percent", "20")
        if js_dials:
            await js.do("dial", address=bare.relay.address)
        yield Shop(js, provider, file)


@asynccontextmanager
async def opened(shop: Shop, advert: dict[str, Any]) -> AsyncIterator[Ledger]:
    """A channel on the terms of the advert, from a wallet of ours, to be paid from by js."""
    devnet = Devnet(read_network(shop.network).chain, DEVNET)
    async with devnet.funded(WalletKey(secrets.token_bytes(32))) as (ledger,):
        offer = advert["channel"]
        terms = ChannelTerms(
            payer=ledger.wallet.address,
            payee=offer["payee"],
            payer_key=shop.js.payer_key,
            payee_key=offer["payee_key"],
            challenge_period_s=offer["challenge_period_s"],
            open_before=await ledger.now() + 600,
            salt=secrets.token_bytes(32),
        )
        contract = {"hash": code().hash, "depth": code().get_depth(0)}
        channel = await shop.js.do("channelId", terms=msgspec.to_builtins(terms, builtin_types=(bytes,)), code=contract)
        assert channel == ledger.channel_id(terms)
        await ledger.open(terms, DEPOSIT_NANO)
        shop.channel = {"id": channel, "depositedNano": DEPOSIT_NANO, "deliveredNano": 0, "authorisedNano": 0}
        yield ledger


@js_dials
async def test_js_finds_a_provider_buys_answers_and_closes(bare: Bare, processes: Processes, js_dials: bool) -> None:
    async with open_shop(bare, processes, js_dials=js_dials) as shop:
        await find(shop)
        advert = await shop.js.do("pull", peer=shop.provider.peer)
        assert [model["id"] for model in advert["models"]] == [SCRIPTED]
        async with opened(shop, advert) as ledger:
            bought = [await buy(shop) for buy in (buy_a_little, buy_much, pay_when_asked, stop_early)]
            assert await shop.js.do("connections", peer=shop.provider.peer) == ["outbound" if js_dials else "inbound"]
            total_nano = sum(one["receipt"]["session_total_nano"] for one in bought)
            check_the_providers_book(shop, bought, total_nano)
            await close(shop, ledger, advert, total_nano)


async def find(shop: Shop) -> None:
    """The DHT names the provider, at the addresses where it listens, under what it sells."""
    with trio.fail_after(60):
        while True:
            found = await shop.js.do("providers", key=f"model:{SCRIPTED}")
            if shop.provider.peer in found:
                break
    for key in (f"model:{SCRIPTED}", "family:scripted", "any"):
        found = await shop.js.do("providers", key=key)
        assert found[shop.provider.peer][0].startswith(shop.provider.address.partition("/p2p/")[0])


async def buy_a_little(shop: Shop) -> dict[str, Any]:
    """With a price that was haggled for."""
    dear = (await shop.agree(40))["body"]["prices"]
    wanted = [price * 85 // 100 for price in dear]
    quote = await shop.agree(40, counter=wanted)
    assert wanted[2] <= quote["body"]["prices"][2] < dear[2]
    request = Request(model=SCRIPTED, messages=(Message("user", "why is silk strong?"),), max_tokens=40)
    bought = await shop.buy(quote, request)
    assert bought["text"] == scripted_text(request)
    assert bought["tokens"] == [5, 0, 40]
    assert bought["receipt"]["prices"] == quote["body"]["prices"]
    return bought


async def buy_much(shop: Shop) -> dict[str, Any]:
    """A prompt that is paid for in steps, and an answer of several windows."""
    request = Request(model=SCRIPTED, messages=(Message("user", LONG_PROMPT),), max_tokens=200, seed=7)
    bought = await shop.buy(await shop.agree(200), request)
    assert bought["text"] == scripted_text(request)
    assert bought["steps"] > 3
    assert bought["payments"] > bought["steps"]
    return bought


async def pay_when_asked(shop: Shop) -> dict[str, Any]:
    """The provider works ahead for a window, then waits."""
    request = Request(model=SCRIPTED, messages=(Message("user", "and then?"),), max_tokens=100)
    bought = await shop.buy(await shop.agree(100), request, onlyWhenAsked=True)
    assert bought["text"] == scripted_text(request)
    assert bought["pauses"] > 0
    return bought


async def stop_early(shop: Shop) -> dict[str, Any]:
    request = Request(model=SCRIPTED, messages=(Message("user", "tell me all"),), max_tokens=300)
    bought = await shop.buy(await shop.agree(300), request, cancelAfter=5)
    assert bought["receipt"]["reason"] == "cancelled"
    assert 5 <= bought["tokens"][2] < 100
    assert scripted_text(request).startswith(bought["text"])
    return bought


def scripted_text(request: Request) -> str:
    return "".join(item.text for item in answer(request) if isinstance(item, Delta))


def check_the_providers_book(shop: Shop, bought: list[dict[str, Any]], total_nano: int) -> None:
    """Both sides have the same totals, and what js countersigned convinces a stranger."""
    with open_records(shop.provider.home / "provider" / BOOK_FILE, "payee", DEVNET) as records:
        (channel,), receipts = records.channels(), records.receipts()
    assert (channel.channel, channel.peer) == (shop.channel["id"], shop.js.peer)
    assert channel.delivered_nano == shop.channel["deliveredNano"] == total_nano
    assert channel.authorised_nano == shop.channel["authorisedNano"] >= total_nano
    assert [one.signed for one in receipts] == [one["shown"] for one in bought]
    for one in receipts:
        shown = verify_receipt(decode(one.signed, SignedReceipt), network=DEVNET.name, verify=verify_by_peer)
        assert (shown.client, shown.session_total_nano) == (shop.js.peer, one.cost_nano)


async def close(shop: Shop, ledger: Ledger, advert: dict[str, Any], total_nano: int) -> None:
    """With a release that js asked for. The chain has paid the provider what was delivered and the rest is back."""
    payee_key = advert["channel"]["payee_key"]
    released = await shop.js.do("close", peer=shop.provider.peer, channel=shop.channel, payeeKey=payee_key)
    assert released["amount_nano"] == total_nano
    with pytest.raises(JsError, match="refused: channel_unusable"):
        await shop.buy(await shop.agree(40), Request(model=SCRIPTED, messages=(Message("user", "more"),), max_tokens=1))
    channel = shop.channel["id"]
    await ledger.close_by_release(channel, released["amount_nano"], released["signature"])
    opening, *settled, closing = await trio.to_thread.run_sync(history, shop.network, channel.hex())
    assert {one.op for one in settled} == {"settle"}
    assert (opening.op, closing.op, closing.exit_code, closing.after_nano) == ("open", "close_by_release", 0, 0)
    paid_nano = sum(one.before_nano - one.after_nano - one.rent_nano for one in settled)
    paid_nano += sum(nano for to, nano in closing.sent_nano if to == shop.provider.ready["wallet"])
    assert paid_nano == total_nano
