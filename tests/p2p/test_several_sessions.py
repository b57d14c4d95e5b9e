"""Several answers at once over one channel, or over several channels of one payer, between whole peers."""

from __future__ import annotations

import math
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio
from by_hand import ByHand, agree, by_hand
from market import DEPOSIT_NANO, PRICES, Customer, Market, Seller, open_market, question
from trio.testing import MockClock, wait_all_tasks_blocked

from chain.channel import State
from chain.leases import Leases
from inference.scripted import Scripted
from p2p.agreeing import CHANNEL_LIFE_FEE_NANO
from p2p.answer import Answer
from p2p.budget import Budget
from p2p.errors import LocalError, Refused, Unavailable
from p2p.protocol.incoming import LOST_PART
from p2p.protocol.negotiate import Refusal
from p2p.protocol.price import Tokens, cost_nano
from p2p.protocol.session import PAYMENT_PATIENCE_S, SILENCE_S, Begun, End, Heartbeat, Pause
from p2p.protocol.strategy import TakeIt

LONG = "why " * 600
CROWD = 40
TOKENS_64_NANO = cost_nano(PRICES, Tokens(output=64))


async def ask(client: Customer, answers: list[Answer], content: str = LONG, max_tokens: int = 100) -> None:
    request = question(content, max_tokens)
    async with client.peer.answer(await agree(client, request), request) as answer:
        async for _ in answer:
            pass
    answers.append(answer)


async def ask_at_once(client: Customer, count: int) -> list[Answer]:
    """Each begins while those before it are answered: a provider promises one client no more than two places."""
    answers: list[Answer] = []
    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(ask, client, answers, f"{number} {LONG}")
            await trio.sleep(0.1)
    return answers


def agreed(client: Customer, seller: Seller) -> int:
    """What both books say of the one channel."""
    (ours,), (theirs,) = client.book.channels(), seller.book.channels()
    assert (ours.authorised_nano, ours.delivered_nano) == (theirs.authorised_nano, theirs.delivered_nano)
    assert ours.delivered_nano <= ours.authorised_nano
    return ours.delivered_nano


async def close(client: Customer, seller: Seller, market: Market) -> None:
    (known,) = client.book.channels()
    await client.peer.close_channel(known.channel)
    (closed,) = client.book.channels()
    assert (closed.state, closed.settled_nano) == (State.CLOSED, known.delivered_nano)


