"""What becomes of how providers behave: written down after each answer, and looked at before the next."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio
from market import DEPOSIT_NANO, MODEL, Customer, Market, Seller, clock, open_market, question
from trio.testing import MockClock

from inference.engine import Delta, Finished, Request
from inference.scripted import Scripted, ScriptedEngine
from p2p.answer import Answer
from p2p.budget import Budget
from p2p.errors import EngineError, RemoteError, Unavailable
from p2p.protocol.market import STRANGER, Standing
from p2p.protocol.reputation import Evidence, Kind
from p2p.protocol.strategy import TakeIt
from p2p.track_record import TrackRecord, evidence_of


class Padded(ScriptedEngine):
    """Counts more tokens than there are."""

    async def _paced(self, request: Request) -> AsyncGenerator[Delta | Finished]:
        async for item in super()._paced(request):
            yield msgspec.structs.replace(item, tokens=10 * item.tokens) if isinstance(item, Delta) else item


@asynccontextmanager
async def asked(client: Customer) -> AsyncIterator[Answer]:
    """One part of an answer: nobody goes on where its provider fails."""
    deal = await client.peer.agree(await client.peer.find(MODEL), question())
    async with client.peer.answer(deal, question()) as answer:
        yield answer


async def ask(client: Customer) -> str:
    """Reads it to the end; returns who gave it."""
    async with asked(client) as answer:
        [piece async for piece in answer]
    return answer.deal.provider


def noted(client: Customer, seller: Seller) -> list[Evidence]:
    return evidence_of(client.book, {seller.peer}).get(seller.peer, [])


async def standing_of(client: Customer, seller: Seller) -> Standing:
    record = TrackRecord(client.keeper, clock)
    return (await record.standings([seller.peer])).get(seller.peer, STRANGER)


async def a_thrifty_client(market: Market) -> Customer:
    """To whom opening a channel costs next to nothing, so that it does not keep it where it is."""
    budget = Budget(deposit_nano=DEPOSIT_NANO, channels_max=8, answers_per_channel=1 << 30, strategy=TakeIt())
    return await market.customer(budget=budget)


async def test_an_answer_as_promised_is_noted_as_it_was_seen(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(), await market.customer()
        await ask(client)
        (one,) = noted(client, seller)
        assert (one.kind, one.tokens, one.promised_ttft_ms, one.promised_tokens_per_s) == (Kind.ANSWERED, 40, 50, 100)
        assert 0 < one.ttft_ms <= 100
        assert one.tokens_per_s == pytest.approx(100, rel=0.1)
        assert (one.late, one.slow) == (False, False)
        assert (await standing_of(client, seller)).failure_permille < STRANGER.failure_permille


async def test_a_slow_one_is_expected_to_be_slow(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(Scripted(tokens_per_s=10)), await market.customer()
        first = (await client.peer.agree(await client.peer.find(MODEL), question())).ranked[0]
        await trio.sleep(60)
        await ask(client)
        (one,) = noted(client, seller)
        assert one.slow
        second = (await client.peer.agree(await client.peer.find(MODEL), question())).ranked[0]
        assert second.expected_ms > first.expected_ms
        assert second.candidate.standing.rate_percent == round(100 * (5 + 0.25) / 6)


@pytest.mark.parametrize(
    ("liar", "error", "kind"),
    [
        (ScriptedEngine(Scripted(fail_after=10)), EngineError, Kind.ENGINE_FAILED),
        (Padded(Scripted()), RemoteError, Kind.MISCOUNTED),
    ],
    ids=("fails", "miscounts"),
)
async def test_who_fails_loses_the_next_answers_to_an_equal(
    liar: ScriptedEngine, error: type[Exception], kind: Kind, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        bad, client = await market.seller(name="bad", engine=liar), await a_thrifty_client(market)
        with pytest.raises(error):
            await ask(client)
        assert [one.kind for one in noted(client, bad)] == [kind]
        good = await market.seller(name="good")
        assert [await ask(client) for _ in range(3)] == [good.peer] * 3, "else it would be left to chance"
        deal = await client.peer.agree(await client.peer.find(MODEL), question())
        assert [score.candidate.peer for score in deal.ranked] == [good.peer, bad.peer]
        assert deal.ranked[1].risk_nano > deal.ranked[0].risk_nano


async def test_who_goes_away_in_the_middle_is_remembered_in_the_next_process_too(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(), await market.customer()

        async def read() -> None:
            async with asked(client) as answer:
                async for _ in answer:
                    if answer.completion_tokens == 20:
                        await market.kill(seller)

        with pytest.raises(Unavailable):
            await read()
        assert [(one.kind, one.tokens) for one in noted(client, seller)] == [(Kind.BROKE_OFF, 20)]
        await market.kill(client)
        again = await market.customer()
        assert (await standing_of(again, seller)).failure_permille == 58


async def test_nothing_is_held_against_a_provider_that_we_left(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(), await market.customer()
        async with asked(client):
            pass  # before it began
        assert noted(client, seller) == []
        async with asked(client) as answer:
            async for _ in answer:
                break
        assert [one.kind for one in noted(client, seller)] == [Kind.ANSWERED]
        assert (await standing_of(client, seller)).failure_permille < STRANGER.failure_permille


async def test_a_disk_that_is_full_costs_the_memory_and_not_the_answer(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(), await market.customer()
        async with asked(client) as answer:
            text = "".join([piece async for piece in answer])
            client.keeper.commits_left = 0
        client.keeper.commits_left = None
        assert text
        assert noted(client, seller) == []
        assert client.diary.of("not_noted")[0]["peer"] == seller.peer
