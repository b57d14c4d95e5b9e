"""A light peer and a provider over a network in memory: whole paid answers, and the ways in which they break off."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
from market import MODEL, Customer, Market, open_market, question
from memory_host import MemoryNetwork
from trio.testing import MockClock

from chain.channel import State
from inference.engine import Delta, Finished, Request
from inference.errors import EngineDied
from inference.script import answer as script
from inference.scripted import Scripted, ScriptedEngine
from p2p.answer import Answer
from p2p.budget import Budget
from p2p.buying import Deal
from p2p.errors import EngineError, LocalError, PaymentError, Refused, RemoteError, Unavailable
from p2p.keys import verify_by_peer
from p2p.protocol import session
from p2p.protocol.places import HOLD_S
from p2p.protocol.price import Tokens, cost_nano
from p2p.protocol.receipt import verify_receipt
from p2p.protocol.session import Close, Payment, Start, ToClient, ToProvider
from p2p.protocol.strategy import TakeIt
from p2p.protocol.wire import FrameReader, decode

LONG = "why " * 2000


def scripted_text(request: Request) -> str:
    return "".join(item.text for item in script(request) if isinstance(item, Delta))


async def agree(client: Customer, request: Request) -> Deal:
    return await client.peer.agree(await client.peer.find(MODEL), request)


async def ask(client: Customer, request: Request) -> tuple[str, Answer]:
    async with client.peer.answer(await agree(client, request), request) as answer:
        return "".join([piece async for piece in answer]), answer


async def read_into(pieces: list[str], answer: Answer) -> None:
    async for piece in answer:
        pieces.append(piece)


def totals(one: Any) -> tuple[int, int, int]:
    (channel,) = one.book.channels()
    return channel.authorised_nano, channel.delivered_nano, channel.settled_nano


async def test_an_answer_is_found_agreed_paid_and_receipted(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(), await market.customer()
        money = market.chain.total()
        text, answer = await ask(client, question())
        assert text == scripted_text(question())
        cost = cost_nano(answer.deal.quote.prices, Tokens(input=5, output=40))
        assert totals(client) == totals(seller) == (cost, cost, 0)
        assert answer.signed_receipt is not None
        receipt = verify_receipt(answer.signed_receipt, network="devnet", verify=verify_by_peer)
        assert receipt == answer.receipt
        assert (receipt.reason, receipt.session_total_nano, receipt.tokens.output) == ("length", cost, 40)
        assert (answer.prompt_tokens, answer.completion_tokens) == (5, 40)
        assert (answer.authorised_nano, answer.delivered_nano) == (cost, cost)
        assert answer.timing.tokens_per_s == pytest.approx(100, rel=0.1)
        assert answer.timing.ttft_ms >= 50
        assert [one.signed for one in client.book.receipts()] == [one.signed for one in seller.book.receipts()]
        assert seller.diary.of("served")[0]["earned_nano"] == cost
        assert seller.engine.capacity().free == 4
        assert [one.op for one in market.chain.transactions(answer.channel)] == ["open"]
        assert market.chain.total() == money


async def test_a_long_prompt_is_paid_in_steps_of_one_window(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(), await market.customer()
        heard = listen(market.network)
        text, answer = await ask(client, question(LONG))
        assert text == scripted_text(question(LONG))
        assert answer.receipt is not None
        assert answer.receipt.tokens == Tokens(input=2001, output=40)
        window = answer.deal.quote.window_nano
        paid = [message.channel_total_nano for message in heard if isinstance(message, Payment)]
        assert len(paid) > 2001 * 100 / window / 2, "many small steps"
        assert all(later - earlier <= 2 * window for earlier, later in pairwise(paid))
        assert totals(client) == totals(seller)


async def test_a_channel_is_used_again_and_its_totals_go_on(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(), await market.customer()
        _, first = await ask(client, question())
        _, second = await ask(client, question("and now?"))
        assert first.channel == second.channel
        assert first.receipt is not None
        assert second.receipt is not None
        assert second.receipt.channel_total_nano == (
            first.receipt.session_total_nano + second.receipt.session_total_nano
        )
        assert totals(client) == totals(seller)


async def test_chat_does_all_of_it(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        await market.seller()
        client = await market.customer()
        assert not await client.peer.can_pay()
        request = question()
        async with client.peer.chat(request.messages, model=MODEL, max_tokens=40) as answer:
            assert "".join([piece async for piece in answer]) == scripted_text(request)
        assert await client.peer.can_pay()


async def test_a_reader_who_leaves_pays_what_was_done_and_frees_the_engine(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(Scripted(slots=1, tokens_per_s=10)), await market.customer()
        request = question(max_tokens=60)
        async with client.peer.answer(await agree(client, request), request) as answer:
            async for _ in answer:
                if answer.completion_tokens >= 20:
                    break
        assert answer.receipt is not None
        assert answer.receipt.reason == "cancelled"
        assert 20 <= answer.receipt.tokens.output < 25
        assert totals(client) == totals(seller)
        assert totals(client)[0] == answer.receipt.session_total_nano
        assert seller.engine.capacity().free == 1
        await ask(client, question())


async def test_so_does_one_who_is_cancelled(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(Scripted(slots=1, tokens_per_s=10)), await market.customer()
        request = question(max_tokens=60)
        deal = await agree(client, request)
        with trio.CancelScope() as reading:
            async with client.peer.answer(deal, request) as answer:
                async for _ in answer:
                    if answer.completion_tokens >= 20:
                        reading.cancel()
        assert reading.cancelled_caught
        assert answer.receipt is not None
        assert answer.receipt.reason == "cancelled"
        assert totals(client) == totals(seller)
        assert totals(client)[0] == answer.receipt.session_total_nano > 0
        assert seller.engine.capacity().free == 1


async def test_leaving_before_it_began_costs_nothing_and_waits_for_nothing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(Scripted(tokens_per_s=1)), await market.customer()
        deal = await agree(client, question())
        started = trio.current_time()
        async with client.peer.answer(deal, question()):
            pass
        deal = await agree(client, question())
        async with client.peer.answer(deal, question()):
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
        assert trio.current_time() - started < 1
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(HOLD_S)
        assert seller.book.receipts() == client.book.receipts() == []
        assert seller.engine.capacity().free == 4
        await ask(client, question())
        assert totals(client)[1] == totals(seller)[1]


async def test_what_the_readers_block_raises_comes_out_bare(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(), await market.customer()
        deal = await agree(client, question())

        async def stumble() -> None:
            async with client.peer.answer(deal, question()) as answer:
                async for _ in answer:
                    raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await stumble()
        assert seller.engine.capacity().free == 4
        assert totals(client)[1] == totals(seller)[1]


async def test_a_provider_that_dies_is_unavailable_and_another_goes_on(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        one, two = await market.seller(name="one"), await market.seller(name="two")
        client = await market.customer()
        request = question(max_tokens=60)
        deal = await agree(client, request)
        dying, other = (one, two) if deal.provider == one.peer else (two, one)

        async def read() -> None:
            async with client.peer.answer(deal, request) as answer:
                async for _ in answer:
                    if answer.completion_tokens == 30:
                        await market.kill(dying)

        with pytest.raises(Unavailable, match="went away"):
            await read()
        (channel,) = client.book.channels()
        assert 0 < channel.delivered_nano <= channel.authorised_nano
        _, answer = await ask(client, question())
        assert answer.deal.provider == other.peer
        assert "probe_failed" in client.diary.kinds()


async def test_a_client_that_dies_leaves_a_provider_that_serves_on(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(Scripted(slots=1, tokens_per_s=10)), await market.customer()
        request = question(max_tokens=60)

        async def die_in_the_middle() -> None:
            async with client.peer.answer(await agree(client, request), request) as answer:
                async for _ in answer:
                    if answer.completion_tokens == 30:
                        await market.kill(client)
                        await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(die_in_the_middle)
            await trio.sleep(6)
            assert seller.engine.capacity().free == 1, "the engine's slot is free at once"
            nursery.cancel_scope.cancel()
        authorised, delivered, _ = totals(seller)
        assert authorised == delivered, "what was unpaid is written off"
        again = await market.customer()
        text, _ = await ask(again, question())
        assert text == scripted_text(question())
        assert totals(again) == totals(seller)


async def test_a_client_that_falls_silent_is_given_up(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(Scripted(slots=1, stall_after=10)), await market.customer()
        deal = await agree(client, question())
        async with client.peer.answer(deal, question()) as answer:
            async for _ in answer:
                if answer.completion_tokens == 10:
                    break
            for stream in client.host.streams:  # type: ignore[attr-defined]
                stream.write = _swallow
            await trio.sleep(40)
            assert seller.engine.capacity().free == 1


async def _swallow(_data: bytes) -> None:
    await trio.lowlevel.checkpoint()


async def test_both_go_on_from_their_books_after_a_restart(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(), await market.customer()
        await ask(client, question())
        before = totals(client)
        await market.kill(seller)
        await market.kill(client)
        seller, client = await market.seller(), await market.customer()
        assert totals(client) == totals(seller) == before
        assert await client.peer.can_pay()
        _, answer = await ask(client, question("again"))
        assert answer.receipt is not None
        assert totals(client) == totals(seller)
        assert totals(client)[0] == before[0] + answer.receipt.session_total_nano
        assert [one.op for one in market.chain.transactions(answer.channel)] == ["open"]


async def test_an_engine_that_fails_before_the_first_token_charges_nothing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(Scripted(fail_after=0)), await market.customer()
        with pytest.raises(Refused) as caught:
            await ask(client, question())
        assert caught.value.reason == "engine_failed"
        assert totals(client)[1] == totals(seller)[1] == 0
        assert seller.engine.capacity().free == 4


async def test_an_engine_that_fails_half_way_is_paid_for_that_half_and_the_reader_is_told(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(Scripted(fail_after=25)), await market.customer()
        deal = await agree(client, question())
        pieces: list[str] = []
        async with client.peer.answer(deal, question()) as answer:
            with pytest.raises(EngineError, match="failed in the middle"):
                await read_into(pieces, answer)
        assert answer.receipt is not None
        assert answer.receipt.reason == "failed"
        assert answer.receipt.tokens.output == len("".join(pieces).split()) == 25
        assert totals(client) == totals(seller)


async def test_a_request_that_no_frame_holds_is_our_own_fault(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(), await market.customer()
        deal = await agree(client, question())
        huge = question("x" * (1 << 20))
        async with client.peer.answer(deal, huge) as answer:
            with pytest.raises(LocalError, match="bytes"):
                await read_into([], answer)
        assert seller.book.channels() == []


def listen(network: MemoryNetwork) -> list[Any]:
    """Everything said on sessions from now on."""
    heard: list[Any] = []
    readers: dict[str, FrameReader] = {}

    def tap(speaker: str, protocol: str, data: bytes) -> None:
        if protocol == session.PROTOCOL:
            for payload in readers.setdefault(speaker, FrameReader()).feed(data):
                heard.append(decode(payload, ToProvider | ToClient))

    network.taps.append(tap)
    return heard


def guard_disk(market: Market, client: Customer, seller: Any) -> None:
    """At the moment when something is said, what it commits its speaker to is on disk."""

    def tap(speaker: str, protocol: str, data: bytes) -> None:
        if protocol != session.PROTOCOL:
            return
        for payload in FrameReader().feed(data):
            match decode(payload, ToProvider | ToClient):
                case Start(payment=payment) | Close(payment=payment) | (Payment() as payment):
                    assert payment.channel_total_nano <= totals(client)[0]
                case session.Finished():
                    assert seller.book.receipts()
                case session.End():
                    assert totals(seller)[0] == totals(client)[0]
                case session.Begun(accepted_nano=accepted):
                    assert accepted <= totals(seller)[0] or accepted == 0

    market.network.taps.append(tap)


@pytest.mark.parametrize("commits", range(12))
@pytest.mark.parametrize("who", ["client", "provider"])
async def test_nothing_leaves_before_it_is_on_disk_even_if_the_disk_is_full(
    tmp_path: Path, autojump_clock: MockClock, who: str, commits: int
) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(), await market.customer()
        await ask(client, question())
        before = totals(client)
        deal = await agree(client, question("more", 60))
        guard_disk(market, client, seller)
        broken = client.keeper if who == "client" else seller.keeper
        broken.commits_left = commits
        try:
            async with client.peer.answer(deal, question("more", 60)) as answer:
                text = "".join([piece async for piece in answer])
            assert text == scripted_text(question("more", 60))
        except LocalError:
            assert who == "client"
        except Unavailable:
            assert who == "provider"
        broken.commits_left = None
        await trio.testing.wait_all_tasks_blocked()
        assert seller.engine.capacity().free == 4
        _, answer = await ask(client, question("after"))
        assert answer.receipt is not None
        assert totals(client) == totals(seller)
        assert totals(client)[0] >= before[0] + answer.receipt.session_total_nano


async def test_a_channel_that_is_too_small_for_the_answer_is_not_opened(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        await market.seller(deposit_min_nano=1)
        client = await market.customer(budget=Budget(deposit_nano=10_000, strategy=TakeIt()))
        deal = await agree(client, question())
        with pytest.raises(PaymentError, match="may cost"):
            async with client.peer.answer(deal, question()):
                pytest.fail("nothing to answer")
        assert client.book.channels() == []


class Crumbling(ScriptedEngine):
    """Gives its answer in crumbs that count for nothing."""

    @asynccontextmanager
    async def generate(self, request: Request) -> AsyncIterator[AsyncIterator[Delta | Finished]]:
        async with aclosing(self._crumbs()) as crumbs:
            yield crumbs

    async def _crumbs(self) -> AsyncGenerator[Delta | Finished]:
        while True:
            await trio.sleep(0.001)
            yield Delta("x", 0)


async def test_a_flood_of_pieces_does_not_fill_the_memory_of_a_reader_who_is_slow(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        await market.seller(engine=Crumbling(Scripted()))
        client = await market.customer()
        pieces: list[str] = []
        async with client.peer.answer(await agree(client, question()), question()) as answer:
            await trio.sleep(100)
            with pytest.raises(RemoteError, match="flood"):
                await read_into(pieces, answer)
        assert len(pieces) == 41


async def test_a_reader_who_is_slow_gets_all_and_keeps_nobody_waiting(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(Scripted(slots=1)), await market.customer()
        async with client.peer.answer(await agree(client, question()), question()) as answer:
            await trio.sleep(3600)
            assert seller.engine.capacity().free == 1
            assert "".join([piece async for piece in answer]) == scripted_text(question())
        assert totals(client) == totals(seller)


class Dying(ScriptedEngine):
    """Breaks down where it is told to."""

    def __init__(self, where: str) -> None:
        super().__init__(Scripted())
        self._where = where

    async def count(self, request: Request) -> int:
        await self._die("count")
        return await super().count(request)

    async def prefill(self, request: Request, tokens: int) -> int:
        await self._die("prefill")
        return await super().prefill(request, tokens)

    async def _die(self, where: str) -> None:
        await trio.lowlevel.checkpoint()
        if where == self._where:
            raise EngineDied("out of memory")


@pytest.mark.parametrize("where", ["count", "prefill"])
async def test_an_engine_that_dies_while_it_counts_or_reads_is_an_honest_no(
    tmp_path: Path, autojump_clock: MockClock, where: str
) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(engine=Dying(where)), await market.customer()
        with pytest.raises(Refused) as caught:
            await ask(client, question(LONG))
        assert caught.value.reason == "engine_failed"
        assert "memory" not in str(caught.value), "our troubles are ours"
        assert totals(seller)[1] == totals(client)[1] == 0


async def test_channels_close_together(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(settle_at_nano=1), await market.customer()
        _, answer = await ask(client, question())
        await trio.testing.wait_all_tasks_blocked()
        assert seller.diary.of("settled")[0]["settled_nano"] == answer.authorised_nano
        transaction = await client.peer.close_channel(answer.channel)
        assert transaction.op == "close_by_release"
        (channel,) = await client.peer.channels()
        assert (channel.state, channel.settled_nano) == (State.CLOSED, answer.authorised_nano)
        assert not await client.peer.can_pay()
        _, answer = await ask(client, question())
        assert len(client.book.channels()) == 2
