"""The provider's channels: settled when due, watched, released once, and found again in the book."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from by_hand import by_hand
from market import CHALLENGE_PERIOD_S, DEAR, Customer, Seller, open_market, question, signer
from trio.testing import MockClock, wait_all_tasks_blocked

from chain.channel import State
from chain.errors import ChainError, InsufficientFunds, LedgerUnavailable
from chain.ledger import ChannelState, Ledger, Transaction
from chain.voucher import RELEASE_TAG, VOUCHER_TAG, Claim, sign_claim
from p2p.errors import Unavailable
from p2p.protocol import release
from p2p.protocol.negotiate import Refusal
from p2p.protocol.release import CloseRequest, Released
from p2p.protocol.session import Begun, End
from p2p.stream import open_messages


class Flaky:
    """A ledger that fails where it is told to, and counts what it is asked."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.look_error: ChainError | None = None
        self.settle_error: ChainError | None = None
        self.settled: list[int] = []
        self.settling_takes_s = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    async def channel(self, channel: bytes) -> ChannelState | None:
        if self.look_error is not None:
            raise self.look_error
        return await self._ledger.channel(channel)

    async def settle(self, channel: bytes, amount_nano: int, signature: bytes) -> Transaction:
        self.settled.append(amount_nano)
        await trio.sleep(self.settling_takes_s)
        if self.settle_error is not None:
            raise self.settle_error
        return await self._ledger.settle(channel, amount_nano, signature)


async def answer(client: Customer, content: str = "why is silk strong") -> bytes:
    """Buy one; the channel that paid."""
    async with by_hand(client, question(content)) as one:
        await one.start()
        await one.hear(End)
    await wait_all_tasks_blocked()
    return one.payer.channel


async def ask_release(client: Customer, seller: Seller, claim: Claim) -> Any:
    async with open_messages(client.host, seller.peer, release.PROTOCOL, release.ToClient) as messages:
        await messages.send(
            CloseRequest(channel=claim.channel, amount_nano=claim.amount_nano, signature=claim.signature)
        )
        return await messages.answer()


def highest(client: Customer) -> Claim:
    claim = client.book.channels()[-1].claim
    assert claim is not None
    return claim


