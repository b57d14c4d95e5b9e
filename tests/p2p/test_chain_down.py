"""Provider and client while the chain is down or slow: vouchers stay good, up to a limit, and that is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from by_hand import agree, by_hand
from market import DEAR, Customer, Market, Seller, open_market, question
from trio.testing import MockClock, wait_all_tasks_blocked

from chain.channel import State
from chain.errors import LedgerUnavailable
from chain.ledger import Ledger
from p2p.errors import Error, Unavailable
from p2p.payees import CHECK_TIMEOUT_S
from p2p.protocol.negotiate import Refusal
from p2p.protocol.session import Begun, End

LIMIT = 30_000  # passed by the third answer
LOOK_S = 61


class Cut:
    """A ledger whose lite-servers can be gone, or say nothing."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.gone = False
        self.silent = False
        self.network = ledger.network
        self.wallet = ledger.wallet
        self.channel_id = ledger.channel_id

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._ledger, name)

        async def asked(*arguments: Any) -> Any:
            if self.silent:
                await trio.sleep_forever()
            if self.gone:
                raise LedgerUnavailable("no lite-server answered")
            return await method(*arguments)

        return asked


async def answer(client: Customer) -> None:
    async with by_hand(client, question()) as one:
        await one.start()
        await one.hear(End)
    await wait_all_tasks_blocked()


async def refusal(client: Customer) -> str:
    async with by_hand(client, question()) as one:
        await one.start()
        said = await one.messages.answer()
        assert isinstance(said, Refusal)
        return said.reason


async def people(market: Market) -> tuple[Seller, Customer, Cut]:
    seller, client = await market.seller(settle_at_nano=LIMIT, ledger=Cut), await market.customer()
    assert isinstance(seller.ledger, Cut)
    return seller, client, seller.ledger


async def test_a_verified_channel_is_served_up_to_the_limit_and_that_is_told_and_it_recovers_by_itself(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller, client, ledger = await people(market)
        await answer(client)
        ledger.gone = True
        await answer(client)
        await answer(client)
        assert await refusal(client) == "chain_unavailable"
        told = seller.diary.of("chain_down")
        assert [one["served"] for one in told] == [True, True, False]
        assert told[-1]["unsettled_nano"] == seller.book.channels()[0].authorised_nano >= LIMIT
        assert "settle_failed" in seller.diary.kinds()

        ledger.gone = False
        await trio.sleep(LOOK_S)
        known = seller.book.channels()[0]
        assert known.settled_nano == known.authorised_nano
        await answer(client)
        assert len(seller.diary.of("chain_down")) == 3


async def test_a_chain_that_says_nothing_delays_an_answer_by_seconds_and_nobody_else(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller, client, ledger = await people(market)
        await answer(client)
        ledger.silent = True
        async with by_hand(client, question()) as one:
            began = trio.current_time()
            await one.start()
            await one.hear(Begun)
            assert CHECK_TIMEOUT_S <= trio.current_time() - began < CHECK_TIMEOUT_S + 1
            await one.hear(End)
        assert seller.diary.of("chain_down")[0]["served"]


async def test_a_channel_that_was_never_verified_is_refused(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client, ledger = await people(market)
        ledger.gone = True
        assert await refusal(client) == "chain_unavailable"
        assert seller.diary.of("chain_down") == []
        assert seller.book.channels() == []
        ledger.gone = False
        await answer(client)


async def test_after_a_restart_nothing_is_verified(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client, _ = await people(market)
        await answer(client)
        await market.kill(seller)
        down: list[Cut] = []

        def cut(ledger: Ledger) -> Ledger:
            down.append(Cut(ledger))
            down[0].gone = True
            return down[0]

        await market.seller(settle_at_nano=LIMIT, ledger=cut)
        assert await refusal(client) == "chain_unavailable"
        down[0].gone = False
        await answer(client)


async def test_a_closing_channel_is_not_served_because_the_chain_went_down(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller, client, ledger = await people(market)
        await answer(client)
        deal = await agree(client, question())
        await client.peer.start_close(client.book.channels()[0].channel)
        await trio.sleep(LOOK_S)
        assert seller.book.channels()[0].state is State.CLOSING
        ledger.gone = True
        (known,) = seller.book.channels()
        payees = seller.provider._payees
        with pytest.raises(Error, match="could not be checked"):
            async with payees.lease(known.claim, deal.quote):  # type: ignore[arg-type]
                pass


async def test_what_was_earned_meanwhile_is_settled_when_the_payer_closes_behind_a_chain_that_was_down(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(prices=DEAR, ledger=Cut), await market.customer()
        assert isinstance(seller.ledger, Cut)
        await answer(client)
        seller.ledger.gone = True
        await answer(client)
        (known,) = client.book.channels()
        await client.peer.start_close(known.channel)
        await trio.sleep(LOOK_S)
        seller.ledger.gone = False
        await trio.sleep(LOOK_S)
        assert [one.op for one in market.chain.transactions(known.channel)] == ["open", "start_close", "settle"]
        assert seller.book.channels()[0].settled_nano == known.authorised_nano
        assert seller.diary.of("settled")[0]["why"] == "the payer started to close"


async def test_a_client_starts_and_pays_over_its_open_channel_while_the_chain_is_down(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        _, client, _ = await people(market)
        await answer(client)
        await market.kill(client)
        down: list[Cut] = []

        def cut(ledger: Ledger) -> Ledger:
            down.append(Cut(ledger))
            down[0].gone = True
            return down[0]

        client = await market.customer(ledger=cut)
        assert await client.peer.can_pay()
        await answer(client)
        assert len(client.book.channels()) == 1
        stranger = await market.customer("stranger", ledger=cut)
        down[0].gone = True
        with pytest.raises(Unavailable):
            await answer(stranger)


async def test_what_has_waited_for_long_is_settled_without_another_answer(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller = await market.seller(prices=DEAR, settle_after_s=600)
        client = await market.customer()
        await answer(client)
        await trio.sleep(500)
        assert "settled" not in seller.diary.kinds()
        await trio.sleep(200)
        (settled,) = seller.diary.of("settled")
        assert settled["why"] == "it has been unsettled for long"
        assert [(day.settlements, day.fee_nano) for day in seller.book.fees()] == [(1, settled["fee_nano"])]


async def test_what_a_channel_paid_that_was_closed_together_is_in_the_books_of_both(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(), await market.customer()
        await answer(client)
        (known,) = client.book.channels()
        await client.peer.close_channel(known.channel)
        await trio.sleep(LOOK_S)
        for book in (seller.book, client.book):
            (closed,) = book.channels()
            assert (closed.state, closed.settled_nano) == (State.CLOSED, known.authorised_nano)
        (earned,) = seller.book.earnings()
        assert earned.settled_nano == earned.earned_nano == known.authorised_nano
