"""A provider fails in the middle of an answer, in every way there is, and the reader gets one whole answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from market import DEPOSIT_NANO, MODEL, PRICES, Customer, Market, Seller, clock, open_market, question
from msgspec import structs
from trio.testing import MockClock, wait_all_tasks_blocked

from chain.wallet import WALLET_MARGIN_NANO
from inference.engine import Delta, Finished, Request
from inference.errors import EngineError as InferenceFailed
from inference.script import answer as script
from inference.scripted import SCRIPTED_MODEL, Scripted, ScriptedEngine
from p2p.budget import Budget
from p2p.errors import EmptyWallet, EngineError, Refused, RemoteError, Unavailable
from p2p.failover import PROVIDERS_MAX, LastingAnswer
from p2p.protocol.advert_book import FAILURE_S
from p2p.protocol.allowance import Allowance
from p2p.protocol.price import Prices, Tokens, cost_nano
from p2p.protocol.reputation import Evidence, Kind
from p2p.protocol.stall import FLOOR_S
from p2p.protocol.strategy import TakeIt
from p2p.purchase import Purchase, buy
from p2p.track_record import TrackRecord

REQUEST = question("why is silk strong", 150)
DEARER = Prices(1_000_000_000, 500_000_000, 3_000_000_000)  # only who fails to get another takes it
DEAREST = Prices(2_000_000_000, 1_000_000_000, 6_000_000_000)


class Liar(ScriptedEngine):
    """After two tokens it counts more than the text can hold."""

    @asynccontextmanager
    async def generate(self, request: Request) -> AsyncIterator[AsyncIterator[Delta | Finished]]:
        async with super().generate(request) as honest:
            yield self._lies(honest)

    async def _lies(self, honest: AsyncIterator[Delta | Finished]) -> AsyncIterator[Delta | Finished]:
        said = 0
        async for item in honest:
            said += isinstance(item, Delta)
            yield structs.replace(item, tokens=60) if isinstance(item, Delta) and said > 2 else item


def whole(request: Request = REQUEST) -> str:
    return "".join(item.text for item in script(request) if isinstance(item, Delta))


class Dense(ScriptedEngine):
    """To it a prompt has more tokens than bytes."""

    async def count(self, request: Request) -> int:
        return 500 + await super().count(request)


class Sparse(ScriptedEngine):
    """To it every prompt is one token."""

    async def count(self, request: Request) -> int:
        await trio.lowlevel.checkpoint()
        return 1


class Broken(ScriptedEngine):
    """It cannot read a prompt."""

    async def count(self, request: Request) -> int:
        raise InferenceFailed("it broke")


async def standing_by(market: Market, budget: Budget | None = None) -> tuple[Seller, Customer]:
    """A dear provider, and a client that has a channel to it."""
    seller, client = await market.seller(name="standby", prices=DEARER), await market.customer(budget=budget)
    await buy(client.peer, question("hello", 1), lambda _: None)
    return seller, client


async def find_false(client: Customer, *sellers: Seller) -> None:
    """As often as it takes for them to be left out."""
    record = TrackRecord(client.keeper, clock)
    for seller in sellers:
        for _ in range(5):
            failed = Evidence(at=int(clock()), kind=Kind.AUDIT_FAILED, code="unlikely")
            await record.note_audit(seller.peer, failed, cost_nano=0)


async def bought(
    client: Customer, request: Request = REQUEST, at_tokens: dict[int, Callable[[], Awaitable[object]]] | None = None
) -> Purchase:
    """The whole answer; `at_tokens` says what is to happen when so many have come."""
    events, text = dict(at_tokens or {}), []
    async with client.peer.ask(request) as answer:
        async for piece in answer:
            text.append(piece)
            for tokens in [tokens for tokens in events if tokens <= answer.completion_tokens]:
                await events.pop(tokens)()
    return Purchase("".join(text), answer.found, answer.parts, None)


def paid(one: Customer | Seller) -> int:
    return sum(channel.authorised_nano for channel in one.book.channels())


def delivered(one: Customer | Seller) -> int:
    return sum(channel.delivered_nano for channel in one.book.channels())


def impoverish(market: Market, client: Customer) -> None:
    wallet = client.ledger.wallet.address
    market.chain.transfer(wallet, "elsewhere", market.chain.balance(wallet) - WALLET_MARGIN_NANO)


def providers(purchase: Purchase) -> list[str]:
    return [part.deal.provider for part in purchase.parts]


async def test_a_killed_provider_is_followed_by_the_one_with_a_channel_and_both_are_paid(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        standby, client = await standing_by(market)
        hello_nano = delivered(client)
        await market.seller(name="other", prices=DEAREST)
        cheap = await market.seller(name="cheap")
        purchase = await bought(client, at_tokens={40: lambda: market.kill(cheap)})
        assert purchase.text == whole()
        first, second = purchase.parts
        assert providers(purchase) == [cheap.peer, standby.peer]
        assert purchase.completion_tokens == first.completion_tokens + second.completion_tokens == 150
        assert second.prompt_tokens == 4 + 1 + 1 + len(whole().split()[: first.completion_tokens])
        assert (client.diary.of("failover")[0]["peer"], client.diary.of("failover")[0]["failed"]) == (
            standby.peer,
            cheap.peer,
        )
        # It comes back, and both find out what was paid.
        cheap = await market.seller(name="cheap")
        await trio.sleep(FAILURE_S)
        again = await bought(client, question("again", 5))
        assert providers(again) == [cheap.peer]
        first_nano = paid(cheap) - again.cost_nano
        assert (
            first_nano
            == first.cost_nano
            <= cost_nano(first.deal.quote.prices, Tokens(input=first.prompt_tokens, output=150))
        )
        assert second.receipt is not None
        assert paid(standby) - hello_nano == second.receipt.session_total_nano == second.cost_nano
        assert purchase.cost_nano == first_nano + paid(standby) - hello_nano
        for seller in (cheap, standby):
            (theirs,) = seller.book.channels()
            (ours,) = [one for one in client.book.channels() if one.channel == theirs.channel]
            assert ours.authorised_nano == ours.delivered_nano == theirs.authorised_nano == theirs.delivered_nano


async def test_a_stranger_goes_on_rather_than_those_that_were_found_to_be_false(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        standby, client = await standing_by(market)
        gives = Allowance(per_client=10_000, per_address=10_000, per_day=10_000)
        giver = await market.seller(name="giver", prices=DEARER, allowance=gives)
        await find_false(client, standby, giver)
        cheap = await market.seller(name="cheap")
        stranger = await market.seller(name="stranger", prices=DEAREST)
        purchase = await bought(client, at_tokens={40: lambda: market.kill(cheap)})
        assert purchase.text == whole()
        assert providers(purchase) == [cheap.peer, stranger.peer]


@pytest.mark.parametrize("poor", [False, True])
async def test_one_that_was_found_to_be_false_goes_on_where_nobody_else_can(
    tmp_path: Path, autojump_clock: MockClock, *, poor: bool
) -> None:
    async with open_market(tmp_path) as market:
        standby, client = await standing_by(market)
        await find_false(client, standby)
        cheap = await market.seller(name="cheap")
        if poor:
            impoverish(market, client)
        purchase = await bought(client, at_tokens={} if poor else {40: lambda: market.kill(cheap)})
        assert purchase.text == whole()
        assert providers(purchase)[-1] == standby.peer


@pytest.mark.parametrize(
    ("scripted", "reason"),
    [(Scripted(stall_after=37), "cancelled"), (Scripted(fail_after=37), "failed")],
    ids=["stalls", "fails"],
)
async def test_one_that_is_still_there_receipts_its_part(
    scripted: Scripted, reason: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        standby, client = await standing_by(market)
        cheap = await market.seller(scripted, name="cheap")
        before = trio.current_time()
        purchase = await bought(client)
        assert purchase.text == whole()
        first, second = purchase.parts
        assert providers(purchase) == [cheap.peer, standby.peer]
        assert first.receipt is not None
        assert (first.receipt.reason, first.receipt.tokens.output) == (reason, 37)
        assert paid(cheap) == first.receipt.session_total_nano == first.cost_nano
        assert second.completion_tokens == 150 - 37
        if reason == "cancelled":
            assert FLOOR_S < trio.current_time() - before < FLOOR_S + 5


async def test_one_that_turns_bad_is_left_before_the_bad_part(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        standby, client = await standing_by(market)
        liar = await market.seller(name="liar", engine=Liar(Scripted()))
        purchase = await bought(client)
        assert purchase.text == whole()
        assert providers(purchase) == [liar.peer, standby.peer]
        assert purchase.parts[0].completion_tokens == 2
        assert client.diary.of("answer_failed") == [{"peer": liar.peer, "why": "overcount"}]


async def test_our_own_late_payment_is_not_the_providers_stall(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        _, client = await standing_by(market)
        cheap = await market.seller(name="cheap")
        do = client.keeper.do

        async def slow_disk() -> None:
            async def slowly(work: Callable[..., object]) -> object:
                client.keeper.do = do  # type: ignore[method-assign]
                await trio.sleep(FLOOR_S + 5)
                return await do(work)

            client.keeper.do = slowly  # type: ignore[method-assign, assignment]

        purchase = await bought(client, at_tokens={40: slow_disk})
        assert purchase.text == whole()
        assert providers(purchase) == [cheap.peer]
        assert trio.current_time() > FLOOR_S + 5


async def test_what_cannot_be_gone_on_with_begins_anew_only_where_nothing_came(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    plain = Scripted(model=structs.replace(SCRIPTED_MODEL, features=()))
    async with open_market(tmp_path) as market:
        await market.seller(plain, name="plain", prices=DEARER)
        client = await market.customer()
        cheap = await market.seller(Scripted(fail_after=0), name="cheap")
        assert (await bought(client)).text == whole()
        assert [one["tokens"] for one in client.diary.of("failover")] == [0]
        await market.kill(cheap)
        await market.seller(Scripted(fail_after=30), name="cheap")
        pieces: list[str] = []
        with pytest.raises(EngineError, match="failed in the middle"):
            await buy(client.peer, REQUEST, pieces.append)
        assert len("".join(pieces).split()) == 30
        assert client.diary.of("no_failover")[0]["reason"] == "unavailable"


async def test_a_provider_refuses_what_its_engine_cannot_go_on_with(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        await market.seller(Scripted(model=structs.replace(SCRIPTED_MODEL, features=())))
        client = await market.customer()
        deal = await client.peer.agree(await client.peer.find(MODEL), REQUEST)
        with pytest.raises(Refused) as caught:
            async with client.peer.answer(deal, REQUEST.rest("silk", 1)) as answer:
                await anext(answer)
        assert caught.value.reason == "cannot_continue"
        assert paid(client) < DEPOSIT_NANO // 1000


async def test_a_text_that_the_user_began_is_gone_on_with(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        standby, client = await standing_by(market)
        await market.seller(Scripted(fail_after=30), name="cheap")
        begun = whole()[:25]
        purchase = await bought(client, REQUEST.rest(begun, len(begun.split())))
        assert whole().startswith(begun + purchase.text)
        assert providers(purchase)[1] == standby.peer


async def test_whoever_comes_later_is_looked_for_when_nobody_is_left(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        cheap, client = await market.seller(name="cheap"), await market.customer()

        async def changing_of_the_guard() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(market.seller, name="late"))
                await wait_all_tasks_blocked()
                await market.kill(cheap)

        purchase = await bought(client, at_tokens={40: changing_of_the_guard})
        assert purchase.text == whole()
        assert len(set(providers(purchase))) == 2
        assert {one.peer for one in purchase.found} == set(providers(purchase))


async def test_where_no_more_channels_may_be_open_those_that_are_have_to_do(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        standby, client = await standing_by(
            market, Budget(deposit_nano=DEPOSIT_NANO, strategy=TakeIt(), channels_max=1)
        )
        cheap = await market.seller(name="cheap")
        deal = await client.peer.agree(await client.peer.find(MODEL), REQUEST)
        assert deal.provider == standby.peer
        assert [(one.candidate.peer, one.why) for one in deal.left_out] == [
            (cheap.peer, "as many channels are open as may be")
        ]
        assert providers(await bought(client)) == [standby.peer]


async def test_who_cannot_open_a_channel_asks_where_one_is_open(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        standby, client = await standing_by(market)
        await market.seller(name="cheap")
        impoverish(market, client)
        purchase = await bought(client)
        assert purchase.text == whole()
        assert providers(purchase) == [standby.peer]
        assert client.diary.of("no_deal")[0]["reason"] == "payment"


async def test_who_has_no_money_at_all_is_told_at_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        client = await market.customer()
        for name in ("one", "other"):
            await market.seller(name=name)
        impoverish(market, client)
        with pytest.raises(EmptyWallet, match="the wallet holds"):
            await bought(client)
        assert len(client.diary.of("no_deal")) == 1


async def test_answers_that_begin_together_share_the_channels_that_may_be_open(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        for name in ("one", "other"):
            await market.seller(Scripted(slots=2), name=name)
        client = await market.customer(budget=Budget(deposit_nano=DEPOSIT_NANO, strategy=TakeIt(), channels_max=1))
        texts = []

        async def ask(number: int) -> None:
            texts.append((await bought(client, question(f"{number}", 20))).text)

        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(ask, number)
        assert sorted(texts) == sorted(whole(question(f"{number}", 20)) for number in range(4))
        assert client.diary.kinds().count("channel") == 1


async def test_not_everybody_is_tried(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        for number in range(PROVIDERS_MAX + 1):
            await market.seller(Scripted(fail_after=10), name=f"seller {number}")
        client = await market.customer(
            budget=Budget(deposit_nano=DEPOSIT_NANO, strategy=TakeIt(), channels_max=PROVIDERS_MAX + 1)
        )
        pieces: list[str] = []
        with pytest.raises(EngineError):
            await buy(client.peer, REQUEST, pieces.append)
        text = "".join(pieces)
        assert whole().startswith(text)
        assert len(text.split()) == 10 * PROVIDERS_MAX
        assert len(client.diary.of("failover")) == PROVIDERS_MAX - 1


async def test_a_reader_who_leaves_the_second_part_pays_for_what_came_of_both(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        standby, client = await standing_by(market)
        hello_nano = delivered(client)
        cheap = await market.seller(Scripted(fail_after=30), name="cheap")
        async with client.peer.ask(REQUEST) as answer:
            async for _ in answer:
                if answer.completion_tokens >= 50:
                    break
        receipts = [part.receipt for part in answer.parts if part.receipt]
        assert [receipt.reason for receipt in receipts] == ["failed", "cancelled"]
        assert receipts[0].tokens.output == 30
        assert paid(client) - hello_nano == paid(cheap) + paid(standby) - hello_nano == answer.cost_nano
        assert standby.engine.capacity().free == 4


async def test_the_price_cap_and_the_budget_hold_over_all_parts(tmp_path: Path, autojump_clock: MockClock) -> None:
    async def tried(name: str, budget: Budget) -> tuple[str, list[str]]:
        (tmp_path / name).mkdir()
        async with open_market(tmp_path / name) as market:
            await market.seller(name="dear", prices=DEARER)
            await market.seller(Scripted(fail_after=30), name="cheap")
            client = await market.customer(budget=budget)
            with pytest.raises(EngineError):
                await buy(client.peer, REQUEST, lambda _: None)
            return client.diary.of("no_failover")[0]["reason"], client.diary.kinds()

    capped = Budget(deposit_nano=DEPOSIT_NANO, strategy=TakeIt(), prices_max=Prices(10**9, 10**9, 10**9))
    assert (await tried("capped", capped))[0] == "no_offer"
    # Enough for the first at its worst, and not for what is left at the other's price.
    poor = Budget(deposit_nano=DEPOSIT_NANO, strategy=TakeIt(), answer_max_nano=200_000)
    reason, kinds = await tried("poor", poor)
    assert reason == "over_budget"
    assert kinds.count("channel") == 1, "nothing was opened for what could not be paid"


async def test_errors_of_a_request_that_nobody_would_take_are_told_at_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        for name in ("one", "two"):
            await market.seller(name=name, engine=Dense(Scripted()))
        client = await market.customer()
        with pytest.raises(Refused) as caught:
            await bought(client, question("a", 10))
        assert caught.value.reason == "prompt_over_quote"
        assert client.diary.kinds().count("channel") == 1


async def test_who_goes_on_may_count_the_prompt_otherwise(tmp_path: Path, autojump_clock: MockClock) -> None:
    long = question("why is silk so strong " * 20, 150)
    async with open_market(tmp_path) as market:
        standby, client = await standing_by(market)
        wrong = await market.seller(name="wrong", engine=Sparse(Scripted()))
        purchase = await bought(client, long, at_tokens={40: lambda: market.kill(wrong)})
        assert purchase.text == whole(long)
        assert purchase.parts[0].prompt_tokens == 1
        assert {one.deal.provider for one in purchase.parts[1:]} == {standby.peer}
        assert paid(standby) == delivered(standby) > 0
        assert not client.peer._directory.book.failed(standby.peer, clock()), "it is not to blame"


async def test_one_that_fails_before_it_counts_says_nothing_of_the_prompt(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    long = question("why is silk so strong " * 20, 150)
    async with open_market(tmp_path) as market:
        standby, client = await standing_by(market)
        first = await market.seller(name="first", engine=Broken(Scripted()))
        last = await market.seller(name="last", prices=PRICES.scaled(110, 100))
        purchase = await bought(client, long, at_tokens={40: lambda: market.kill(standby)})
        assert purchase.text == whole(long)
        assert [part.prompt_tokens > 0 for part in purchase.parts] == [False, True, True]
        assert providers(purchase) == [first.peer, standby.peer, last.peer], "who is asked once"


async def test_what_the_readers_block_raises_comes_out_bare(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(), await market.customer()

        async def stumble() -> None:
            async with client.peer.chat(REQUEST.messages, model=MODEL, max_tokens=40) as answer:
                assert isinstance(answer, LastingAnswer)
                async for _ in answer:
                    raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await stumble()
        assert seller.engine.capacity().free == 4
        assert paid(client) == paid(seller) > 0


async def test_with_nobody_else_it_fails_as_it_failed(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(), await market.customer()
        with pytest.raises(Unavailable, match="went away"):
            await bought(client, at_tokens={20: lambda: market.kill(seller)})
        liar = await market.seller(name="liar", engine=Liar(Scripted()))
        with pytest.raises(RemoteError, match="overcount"):
            await bought(client)
        assert client.diary.of("no_failover")[1]["peer"] == liar.peer
