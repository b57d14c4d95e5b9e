"""Several client processes on one book, each played by a peer with a connection to the book of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from market import DEPOSIT_NANO, MODEL, Customer, Market, open_market, question, signer
from test_payers import Flaky, lease_once, offer, payers
from trio.testing import MockClock, wait_all_tasks_blocked

from chain.channel import Payer, State
from chain.errors import LedgerUnavailable
from chain.locks import Lock
from chain.voucher import VOUCHER_TAG, sign_claim
from inference.scripted import Scripted
from p2p.answer import Answer
from p2p.errors import LocalError, PaymentError, Unavailable
from p2p.payers import LEASE_PATIENCE_S


async def processes(market: Market, count: int) -> list[Customer]:
    """All of them the same client."""
    return [await market.customer() for _ in range(count)]


async def sign(client: Customer, payer: Payer, total_nano: int) -> None:
    """As a session does: in the book before anybody sees it."""
    claim = payer.authorise(total_nano)
    await client.keeper.do(lambda book: book.save_claim(claim))


async def ask(client: Customer, answers: list[Answer]) -> None:
    deal = await client.peer.agree(await client.peer.find(MODEL), question())
    async with client.peer.answer(deal, question()) as answer:
        async for _ in answer:
            pass
    answers.append(answer)


async def hold(
    client: Customer, until: trio.Event, *, task_status: trio.TaskStatus[bytes] = trio.TASK_STATUS_IGNORED
) -> None:
    """Have a channel to `p`, and give it back."""
    async with payers(client).lease("p", offer(), 1) as payer:
        task_status.started(payer.channel)
        await until.wait()


async def test_no_two_processes_pay_through_one_channel_and_one_goes_on_where_another_stopped(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        one, two = await processes(market, 2)
        async with payers(one).lease("p", offer(), 1) as first:
            await sign(one, first, 700)
            async with payers(two).lease("p", offer(), 1) as second:
                assert second.channel != first.channel
                await sign(two, second, 500)
            async with payers(one).lease("p", offer(), 1) as again:
                assert again is first, "one process shares what it holds"
        async with payers(two).lease("p", offer(), 1) as taken_over:
            assert taken_over.channel == first.channel, "the oldest that is free"
            assert taken_over.authorised_nano == 700
            await sign(two, taken_over, 900)
        async with payers(one).lease("p", offer(), 1) as back:
            assert (back.channel, back.authorised_nano) == (first.channel, 900)


async def test_what_the_book_says_once_the_lease_is_taken_counts(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here another process uses the channel up between our look and our lease."""
    async with open_market(tmp_path) as market:
        one, two = await processes(market, 2)
        channel = await lease_once(one)
        take = two.keeper.leases.take

        def take_late(wanted: bytes) -> Lock | None:
            one.book.save_claim(sign_claim(signer("client", "payer"), VOUCHER_TAG, -239, channel, DEPOSIT_NANO))
            return take(wanted)

        monkeypatch.setattr(two.keeper.leases, "take", take_late)
        async with payers(two).lease("p", offer(), 1) as payer:
            assert (payer.channel, payer.authorised_nano) == (channel, DEPOSIT_NANO)
            assert payer.deposited_nano == 2 * DEPOSIT_NANO, "topped up, and not overdrawn"


async def test_a_channel_that_is_given_back_late_is_used_and_not_topped_up(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_market(tmp_path) as market:
        one, two = await processes(market, 2)
        channel = await lease_once(one)
        take, others_have_it = two.keeper.leases.take, [True, True]

        def take_late(wanted: bytes) -> Lock | None:
            return None if others_have_it and others_have_it.pop() else take(wanted)

        monkeypatch.setattr(two.keeper.leases, "take", take_late)
        assert await lease_once(two) == channel
        assert others_have_it == []
        assert two.book.channel(channel).deposited_nano == DEPOSIT_NANO


async def test_the_limit_on_channels_is_one_for_all_processes(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        opened, failed = [], []

        async def open_one(number: int) -> None:
            client = await market.customer(ledger=Flaky)
            assert isinstance(client.ledger, Flaky)
            client.ledger.opening_takes_s = 5
            try:
                opened.append(await lease_once(client, f"provider-{number}"))
            except PaymentError as error:
                failed.append(str(error))

        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(open_one, number)
        assert (len(set(opened)), len(failed)) == (3, 3)
        assert "close one" in failed[0]


async def test_where_there_may_be_no_more_a_process_waits_for_one_that_is_given_back(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market, trio.open_nursery() as nursery:
        *three, late = await processes(market, 4)
        ends = [trio.Event() for _ in three]
        held = [await nursery.start(hold, client, end) for client, end in zip(three, ends, strict=True)]
        began = trio.current_time()
        with pytest.raises(PaymentError, match="close one"):
            await lease_once(late)
        assert LEASE_PATIENCE_S <= trio.current_time() - began < LEASE_PATIENCE_S + 1

        async def be_done() -> None:
            await trio.sleep(LEASE_PATIENCE_S / 2)
            ends[1].set()

        nursery.start_soon(be_done)
        assert await lease_once(late) == held[1]
        for end in ends:
            end.set()


async def test_an_opening_that_was_given_up_counts_no_more(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        one, two = await market.customer(ledger=Flaky), await market.customer()
        assert isinstance(one.ledger, Flaky)
        one.ledger.error = LedgerUnavailable("sent and not confirmed")
        for _ in range(4):
            with pytest.raises(Unavailable):
                await lease_once(one)
        assert [known.state for known in two.book.channels()] == [State.UNFUNDED] * 4
        await lease_once(two)


async def test_answers_of_several_processes_are_paid_to_the_nano_each_over_its_own_channel(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller = await market.seller(Scripted(slots=4))
        answers: list[Answer] = []
        three = await processes(market, 3)
        async with trio.open_nursery() as nursery:
            for client in three:
                nursery.start_soon(ask, client, answers)
                await trio.sleep(0.1)  # a provider promises one client no more than two places
        await wait_all_tasks_blocked()
        assert len({answer.channel for answer in answers}) == 3
        for client in three:
            await ask(client, answers)
        await wait_all_tasks_blocked()
        theirs = {known.channel: known for known in seller.book.channels()}
        for ours in three[0].book.channels():
            cost = sum(one.receipt.session_total_nano for one in answers if one.receipt and one.channel == ours.channel)
            paid = theirs[ours.channel]
            assert ours.delivered_nano == ours.authorised_nano == paid.authorised_nano == paid.delivered_nano == cost


async def test_a_channel_that_another_process_pays_through_is_not_closed(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market, trio.open_nursery() as nursery:
        await market.seller(Scripted(tokens_per_s=10))
        one, two = await processes(market, 2)
        answers: list[Answer] = []
        nursery.start_soon(ask, one, answers)
        await trio.sleep(2)
        (known,) = two.book.channels()
        for close in (two.peer.close_channel, two.peer.start_close):
            with pytest.raises(LocalError, match="is being paid through"):
                await close(known.channel)
        await trio.sleep(10)
        await two.peer.close_channel(known.channel)
        assert not await one.peer.can_pay()
        assert one.book.channel(known.channel).settled_nano == answers[0].delivered_nano