async def test_vouchers_are_settled_once_enough_is_due(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(settle_at_nano=30_000), await market.customer()
        channel = await answer(client)
        await wait_all_tasks_blocked()
        assert seller.book.channels()[0].settled_nano == 0
        for _ in range(2):
            await answer(client)
        await wait_all_tasks_blocked()
        assert [one.op for one in market.chain.transactions(channel)] == ["open", "settle"]
        known = seller.book.channels()[0]
        assert known.settled_nano == known.authorised_nano == highest(client).amount_nano


async def test_two_settlements_of_one_voucher_are_one(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(settle_at_nano=1, ledger=Flaky), await market.customer()
        assert isinstance(seller.ledger, Flaky)
        seller.ledger.settling_takes_s = 5
        channel = await answer(client)
        upkeep = seller.provider._upkeep
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(upkeep.settle, channel)
        assert seller.ledger.settled == [highest(client).amount_nano]
        await upkeep.settle(bytes(32))
        assert "settle_failed" not in seller.diary.kinds()


@pytest.mark.parametrize("error", [LedgerUnavailable("no server"), InsufficientFunds("poor")])
async def test_a_settlement_that_fails_is_told_and_tried_again(
    tmp_path: Path, autojump_clock: MockClock, error: ChainError
) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(settle_at_nano=1, ledger=Flaky), await market.customer()
        assert isinstance(seller.ledger, Flaky)
        seller.ledger.settle_error = error
        await answer(client)
        await wait_all_tasks_blocked()
        assert seller.diary.of("settle_failed")[0]["why"] == str(error)
        seller.ledger.settle_error = None
        await answer(client)
        await wait_all_tasks_blocked()
        assert seller.book.channels()[0].settled_nano == highest(client).amount_nano


async def test_a_payer_that_starts_to_close_is_noticed_and_settled_though_the_chain_fails_at_first(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(ledger=Flaky, prices=DEAR), await market.customer()
        assert isinstance(seller.ledger, Flaky)
        channel = await answer(client)
        await client.peer.start_close(channel)
        seller.ledger.settle_error = InsufficientFunds("poor")
        await trio.sleep(100)
        seller.ledger.look_error = LedgerUnavailable("no server")
        await trio.sleep(100)
        assert {"settle_failed", "look_failed"} <= set(seller.diary.kinds())
        seller.ledger.look_error = seller.ledger.settle_error = None
        await trio.sleep(100)
        known = seller.book.channels()[0]
        assert (known.state, known.settled_nano) == (State.CLOSING, highest(client).amount_nano)
        await trio.sleep(CHALLENGE_PERIOD_S)
        transaction = await client.peer.finalise(channel)
        assert transaction.op == "finalise"
        await trio.sleep(100)
        assert [one.state for one in (*seller.book.channels(), *client.book.channels())] == [State.CLOSED] * 2
        await answer(client)


async def test_a_payer_that_started_to_close_while_we_were_away_is_noticed_at_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(prices=DEAR), await market.customer()
        channel = await answer(client)
        await market.kill(seller)
        await client.peer.start_close(channel)
        seller = await market.seller(prices=DEAR)
        await trio.sleep(1)
        assert [one.op for one in market.chain.transactions(channel)] == ["open", "start_close", "settle"]
        assert seller.book.channels()[0].state is State.CLOSING


async def test_watching_writes_nothing_while_nothing_changes(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(), await market.customer()
        await answer(client)
        seller.keeper.commits_left = 0
        await trio.sleep(1000)
        assert "look_failed" not in seller.diary.kinds()


async def test_what_somebody_else_settled_is_not_settled_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(ledger=Flaky), await market.customer()
        assert isinstance(seller.ledger, Flaky)
        channel = await answer(client)
        claim = highest(client)
        market.chain.settle(client.ledger.wallet.address, channel, claim.amount_nano, claim.signature)
        await client.peer.start_close(channel)
        await trio.sleep(100)
        assert seller.ledger.settled == []
        assert seller.book.channels()[0].state is State.CLOSING


async def test_a_release_is_for_the_client_alone_and_for_no_running_session(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller, client, thief = await market.seller(), await market.customer(), await market.customer("thief")
        async with by_hand(client, question(max_tokens=100)) as one:
            await one.start()
            await one.hear(Begun)
            busy = await ask_release(client, seller, highest(client))
            assert isinstance(busy, Refusal)
            assert busy.reason == "channel_busy"
            await one.hear(End)
        for peer, claim in ((thief, highest(client)), (client, Claim(bytes(32), 0, bytes(64)))):
            refused = await ask_release(peer, seller, claim)
            assert isinstance(refused, Refusal)
            assert refused.reason == "unknown_channel"
        assert seller.book.channels()[0].state is State.OPEN


async def test_a_released_channel_takes_no_more_vouchers_and_is_released_at_the_same_amount_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(settle_at_nano=1), await market.customer()
        await answer(client)
        await wait_all_tasks_blocked()
        first = await ask_release(client, seller, highest(client))
        assert isinstance(first, Released)
        assert first.amount_nano == highest(client).amount_nano
        assert seller.book.channels()[0].released_nano == first.amount_nano
        async with by_hand(client) as one:
            await one.start()
            refused = await one.messages.answer()
            assert isinstance(refused, Refusal)
            assert refused.reason == "channel_unusable"
        assert await ask_release(client, seller, highest(client)) == first
        await market.kill(seller)
        seller = await market.seller()
        assert await ask_release(client, seller, highest(client)) == first


async def test_a_release_counts_the_last_voucher_and_gives_credit_back(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(), await market.customer()
        channel = await answer(client)
        await wait_all_tasks_blocked()
        delivered = highest(client).amount_nano
        more = sign_claim(signer("client", "payer"), VOUCHER_TAG, -239, channel, delivered + 500)
        forged = Claim(channel, delivered + 501, bytes(64))
        with pytest.raises(Unavailable):
            await ask_release(client, seller, forged)
        released = await ask_release(client, seller, more)
        assert isinstance(released, Released)
        assert released.amount_nano == delivered
        assert seller.book.channels()[0].authorised_nano == delivered + 500
        claim = sign_claim(signer("provider", "payee"), RELEASE_TAG, -239, channel, delivered)
        assert released.signature == claim.signature


async def test_what_was_released_is_not_settled_any_more_so_that_the_release_stays_good(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(prices=DEAR, settle_after_s=600), await market.customer()
        channel = await answer(client)
        delivered = highest(client).amount_nano
        more = sign_claim(signer("client", "payer"), VOUCHER_TAG, -239, channel, delivered + 500)
        released = await ask_release(client, seller, more)
        assert isinstance(released, Released)
        await trio.sleep(1000)
        assert [one.op for one in market.chain.transactions(channel)] == ["open"]
        await client.ledger.close_by_release(channel, released.amount_nano, released.signature)
        await trio.sleep(100)
        assert seller.book.channel(channel).settled_nano == delivered


async def test_nothing_is_released_that_is_not_on_disk(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(), await market.customer()
        await answer(client)
        seller.keeper.commits_left = 0
        with pytest.raises(Unavailable):
            await ask_release(client, seller, highest(client))
        seller.keeper.commits_left = None
        assert isinstance(await ask_release(client, seller, highest(client)), Released)


async def test_a_channel_that_closed_is_forgotten(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(), await market.customer()
        channel = await answer(client)
        await client.peer.close_channel(channel)
        await trio.sleep(100)
        assert seller.book.channels()[0].state is State.CLOSED
        refused = await ask_release(client, seller, Claim(channel, 0, b""))
        assert isinstance(refused, Refusal)
        assert refused.reason == "unknown_channel"


async def test_a_session_cancelled_while_its_channel_is_written_down_does_not_lose_the_channel(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """For every step at which the client may go away before it is admitted."""
    async with open_market(tmp_path) as market:
        seller = await market.seller(deposit_min_nano=0)
        for steps in range(12):
            client = await market.customer(f"client-{steps}")
            async with by_hand(client) as one:
                await one.start()
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                await one.messages.reset()
            await wait_all_tasks_blocked()
            await answer(client)
        assert len(seller.book.channels()) == 12


async def test_the_chain_being_down_is_an_honest_no(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(ledger=Flaky), await market.customer()
        assert isinstance(seller.ledger, Flaky)
        seller.ledger.look_error = LedgerUnavailable("no server")
        async with by_hand(client) as one:
            await one.start()
            refused = await one.messages.answer()
            assert isinstance(refused, Refusal)
            assert (refused.reason, refused.retry_after_s) == ("chain_unavailable", 5)


async def test_a_settled_channel_of_a_lost_book_is_served_from_where_it_was_settled(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(settle_at_nano=1), await market.customer()
        await answer(client)
        await wait_all_tasks_blocked()
        first = highest(client).amount_nano
        await market.kill(seller)
        market.lose_book(seller)
        seller = await market.seller()
        await answer(client)
        known = seller.book.channels()[0]
        assert known.delivered_nano == known.authorised_nano == highest(client).amount_nano == 2 * first
