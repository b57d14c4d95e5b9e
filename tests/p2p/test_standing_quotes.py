"""Standing quotes on a market in memory: bought for many answers, used without asking, honoured after restarts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from market import MODEL, PRICES, Customer, Seller, clock, open_market, question
from trio.testing import MockClock

from inference.engine import Request
from inference.scripted import Scripted
from p2p import ranking
from p2p.budget import Budget
from p2p.discovery import PROBE_KEPT_S
from p2p.errors import PaymentError, Refused, Unavailable
from p2p.host import Stream
from p2p.protocol import advert, negotiate, session
from p2p.protocol.allowance import DAY_S
from p2p.protocol.demand import TEMPLATE_TOKENS, Wanted
from p2p.protocol.price import FREE
from p2p.protocol.sales import PriceList
from p2p.protocol.standing import StandingLimits
from p2p.protocol.strategy import FixedPrice, TakeIt
from p2p.purchase import Purchase, buy

REQUEST = question(max_tokens=20)
RTT_S = 0.1


def bulk(percent: int, limits: StandingLimits = StandingLimits(50, DAY_S)) -> PriceList:  # noqa: B008 - it is frozen
    return PriceList(FixedPrice(PRICES, bulk_discount_percent=percent), 1_000_000, FREE, FREE, limits)


def wanted(**changes: Any) -> Wanted:
    known = Wanted(model=MODEL, per_day=3, input_tokens=100, output_tokens=20, until=int(clock()) + DAY_S)
    return msgspec.structs.replace(known, **changes)


async def ask(client: Customer, request: Request = REQUEST) -> Purchase:
    return await buy(client.peer, request, lambda _: None)


def left(one: Customer | Seller) -> list[int]:
    return [quote.uses_left for quote in one.book.standing_quotes(int(clock()))]


async def test_the_best_is_held_and_used_without_looking_or_asking(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        best = await market.seller(name="best", price_list=bulk(30))
        other = await market.seller(name="other", price_list=bulk(20))
        client = await market.customer()
        (deal,) = await client.peer.demand(wanted())
        assert (deal.provider, deal.quote.uses) == (best.peer, 3)
        assert deal.quote.prices == PRICES.scaled(70, 100)
        assert (left(client), left(best), left(other)) == ([3], [3], [])
        heard: list[str] = []
        market.network.taps.append(lambda speaker, protocol, _: heard.append(protocol))
        for uses_left in ([2], [1], []):
            bought = await ask(client)
            assert bought.answer.deal.quote == deal.quote
            assert bought.answer.deal.why == "its standing quote is held"
            assert left(client) == left(best) == uses_left, "both count the same"
        assert set(heard) == {session.PROTOCOL}
        assert bought.answer.delivered_nano == 3 * bought.cost_nano
        await trio.sleep(PROBE_KEPT_S)
        spot = await ask(client)
        assert spot.answer.deal.quote.prices == PRICES, "it is used up"
        assert {advert.PROTOCOL, negotiate.PROTOCOL} < set(heard)


async def test_a_request_goes_out_three_round_trips_sooner(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        await market.seller(price_list=bulk(10))
        client = await market.customer()
        await ask(client)  # there is a channel afterwards
        sent_at: list[float] = []

        def tap(speaker: str, protocol: str, _: bytes) -> None:
            if (speaker, protocol) == (client.host.peer, session.PROTOCOL):
                sent_at.append(trio.current_time())

        market.network.taps.append(tap)
        market.network.rtt_s = RTT_S

        async def until_sent_s() -> float:
            sent_at.clear()
            begun_at = trio.current_time()
            await ask(client)
            return sent_at[0] - begun_at

        await trio.sleep(PROBE_KEPT_S)
        without_s, just_after_s = await until_sent_s(), await until_sent_s()
        await client.peer.demand(wanted())
        with_s = await until_sent_s()
        assert without_s == pytest.approx(3 * RTT_S), "is it there, a quote, an agreement"
        assert just_after_s == pytest.approx(2 * RTT_S), "it was there just now"
        assert with_s == pytest.approx(0)


async def test_both_sides_remember_it_over_a_restart(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(price_list=bulk(10)), await market.customer()
        await client.peer.demand(wanted())
        await ask(client)
        await market.kill(seller)
        await market.kill(client)
        seller, client = await market.seller(price_list=bulk(0)), await market.customer()
        assert left(client) == left(seller) == [2]
        for _ in range(2):
            assert (await ask(client)).answer.deal.quote.prices == PRICES.scaled(90, 100)
        assert (await ask(client)).answer.deal.quote.prices == PRICES


async def test_what_a_provider_will_not_honour_is_asked_for_instead(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(price_list=bulk(10)), await market.customer()
        (deal,) = await client.peer.demand(wanted())
        seller.book.forget_standing_quote(deal.signed.id)
        await market.kill(seller)
        seller = await market.seller(price_list=bulk(0))
        bought = await ask(client)
        assert (bought.answer.deal.provider, bought.answer.deal.quote.prices) == (seller.peer, PRICES)
        assert left(client) == []


async def test_a_busy_moment_uses_nothing_up_and_somebody_else_answers(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller = await market.seller(Scripted(slots=1), name="cheap", price_list=bulk(10))
        client, another = await market.customer(), await market.customer("another")
        await client.peer.demand(wanted())
        other = await market.seller(name="other", prices=PRICES)
        found = [one for one in await another.peer.find(MODEL) if one.peer == seller.peer]
        held = await another.peer.agree(found, REQUEST)  # the one slot is promised
        assert held.provider == seller.peer
        bought = await ask(client)
        assert bought.answer.deal.provider == other.peer
        assert left(client) == left(seller) == [3]


async def test_a_provider_that_is_gone_is_replaced_and_the_quote_kept(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(name="gone", price_list=bulk(10)), await market.customer()
        await client.peer.demand(wanted())
        other = await market.seller(name="other")
        await market.kill(seller)
        for _ in range(2):
            assert (await ask(client)).answer.deal.provider == other.peer
        assert left(client) == [3]


async def test_a_provider_that_moved_is_looked_for_and_remembered_where_it_is(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(name="moved", price_list=bulk(10)), await market.customer()
        await market.seller(name="other", prices=PRICES.scaled(2, 1))
        await client.peer.demand(wanted())
        elsewhere = (f"/memory/elsewhere/p2p/{seller.peer}",)
        seller.host.move(elsewhere)  # type: ignore[attr-defined]
        opened, dials = client.host.open, iter((False, True))

        async def open_(peer: str, protocol: str) -> Stream:
            if protocol == session.PROTOCOL and not next(dials, True):
                raise Unavailable("nobody is there any more")
            return await opened(peer, protocol)

        monkeypatch.setattr(client.host, "open", open_)
        await trio.sleep(PROBE_KEPT_S)
        bought = await ask(client)
        assert (bought.answer.deal.provider, bought.answer.deal.quote.uses) == (seller.peer, 3)
        (held,) = await client.peer.held(REQUEST)
        assert held.advert.addresses == elsewhere
        assert left(client) == left(seller) == [2]
        dials = iter((False, False, True))
        (part,) = (await ask(client)).parts
        assert part.deal.provider != seller.peer, "it was looked for, and failed again"
        assert left(client) == left(seller) == [2]


async def test_it_is_one_candidate_among_those_that_are_found(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(name="bulk", price_list=bulk(10)), await market.customer()
        await client.peer.demand(wanted())
        dear = await market.seller(name="dear", prices=PRICES.scaled(2, 1))
        found = await client.peer.find(MODEL)
        deal = await client.peer.agree(found, REQUEST, held=await client.peer.held(REQUEST))
        assert (deal.provider, deal.quote.uses) == (seller.peer, 3)
        shown = {row["peer"]: row for row in ranking.as_json(deal)}
        assert {peer: row["standing_quote"] for peer, row in shown.items()} == {seller.peer: True, dear.peer: False}
        assert ranking.rows(deal)[0][-1] == "taken: the cheapest for this question; standing quote"
        cheap = await market.seller(name="cheap", prices=PRICES.scaled(1, 2))
        found = await client.peer.find(MODEL)
        deal = await client.peer.agree(found, REQUEST, held=await client.peer.held(REQUEST))
        assert deal.provider == cheap.peer


@pytest.mark.parametrize(
    "request_",
    [
        question(max_tokens=81),
        question("x" * 2 * (4 * 100 + TEMPLATE_TOKENS), max_tokens=20),
        msgspec.structs.replace(REQUEST, model="another"),
    ],
)
async def test_it_is_for_its_model_and_for_requests_that_it_covers(
    tmp_path: Path, autojump_clock: MockClock, request_: Request
) -> None:
    async with open_market(tmp_path) as market:
        await market.seller(price_list=bulk(10))
        client = await market.customer()
        await client.peer.demand(wanted())
        assert len(await client.peer.held(REQUEST)) == 1
        assert not await client.peer.held(request_)


@pytest.mark.parametrize(
    "budget",
    [
        Budget(prices_max=PRICES.scaled(1, 2)),
        Budget(tier="attested"),
        Budget(features={"thought-reading"}),
        Budget(allow={"somebody"}),
        Budget(deposit_nano=1),
    ],
)
async def test_hard_limits_hold_for_what_was_agreed_before_they_were_set(
    tmp_path: Path, autojump_clock: MockClock, budget: Budget
) -> None:
    async with open_market(tmp_path) as market:
        await market.seller(price_list=bulk(10))
        client = await market.customer()
        await client.peer.demand(wanted())
        await market.kill(client)
        client = await market.customer(budget=budget)
        assert not await client.peer.held(REQUEST)


async def test_the_last_use_goes_to_one_of_two_processes(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(price_list=bulk(10)), await market.customer()
        await client.peer.demand(wanted(per_day=2))
        await ask(client)
        (held,) = await client.peer.held(REQUEST)
        deal = await client.peer.agree((), REQUEST, held=[held])
        client.book.use_standing_quote(held.signed.id)  # the other process
        with pytest.raises(Refused, match="used up"):
            async with client.peer.answer(deal, REQUEST):
                pass
        assert left(seller) == [1], "nothing was said to it"


async def test_nobody_sells_ahead(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        client = await market.customer()
        with pytest.raises(Unavailable):
            await client.peer.demand(wanted())
        await market.seller(price_list=bulk(10, StandingLimits()))
        with pytest.raises(Refused) as caught:
            await client.peer.demand(wanted())
        assert caught.value.reason == "no_standing_quote"
        await market.seller(name="dear", price_list=bulk(0))
        with pytest.raises(Refused, match="price cap"):
            await client.peer.demand(wanted(prices_max=PRICES.scaled(1, 2)))
        poor = await market.customer("poor", budget=Budget(deposit_nano=1, strategy=TakeIt()))
        with pytest.raises(PaymentError):
            await poor.peer.demand(wanted())


async def test_of_a_family_each_model_gets_the_best(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(price_list=bulk(10)), await market.customer()
        (deal,) = await client.peer.demand(wanted(model="", family="scripted"))
        assert (deal.provider, deal.quote.model) == (seller.peer, MODEL)
        with pytest.raises(Unavailable, match="no provider of qwen"):
            await client.peer.demand(wanted(model="", family="qwen"))


async def test_a_crash_before_it_is_on_disk_gives_nothing(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(price_list=bulk(10)), await market.customer()
        seller.keeper.commits_left = 0
        with pytest.raises(Unavailable):
            await client.peer.demand(wanted())
        assert left(client) == left(seller) == []
