"""Haggling over a network in memory: who is asked, who is chosen, what is agreed, and what becomes of the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from market import DEPOSIT_NANO, MODEL, PRICES, Customer, Market, Seller, clock, open_market, question
from memory_host import WINDOW_BYTES
from trio.testing import MockClock, wait_all_tasks_blocked

from inference.engine import Message
from inference.scripted import Scripted
from p2p import ranking
from p2p.budget import Budget
from p2p.buying import GRACE_S, MAX_ASKED, Deal, Experience, Negotiations
from p2p.discovery import PROBE_KEPT_S, Found
from p2p.errors import PaymentError, Refused, RemoteError, Unavailable
from p2p.host import HANDLER_TIMEOUT_S, Stream
from p2p.protocol.market import Need, Objection, Standing
from p2p.protocol.negotiate import PROTOCOL, Accept, Ask, Counter, ToProvider, Turn
from p2p.protocol.places import HELD_RETRY_S, HOLD_S
from p2p.protocol.price import Prices, Tokens
from p2p.protocol.sales import PriceList
from p2p.protocol.strategy import (
    AskForLess,
    Bid,
    BuyerStrategy,
    ConcedingBuyer,
    ConcedingPrice,
    FixedPrice,
    Load,
    TakeIt,
    UtilisationPrice,
)
from p2p.protocol.wire import frame
from p2p.selling import TURN_TIMEOUT_S
from p2p.story import short
from p2p.stream import MessageStream

CHEAP, MIDDLE, DEAR = (PRICES.scaled(percent, 100) for percent in (100, 120, 140))
NONCES = count()
ASK = Ask(model=MODEL, prompt_tokens=200, max_tokens=40, payer_key=bytes(32), nonce=bytes(16))


async def haggle(
    client: Customer,
    *,
    strategy: BuyerStrategy | None = None,
    prices_max: Prices | None = None,
    draw: Callable[[int], int] = lambda _: 0,
    ask: Ask = ASK,
    found: list[Found] | None = None,
    window_max_nano: int = 1 << 40,
    experience: Experience = Experience(),  # noqa: B008 - it cannot be changed
    **limits: Any,
) -> Deal:
    need = Need(tokens=Tokens(input=100, output=20), prices_max=prices_max, **limits)
    negotiations = Negotiations(
        client.host,
        network="devnet",
        need=need,
        strategy=strategy or TakeIt(),
        window_max_nano=window_max_nano,
        experience=experience,
        failed=client.peer._directory.fail,
        draw=draw,
        clock=clock,
        trace=client.diary,
    )

    def fresh() -> Ask:
        return msgspec.structs.replace(ask, nonce=next(NONCES).to_bytes(16, "big"))

    return await negotiations.agree(found or list(await client.peer.find(None)), fresh)


def streams_left(client: Customer) -> int:
    return sum(not stream.over for stream in client.host.streams)  # type: ignore[attr-defined]


async def three(market: Market) -> list[Seller]:
    return [
        await market.seller(name=name, prices=prices)
        for name, prices in (("cheap", CHEAP), ("middle", MIDDLE), ("dear", DEAR))
    ]


async def test_the_cheapest_of_three_is_taken_at_its_price(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        sellers, client = await three(market), await market.customer()
        deal = await haggle(client)
        assert deal.provider == sellers[0].peer
        assert deal.quote.prices == deal.first_prices == CHEAP
        assert deal.why == "the cheapest for this question"
        assert [score.candidate.prices for score in deal.ranked] == [CHEAP, MIDDLE, DEAR]
        assert streams_left(client) == 0
        await wait_all_tasks_blocked()
        assert all(stream.over for one in sellers for stream in one.host.streams)  # type: ignore[attr-defined]


async def test_of_two_that_are_as_good_the_draw_and_then_free_slots_decide(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        one = await market.seller(Scripted(slots=2), name="one")
        two = await market.seller(Scripted(slots=3), name="two")
        client = await market.customer()
        order = sorted([one.peer, two.peer])

        def drawing(*places: int) -> Callable[[int], int]:
            left = iter(places)
            return lambda n: next(left) % n

        assert (await haggle(client, draw=drawing(0, 0))).provider == order[0]
        assert (await haggle(client, draw=drawing(1, 1))).provider == order[1]
        assert (await haggle(client, draw=drawing(0, 1))).provider == two.peer, "it has more free slots"


async def test_a_counter_offer_within_the_discount_is_taken(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller = await market.seller(strategy=UtilisationPrice(PRICES, 20))
        client = await market.customer()
        deal = await haggle(client, strategy=AskForLess(10))
        assert deal.quote.prices == PRICES.scaled(90, 100)
        assert deal.first_prices == PRICES
        assert client.diary.kinds().count("quote") == 2
        assert client.diary.of("counter")[0]["prices"]["output"] == PRICES.scaled(90, 100).output
        assert [record["prices"]["output"] for record in seller.diary.of("quoted")] == [
            PRICES.output,
            PRICES.scaled(90, 100).output,
        ]


async def test_a_counter_offer_below_the_floor_meets_the_floor_and_that_is_final(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        await market.seller(strategy=UtilisationPrice(PRICES, 20))
        client = await market.customer()
        assert (await haggle(client, strategy=AskForLess(50))).quote.prices == PRICES.scaled(80, 100)


async def test_a_fixed_price_stays_and_is_not_told_twice(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        await market.seller()
        client = await market.customer()
        assert (await haggle(client, strategy=AskForLess(50))).quote.prices == PRICES
        kinds = [kind for kind in client.diary.kinds() if kind in {"quote", "counter", "kept", "agreed"}]
        assert kinds == ["quote", "counter", "kept", "agreed"]


async def test_each_provider_is_asked_with_a_nonce_of_its_own(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        await three(market)
        client, nonces = await market.customer(), set[bytes]()
        for _ in range(2):
            deal = await client.peer.agree(await client.peer.find(MODEL), question())
            nonces.add(deal.quote.nonce)
        assert len(nonces) == 2


class Pushy(PriceList):
    """A seller that answers a counter-offer with a higher price, which no strategy of ours could."""

    def answer(self, wanted: Prices, turn: Turn, load: Load) -> Bid:
        return Bid(DEAR, final=True)


PUSHY = Pushy(FixedPrice(CHEAP), 1_000_000)


async def test_who_raises_the_price_while_haggling_is_left_for_the_next(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        await market.seller(name="pushy", price_list=PUSHY)
        fair = await market.seller(name="fair", prices=MIDDLE)
        client = await market.customer()
        deal = await haggle(client, strategy=AskForLess(10))
        assert deal.provider == fair.peer
        assert "dearer" in client.diary.of("no_deal")[0]["why"]


async def test_who_wants_too_much_ahead_or_other_terms_than_it_advertised_is_left_for_the_next(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        greedy = await market.seller(name="greedy", window_cap_nano=1 << 40)
        fair = await market.seller(name="fair", prices=MIDDLE, window_cap_nano=1000)
        client = await market.customer()
        found = list(await client.peer.find(None))
        assert (await haggle(client, found=found)).provider == greedy.peer
        assert (await haggle(client, found=found, window_max_nano=1000)).provider == fair.peer
        await trio.sleep(HOLD_S)
        await market.kill(greedy)
        await market.seller(name="greedy", deposit_min_nano=DEPOSIT_NANO - 1)
        assert (await haggle(client, found=found)).provider == fair.peer
        assert "advert" in client.diary.of("no_quote")[-1]["why"]


async def test_a_light_peer_asks_only_those_whose_channel_it_would_open(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        await market.seller(name="dear", deposit_min_nano=DEPOSIT_NANO + 1)
        client = await market.customer()
        with pytest.raises(PaymentError, match="wants a deposit"):
            await client.peer.agree(await client.peer.find(MODEL), question())
        fair = await market.seller(name="fair", prices=DEAR)
        deal = await client.peer.agree(await client.peer.find(MODEL), question())
        assert deal.provider == fair.peer
        (left_out,) = deal.left_out
        assert "wants a deposit" in left_out.why


async def test_nobody_within_the_cap_is_asked_or_taken(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        await three(market)
        client = await market.customer()
        assert (await haggle(client, prices_max=CHEAP)).quote.prices == CHEAP
        with pytest.raises(Refused, match="price cap"):
            await haggle(client, prices_max=CHEAP.scaled(99, 100))
        assert client.diary.kinds().count("quote") == 1


async def test_a_quote_above_what_was_advertised_and_above_the_cap_is_not_taken(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        honest = await market.seller(prices=CHEAP)
        await market.seller(name="two", prices=DEAR)
        client = await market.customer()
        found = [_advertising(CHEAP, one) for one in await client.peer.find(None)]
        assert (await haggle(client, found=found, prices_max=MIDDLE)).provider == honest.peer
        market.network.kill(honest.peer)
        with pytest.raises(Refused, match="price cap"):
            await haggle(client, found=found, prices_max=MIDDLE)


def _advertising(prices: Prices, found: Found) -> Found:
    return replace(found, model=msgspec.structs.replace(found.model, prices=prices))


async def test_both_concede_until_they_meet_and_each_step_is_a_quote(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller = await market.seller(strategy=ConcedingPrice(PRICES, PRICES.scaled(70, 100)))
        client = await market.customer()
        deal = await haggle(client, strategy=ConcedingBuyer(30))
        wanted = [record["prices"]["output"] for record in client.diary.of("counter")]
        quoted = [record["prices"]["output"] for record in seller.diary.of("quoted")]
        assert (wanted, quoted) == ([210_000_000, 240_000_000], [300_000_000, 270_000_000, 240_000_000])
        assert deal.quote.prices.output == 240_000_000
        assert deal.first_prices == PRICES


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model": "Qwen/Qwen3-8B"}, "no_such_model"),
        ({"tier": "attested"}, "no_such_tier"),
        ({"prompt_tokens": 8192}, "too_long"),
    ],
)
async def test_where_nobody_wants_the_reason_is_told(
    tmp_path: Path, autojump_clock: MockClock, change: dict[str, object], reason: str
) -> None:
    async with open_market(tmp_path) as market:
        await three(market)
        client = await market.customer()
        with pytest.raises(Refused) as caught:
            await haggle(client, ask=msgspec.structs.replace(ASK, **change))
        assert caught.value.reason == reason
        assert client.diary.kinds().count("no_quote") == 3
        assert streams_left(client) == 0


async def test_one_client_holds_so_many_places_and_not_for_ever(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        await market.seller(Scripted(slots=3))
        client, other, third = [await market.customer(name) for name in ("client", "other", "third")]
        await haggle(client)
        await haggle(client)
        with pytest.raises(Refused) as caught:
            await haggle(client)
        assert (caught.value.reason, caught.value.retry_after_s) == ("busy", HELD_RETRY_S), "it has but to take them"
        (found,) = await other.peer.find(None)
        assert found.model.slots_free == 1
        await haggle(other)
        with pytest.raises(Refused):
            await haggle(third)
        await trio.sleep(HOLD_S)
        await haggle(client)


async def test_providers_that_are_dead_silent_or_mad_cost_time_and_nothing_else(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        good = await market.seller(name="good", prices=DEAR)
        bad = [await market.seller(name=f"bad-{number}") for number in range(3)]
        client = await market.customer()
        found = list(await client.peer.find(None))
        bad[0].host.serve(PROTOCOL, _say_nothing)
        bad[1].host.serve(PROTOCOL, _say_garbage)
        await market.kill(bad[2])
        began_at = trio.current_time()
        deal = await haggle(client, found=found)
        assert trio.current_time() == began_at + GRACE_S
        assert deal.provider == good.peer
        assert len(client.diary.of("no_quote")) == 3
        assert [one.peer for one in await client.peer.find(None)] == [good.peer], "the others are not asked first again"
        assert streams_left(client) == 0
        await market.kill(good)
        with pytest.raises((Unavailable, RemoteError)):
            await haggle(client, found=found)
        assert streams_left(client) == 0


async def test_only_the_most_promising_are_asked(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        for number in range(MAX_ASKED + 3):
            await market.seller(name=f"provider-{number}", prices=PRICES.scaled(100 + 10 * number, 100))
        client = await market.customer()
        await haggle(client)
        asked = [record["prices"]["input"] for record in client.diary.of("quote")]
        assert sorted(asked) == [PRICES.scaled(100 + 10 * number, 100).input for number in range(MAX_ASKED)]


async def test_each_one_found_is_ranked_or_left_out_for_a_reason_and_shown(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        sellers, client = await three(market), await market.customer()
        busy = await market.seller(Scripted(slots=1), name="busy", prices=CHEAP)
        await haggle(client, allow={busy.peer})  # its one slot is promised
        await trio.sleep(PROBE_KEPT_S)
        cheap, middle, dear = (one.peer for one in sellers)
        experience = Experience(opening_fee_nano=7, standings={middle: Standing(450)}, ready={dear})
        deal = await haggle(client, experience=experience, block={cheap})
        assert [score.candidate.peer for score in deal.ranked] == [dear, middle], "it fails nearly half of the time"
        assert {one.candidate.peer: one.why for one in deal.left_out} == {
            cheap: Objection.BLOCKED,
            busy.peer: Objection.FULL,
        }
        shown = {row[0]: row for row in ranking.rows(deal)}
        assert len(shown) == 4
        assert shown[short(dear)][1:6] == ("22,400", "0", "0", "457", "22,857")
        assert shown[short(middle)][2:3] == ("7",)
        assert shown[short(middle)][8:] == ("45 %", "open", "")
        assert shown[short(dear)][-1] == "taken: the one that keeps its promises"
        assert shown[short(busy.peer)][-1] == "no free slot"
        told = {row["peer"]: row for row in ranking.as_json(deal)}
        assert [row["taken"] for row in told.values()] == [True, False, False, False]
        assert told[dear]["total_nano"] == 22_857
        assert told[middle]["failure_permille"] == 450
        assert told[cheap]["why"] == "on your block list"


async def test_a_machine_that_has_to_prove_what_it_runs_is_not_taken_at_its_word(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        await three(market)
        client = await market.customer(budget=Budget(tier="attested"))
        with pytest.raises(Refused, match="nothing proves the tier that you want"):
            await client.peer.agree(await client.peer.find(MODEL), question())


async def test_a_conversation_goes_on_with_who_answered_it_before(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        for number in range(4):
            await market.seller(name=f"provider-{number}", prices=PRICES.scaled(100 + number, 100))
        client, messages = await market.customer(), [*question().messages]
        first = ""
        for turn in range(4):
            async with client.peer.chat(messages, model=MODEL, max_tokens=20) as answer:
                text = "".join([piece async for piece in answer])
            first = first or answer.parts[0].deal.provider
            assert answer.parts[0].deal.provider == first
            messages += [Message("assistant", text), Message("user", f"and then, {turn}")]


async def test_what_opening_costs_is_shared_out_over_as_many_answers_as_the_book_tells(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        await market.seller()
        client = await market.customer()

        async def opening_nano() -> int:
            deal = await client.peer.agree(await client.peer.find(MODEL), question())
            return deal.ranked[0].opening_nano

        before = await opening_nano()
        async with client.peer.chat(question().messages, model=MODEL, max_tokens=20) as answer:
            [piece async for piece in answer]
        assert await opening_nano() == 0, "it is open"
        await market.seller(name="two", prices=PRICES.scaled(1, 2))
        other = await opening_nano()
        assert (before, other) == (3_200_000 // 100, -(-3_200_000 // 50)), "one channel has served one answer"


async def test_giving_up_in_the_middle_leaves_no_stream(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(), await market.customer()
        found = list(await client.peer.find(None))
        seller.host.serve(PROTOCOL, _say_nothing)
        with trio.move_on_after(1) as scope:
            await haggle(client, found=found)
        assert scope.cancelled_caught
        assert streams_left(client) == 0


async def test_a_budget_caps_what_a_light_peer_pays(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        await three(market)
        client = await market.customer(budget=Budget(prices_max=CHEAP.scaled(1, 2)))
        with pytest.raises(Refused, match="price cap"):
            await client.peer.agree(await client.peer.find(MODEL), question())
        with pytest.raises(Unavailable, match="no provider of Qwen"):
            await client.peer.find("Qwen/Qwen3-8B")


async def test_a_provider_waits_so_long_for_each_turn_and_for_all(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(), await market.customer()
        stream = await client.host.open(seller.peer, PROTOCOL)
        with pytest.raises(Unavailable):
            await stream.read(1)
        assert trio.current_time() == pytest.approx(TURN_TIMEOUT_S)
        full = await client.host.open(seller.peer, PROTOCOL)
        await seller.host.streams[-1].write(b"x" * WINDOW_BYTES)  # type: ignore[attr-defined]
        await full.write(frame(ASK))
        await trio.sleep(HANDLER_TIMEOUT_S + 1)
        with pytest.raises(Unavailable):
            await read_to_end(full)


@pytest.mark.parametrize(
    "said", [[Accept(quote_id=bytes(32))], [Counter(prices=PRICES)], [ASK, ASK], [ASK, Accept(quote_id=bytes(32))]]
)
async def test_who_speaks_out_of_turn_loses_the_stream(
    tmp_path: Path, autojump_clock: MockClock, said: list[msgspec.Struct]
) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(), await market.customer()
        stream = await client.host.open(seller.peer, PROTOCOL)
        messages = MessageStream[ToProvider](stream, ToProvider)
        await messages.send(*said)
        await wait_all_tasks_blocked()
        with pytest.raises(Unavailable):
            await read_to_end(stream)


async def read_to_end(stream: Stream) -> None:
    while await stream.read(1000):
        pass


async def _say_nothing(stream: Stream) -> None:
    await trio.sleep_forever()


async def _say_garbage(stream: Stream) -> None:
    await stream.write(b"\x05hello")
