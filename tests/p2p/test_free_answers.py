"""Newcomers without money, providers that give something away, and those that charge nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from market import MODEL, Customer, Market, Seller, open_market, question
from memory_host import MemoryHost
from msgspec import structs
from trio.testing import MockClock

from chain.channel import State
from chain.nochain import NoChain
from inference.engine import Delta, Finished, Request
from inference.errors import EngineDied
from inference.script import answer as script
from inference.scripted import Scripted, ScriptedEngine
from p2p.answer import Answer
from p2p.buying import Deal
from p2p.errors import EngineError, Refused, RemoteError, Unavailable
from p2p.keys import verify_by_peer
from p2p.protocol import session
from p2p.protocol.allowance import DAY_S, Allowance, Left
from p2p.protocol.price import FREE
from p2p.protocol.receipt import verify_receipt
from p2p.protocol.session import Payment, Start, ToClient
from p2p.protocol.unpaid import NO_CHANNEL, NO_KEY
from p2p.protocol.wire import encode
from p2p.purchase import Purchase, buy
from p2p.ranking import as_json, rows
from p2p.stream import open_messages

SOME = Allowance(per_client=250, per_address=400, per_day=10_000)
WIDE = Allowance(per_client=10_000, per_address=10_000, per_day=10_000)
REQUEST = question(max_tokens=40)  # with its prompt 45 tokens, and 193 at most by what the client can tell
MOST = 193


def text_of(request: Request) -> str:
    return "".join(item.text for item in script(request) if isinstance(item, Delta))


async def newcomer(market: Market, name: str = "newcomer", source: str = "") -> Customer:
    """Without a wallet, a channel, or a chain to look at."""
    client = await market.customer(name, ledger=lambda plain: NoChain(plain.network))
    assert isinstance(client.host, MemoryHost)
    client.host.source = source or client.host.source
    return client


async def free(client: Customer, request: Request = REQUEST) -> Purchase:
    return await buy(client.peer, request, lambda _: None, free=True)


async def test_a_newcomer_without_money_gets_an_answer_and_a_receipt_that_says_that_it_was_free(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(allowance=SOME), await newcomer(market)
        money = market.chain.total()
        bought = await free(client)
        assert bought.text == text_of(REQUEST)
        answer = bought.answer
        assert answer.signed_receipt is not None
        receipt = verify_receipt(answer.signed_receipt, network="devnet", verify=verify_by_peer)
        assert (receipt.channel, receipt.channel_total_nano, receipt.session_total_nano) == (NO_CHANNEL, 0, 0)
        assert (receipt.prices, receipt.tokens.output) == (FREE, 40)
        assert [one.signed for one in client.book.receipts()] == [one.signed for one in seller.book.receipts()]
        assert (client.book.channels(), seller.book.channels(), market.chain.total()) == ([], [], money)
        assert client.book.paid_answers() == (0, 0), "nothing for the mean over channels"
        assert client.book.evidence() == [], "what is given away shows nothing of what is sold"
        assert (answer.deal.quote.free, answer.deal.quote.payer_key) == (True, NO_KEY)

        assert bought.summary["free"]
        assert (bought.summary["channel"], bought.summary["cost_nano"]) == (None, 0)
        assert dict(bought.rows())["price"] == "free, out of what the provider gives to newcomers"
        assert rows(answer.deal)[0][-1] == "taken: the only one that offered; free"
        assert as_json(answer.deal)[0]["prices"] == {"input": 0, "cached_input": 0, "output": 0}


async def test_beyond_the_allowance_a_client_hears_what_is_left_and_what_to_do_also_after_a_restart(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(allowance=SOME), await newcomer(market)
        await free(client)
        said = f"205 free tokens are left for you, and this may take {MOST + 30}: ask for less, or pay"
        for _ in range(2):
            with pytest.raises(Refused, match=said) as caught:
                await free(client, question(max_tokens=70))
            assert caught.value.reason == "no_allowance"
            await market.kill(seller)
            seller = await market.seller(allowance=SOME)
        await free(client)
        with pytest.raises(Refused, match="160 free tokens are left for you"):
            await free(client)
        with pytest.raises(Refused, match="it gives newcomers less than 253 tokens: ask for less, or pay"):
            await free(client, question(max_tokens=100))


async def test_those_from_one_address_share_what_it_may_have_in_a_day(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        await market.seller(allowance=Allowance(per_client=250, per_address=250, per_day=10_000))
        one, other = await newcomer(market, "one", "192.0.2.1"), await newcomer(market, "other", "192.0.2.1")
        await free(one)
        await free(other)
        with pytest.raises(Refused, match="160 free tokens are left today for your address") as caught:
            await free(await newcomer(market, "third", "192.0.2.1"))
        assert 0 < (caught.value.retry_after_s or 0) <= DAY_S
        await free(await newcomer(market, "elsewhere", "192.0.2.2"))
        await trio.sleep(DAY_S)
        await free(await newcomer(market, "fourth", "192.0.2.1"))


async def test_a_client_with_money_pays_though_others_are_given_something(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(allowance=SOME), await market.customer()
        bought = await buy(client.peer, REQUEST, lambda _: None)
        assert not bought.summary["free"]
        assert bought.cost_nano > 0
        assert seller.book.channels()[0].authorised_nano == bought.cost_nano


async def test_who_pays_goes_first(tmp_path: Path, autojump_clock: MockClock) -> None:
    """One of two slots may be given away, none while somebody who pays was sent away for want of one."""
    async with open_market(tmp_path) as market:
        await market.seller(Scripted(slots=2), allowance=WIDE)
        one, other, paying = await newcomer(market, "one"), await newcomer(market, "other"), await market.customer()
        found = await one.peer.find(MODEL)
        deal = await one.peer.agree(found, REQUEST, free=True)
        late = await other.peer.agree(found, REQUEST, free=True)
        async with one.peer.answer(deal, REQUEST) as running:
            await anext(running)
            with pytest.raises(Refused, match="no slot is idle that could be given away"):
                await other.peer.agree(found, REQUEST, free=True)
            with pytest.raises(Refused, match="no slot is idle"):  # none was kept for it
                await read(other, late, REQUEST)
            first = await paying.peer.agree(found, REQUEST)  # its place is promised
            with pytest.raises(Refused, match="every slot is in use or promised"):
                await paying.peer.agree(found, REQUEST)
        with pytest.raises(Refused, match="no slot is idle"):
            await other.peer.agree(found, REQUEST, free=True)
        await read(paying, first, REQUEST)
        with pytest.raises(Refused, match="no slot is idle"):  # somebody who pays is expected back
            await other.peer.agree(found, REQUEST, free=True)
        await trio.sleep(60)
        assert await read(other, await other.peer.agree(found, REQUEST, free=True), REQUEST) == text_of(REQUEST)


async def read(client: Customer, deal: Deal, request: Request) -> str:
    async with client.peer.answer(deal, request) as answer:
        return "".join([piece async for piece in answer])


class Breaking(ScriptedEngine):
    """Dies before its first token."""

    @asynccontextmanager
    async def generate(self, request: Request) -> AsyncIterator[AsyncIterator[Delta | Finished]]:
        if request.max_tokens:
            raise EngineDied("out of memory")
        async with super().generate(request) as items:
            yield items


async def test_what_an_engine_failed_at_is_given_back(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller = await market.seller(engine=Breaking(Scripted()), allowance=SOME)
        client = await newcomer(market)
        with pytest.raises((EngineError, Refused)):
            await free(client)
        assert await seller.provider._giving.left(client.host.peer, "192.0.2.1") == Left(250, 400, 10_000)


async def test_who_leaves_in_the_middle_has_had_what_was_worked_on(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The prompt counts as soon as the engine was put to it: else it could be had for nothing, again and again."""
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(allowance=SOME), await newcomer(market)
        deal = await client.peer.agree(await client.peer.find(MODEL), REQUEST, free=True)
        async with client.peer.answer(deal, REQUEST) as answer:
            for _ in range(3):
                await anext(answer)
        assert answer.receipt is not None
        assert answer.receipt.reason == "cancelled"
        had = answer.prompt_tokens + answer.completion_tokens
        left = await seller.provider._giving.left(client.host.peer, client.host.source)  # type: ignore[attr-defined]
        assert left == Left(250 - had, 400 - had, 10_000 - had)