async def test_answers_at_once_share_a_channel_and_are_paid_to_the_nano(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(Scripted(slots=6)), await market.customer()
        money = market.chain.total()
        answers = await ask_at_once(client, 6)
        assert len({answer.channel for answer in answers}) == 1, "the first opens it, the others wait for that"
        cost = sum(answer.receipt.session_total_nano for answer in answers if answer.receipt)
        assert agreed(client, seller) == cost
        assert client.book.channels()[0].authorised_nano == cost
        await close(client, seller, market)
        assert market.chain.total() == money


async def test_one_session_that_dies_takes_no_other_with_it(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(Scripted(slots=4)), await market.customer()
        answers: list[Answer] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, client, answers)
            await trio.sleep(0.1)
            nursery.start_soon(ask, client, answers)
            await trio.sleep(0.1)
            async with by_hand(client, question(LONG, 100)) as one:
                await one.start()
                one.mute = True
                await one.hear(Pause)
                await one.messages.reset()
        assert len(answers) == 2
        await ask_at_once(client, 1)
        agreed(client, seller)
        await close(client, seller, market)


async def test_a_provider_restarted_under_several_sessions_goes_on_with_the_same_channel(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(Scripted(slots=4)), await market.customer()
        broken: list[Unavailable] = []

        async def ask_and_be_left() -> None:
            try:
                await ask(client, [], max_tokens=2000)
            except Unavailable as error:
                broken.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask_and_be_left)
                await trio.sleep(1)
            await market.kill(seller)
        assert len(broken) == 3
        seller = await market.seller(Scripted(slots=4))
        await ask_at_once(client, 1)
        agreed(client, seller)
        await close(client, seller, market)


async def test_no_channel_is_released_while_a_session_runs(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(Scripted(tokens_per_s=10)), await market.customer()
        async with by_hand(client) as one, by_hand(client) as two:
            for each in (one, two):
                await each.start()
                await each.hear(Begun)
            await two.hear(End)
            with pytest.raises(LocalError, match="being paid through"):
                await client.peer.close_channel(one.payer.channel)
            client.keeper.leases = Leases(tmp_path / "others")  # a client that does not keep its own rule
            with pytest.raises(Refused) as caught:
                await client.peer.close_channel(one.payer.channel)
            assert caught.value.reason == "channel_busy"
            await one.hear(End)
        await wait_all_tasks_blocked()
        await client.peer.close_channel(one.payer.channel)
        assert seller.book.channels()[0].state is State.RELEASED


async def test_what_running_sessions_may_cost_is_reserved(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        await market.seller()
        client = await market.customer()
        deal = await agree(client, question())
        async with AsyncExitStack() as sessions:
            leases = (client.peer._payers.lease(deal.provider, deal.quote.channel, DEPOSIT_NANO // 2) for _ in range(3))
            channels = [(await sessions.enter_async_context(lease)).channel for lease in leases]
        assert channels[0] == channels[1] != channels[2]


@pytest.mark.parametrize(("window_cap_nano", "windows"), [(TOKENS_64_NANO, 1), (2 * TOKENS_64_NANO, 2), (1 << 40, 3)])
async def test_what_a_payer_may_owe_is_for_all_its_channels(
    tmp_path: Path, autojump_clock: MockClock, window_cap_nano: int, windows: int
) -> None:
    """One that never pays gets a window for each answer and no more than the limit, however many channels it opens."""
    async with open_market(tmp_path) as market:
        seller = await market.seller(Scripted(slots=8, tokens_per_s=1000), window_cap_nano=window_cap_nano)
        client = await market.customer(budget=Budget(deposit_nano=DEPOSIT_NANO, channels_max=3, strategy=TakeIt()))
        payers = client.peer._payers
        async with AsyncExitStack() as sessions, trio.open_nursery() as nursery:
            all_of_them: list[ByHand] = []
            for _ in range(3):
                one = await sessions.enter_async_context(by_hand(client, question(max_tokens=400)))
                all_of_them.append(one)
                payers._held[one.payer.channel].reserved.append(
                    DEPOSIT_NANO
                )  # so that the next one takes another channel
                await one.start()
                one.mute = True
                await one.hear(Begun)
                nursery.start_soon(_go_on_without_paying, one)
            assert len({one.payer.channel for one in all_of_them}) == 3
            window = windows * one.core._quote.window_nano
            assert one.core._quote.window_nano == TOKENS_64_NANO
            await trio.sleep(PAYMENT_PATIENCE_S / 2)
            payees = [incoming.payee for incoming in seller.provider._payees]
            one_token = cost_nano(one.core._quote.prices, Tokens(output=1))
            assert window - windows * one_token < sum(payee.unpaid_nano for payee in payees) <= window
            assert len(payees) == 3
            nursery.cancel_scope.cancel()


async def test_nobody_lives_on_windows_that_are_never_paid(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Session after session that ends unpaid, each within its window, until the channel is refused."""
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(Scripted(tokens_per_s=10_000)), await market.customer()
        one = refused = None
        while refused is None:
            one, refused = await _one_unpaid(client)
        assert one is not None
        assert refused.reason == "channel_unusable"
        (payee,) = (incoming.payee for incoming in seller.provider._payees)
        most = DEPOSIT_NANO // LOST_PART + 2 * one.core._quote.window_nano
        assert DEPOSIT_NANO // LOST_PART < payee.lost_nano < most + payee.authorised_nano
        assert payee.lost_nano < CHANNEL_LIFE_FEE_NANO
        assert seller.book.channels()[0].lost_nano == payee.lost_nano
        await market.kill(seller)
        await market.seller(Scripted(tokens_per_s=10_000))
        _, refused = await _one_unpaid(client)
        assert refused is not None, "a restart forgives nothing"


async def _one_unpaid(client: Customer) -> tuple[ByHand, Refusal | None]:
    """A session that is left when it waits for its pay, or that is refused."""
    async with by_hand(client, question("why", 500)) as one:
        await one.start()
        one.mute = True
        while not isinstance(heard := await one.obey(), Pause | Refusal):
            assert heard is not None
        await one.messages.reset()
    await wait_all_tasks_blocked()
    return one, heard if isinstance(heard, Refusal) else None


async def _go_on_without_paying(one: ByHand) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_beat, one)
        while await one.obey() is not None:
            pass


async def _beat(one: ByHand) -> None:
    while True:
        await one.messages.send(Heartbeat())
        await trio.sleep(SILENCE_S / 4)


async def test_a_cancelled_answer_gives_up_its_place_on_the_channel(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(Scripted(stall_after=5)), await market.customer()
        request = question()
        async with client.peer.answer(await agree(client, request), request) as answer:
            async for _ in answer:
                break
            for stream in client.host.streams:  # type: ignore[attr-defined]
                stream.write = _swallow
        await wait_all_tasks_blocked()
        assert answer._payer.lanes == {}
        assert client.peer._payers._held == {}
        await trio.sleep(SILENCE_S)
        (payee,) = (incoming.payee for incoming in seller.provider._payees)
        assert payee.lanes == {}


async def _swallow(_data: bytes) -> None:
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    "window_cap_nano",
    [pytest.param(1_000_000, id="a window each"), pytest.param(TOKENS_64_NANO, id="one window for all")],
)
async def test_a_crowd_of_one_payer_flows(tmp_path: Path, autojump_clock: MockClock, window_cap_nano: int) -> None:
    """Without shares some wait for half a second."""
    async with open_market(tmp_path) as market:
        seller = await market.seller(Scripted(slots=CROWD), window_cap_nano=window_cap_nano)
        client = await market.customer(budget=Budget(deposit_nano=DEPOSIT_NANO, channels_max=CROWD, strategy=TakeIt()))
        seller.keeper.commit_s = client.keeper.commit_s = 0.03
        waits_s: list[float] = []

        async def read(number: int) -> None:
            async with client.peer.ask(question(f"{number} why", 40)) as answer:
                before = math.inf
                async for _ in answer:
                    now = trio.current_time()
                    waits_s.append(now - before)
                    before = now

        async with trio.open_nursery() as nursery:
            for number in range(CROWD):
                nursery.start_soon(read, number)
        assert max(waits_s) < 0.2
        assert seller.diary.kinds().count("served") == CROWD