async def test_a_provider_that_dies_gives_nothing_back(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(allowance=SOME), await newcomer(market)
        deal = await client.peer.agree(await client.peer.find(MODEL), REQUEST, free=True)
        with pytest.raises(Unavailable):
            await read_until_killed(market, client, deal, seller)
        seller = await market.seller(allowance=SOME)
        left = await seller.provider._giving.left(client.host.peer, client.host.source)  # type: ignore[attr-defined]
        assert left == Left(250 - 45, 400 - 45, 10_000 - 45)


async def read_until_killed(market: Market, client: Customer, deal: Deal, seller: Seller) -> None:
    async with client.peer.answer(deal, REQUEST) as answer:
        await anext(answer)
        seller.keeper.commits_left = 0  # from now on nothing is written
        await market.kill(seller)
        async for _ in answer:
            pass


async def test_where_nothing_has_a_price_no_channel_is_opened_and_no_allowance_is_used_up(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller = await market.seller(prices=FREE, deposit_min_nano=1 << 50, ledger=lambda plain: NoChain(plain.network))
        client = await newcomer(market)
        for asked_as_free in (True, False):
            bought = await buy(client.peer, REQUEST, lambda _: None, free=asked_as_free)
            assert bought.text == text_of(REQUEST)
            assert not bought.summary["free"]
            assert dict(bought.rows())["price"] == "free"
        assert (client.book.channels(), seller.book.channels()) == ([], [])
        assert len(client.book.evidence()) == 2, "there, how it did is all that tells providers apart"
        assert len(seller.book.receipts()) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"channel": bytes(31) + b"\1"},
        {"payment": Payment(session_total_nano=1, channel_total_nano=1, signature=bytes(64))},
    ],
    ids=["a channel", "a voucher"],
)
async def test_for_what_costs_nothing_no_voucher_is_taken(
    tmp_path: Path, autojump_clock: MockClock, changes: dict[str, object]
) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(allowance=SOME), await newcomer(market)
        deal = await client.peer.agree(await client.peer.find(MODEL), REQUEST, free=True)
        start = Start(
            session=bytes(16),
            quote=deal.signed,
            channel=NO_CHANNEL,
            request=encode(REQUEST),
            salt=bytes(16),
            payment=Payment(session_total_nano=0, channel_total_nano=0, signature=bytes(64)),
        )
        async with open_messages(client.host, seller.peer, session.PROTOCOL, ToClient, client.diary) as messages:
            await messages.send(structs.replace(start, **changes))
            with pytest.raises(Unavailable):
                await messages.answer()
        assert "bad_voucher" in [one["reason"] for one in seller.diary.of("session_failed")]
        assert await seller.provider._giving.left(client.host.peer, "elsewhere") == Left(250, 400, 10_000)


async def test_a_free_quote_is_good_for_one_answer(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        await market.seller(allowance=WIDE)
        client = await newcomer(market)
        deal = await client.peer.agree(await client.peer.find(MODEL), REQUEST, free=True)
        await read(client, deal, REQUEST)
        with pytest.raises(Refused, match="the quote was used already"):
            await read(client, deal, REQUEST)


async def test_another_goes_on_for_nothing_before_a_channel_is_opened(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The client has a channel to the one that dies, and money for another."""
    request = question(max_tokens=100)
    async with open_market(tmp_path) as market:
        first, client = await market.seller(name="first"), await market.customer()
        await buy(client.peer, structs.replace(request, max_tokens=1), lambda _: None)
        await market.seller(name="second", allowance=WIDE)
        (channel,) = client.book.channels()
        pieces, killed = [], False
        async with client.peer.ask(request) as answer:
            async for piece in answer:
                pieces.append(piece)
                if not killed and answer.completion_tokens > 20:
                    killed = True
                    await market.kill(first)
        parts: list[Answer] = answer.parts
        assert "".join(pieces) == text_of(request)
        assert [part.deal.quote.free for part in parts] == [False, True]
        assert len(client.book.channels()) == 1
        assert answer.cost_nano == parts[0].cost_nano > 0
        assert client.book.channel(channel.channel).state is State.OPEN
        bought = Purchase("".join(pieces), answer.found, parts, None)
        assert [part["free"] for part in bought.summary["parts"]] == [False, True]


async def test_a_price_on_what_is_given_away_is_a_breach(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(allowance=WIDE), await newcomer(market)
        honest = seller.provider._sales._sales._quote

        def dear(ask, prices, *rest):  # type: ignore[no-untyped-def]
            return honest(ask, structs.replace(prices, output=1), *rest)

        seller.provider._sales._sales._quote = dear  # type: ignore[method-assign]
        with pytest.raises(RemoteError, match="what is given away has a price"):
            await free(client)
