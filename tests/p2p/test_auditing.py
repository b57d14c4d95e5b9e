"""Audits in a live market: real nodes and books, scripted engines, of which some are not what they claim to be."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
import trio
from market import DEPOSIT_NANO, PRICES, Customer, Market, Seller, clock, open_market, question, signer
from trio.testing import MockClock

from inference.engine import Delta, Finished, Message, Request, Scored
from inference.scripted import Scripted, ScriptedEngine, open_scripted
from p2p.auditing import AuditBudget, Auditor, Reader, open_auditor
from p2p.budget import Budget
from p2p.keys import verify_by_peer
from p2p.protocol.audit import POOLED_TOKENS, verify_verdict
from p2p.protocol.reputation import AUDITS, Evidence, Kind
from p2p.protocol.strategy import FixedPrice, TakeIt
from p2p.track_record import TrackRecord, evidence_of

IMPOSTOR = Scripted(weights="a smaller one")
# To whom opening a channel costs next to nothing, so that it does not keep it where it is.
FREE_TO_GO = Budget(deposit_nano=DEPOSIT_NANO, channels_max=8, answers_per_channel=1 << 30, strategy=TakeIt())


class Canned(ScriptedEngine):
    """Says the same to everybody."""

    def _weighed(self, request: Request) -> Request:
        return msgspec.structs.replace(request, messages=(Message("user", "anything"),))


class Forgetful(ScriptedEngine):
    """Reads the second half of a prompt only, and counts all of it."""

    def _weighed(self, request: Request) -> Request:
        first, *rest = request.messages
        half = Message(first.role, first.content[len(first.content) // 2 :])
        return msgspec.structs.replace(request, messages=(half, *rest))


@asynccontextmanager
async def auditing(
    market: Market,
    client: Customer,
    budget: AuditBudget | None = None,
    scripted: Scripted | None = None,
    reader: Reader | None = None,
) -> AsyncIterator[Auditor]:
    async with open_auditor(
        client.peer,
        reader or Reader(lambda: open_scripted(scripted), "scripted"),
        budget or AuditBudget(),
        track_record=TrackRecord(client.keeper, clock, client.diary),
        identity=signer(client.name),
        clock=clock,
        draw=Random(7).randrange,
        trace=client.diary,
    ) as auditor:
        yield auditor


async def ask(client: Customer, number: int = 0, **changes: Any) -> str:
    """One question of the user's; who answered it."""
    request = msgspec.structs.replace(question(f"question {number}"), **changes)
    async with client.peer.ask(request) as answer:
        [piece async for piece in answer]
    return answer.parts[-1].deal.provider


def audits(client: Customer, seller: Seller) -> list[Evidence]:
    return [one for one in evidence_of(client.book).get(seller.peer, []) if one.kind in AUDITS]


async def test_a_newcomers_first_answers_are_audited_and_then_a_few(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(), await market.customer()
        async with auditing(market, client) as auditor:
            for number in range(20):
                await ask(client, number, temperature=0.8 * (number % 2), seed=number)
                await auditor.settled()
        found = audits(client, seller)
        assert 3 <= len(found) <= 6
        assert {one.kind for one in found} == {Kind.AUDIT_PASSED}
        assert seller.diary.kinds().count("served") == 20 + len(found), "audits are served like any other question"
        assert len(client.book.channels()) == 1


@pytest.mark.parametrize(
    ("engine", "scripted"), [(ScriptedEngine, IMPOSTOR), (Canned, Scripted()), (Forgetful, Scripted())]
)
async def test_what_is_not_the_models_answer_is_found_and_avoided(
    tmp_path: Path, autojump_clock: MockClock, engine: type[ScriptedEngine], scripted: Scripted
) -> None:
    async with open_market(tmp_path) as market:
        honest = await market.seller(name="honest")
        cheaper = FixedPrice(PRICES.scaled(8, 10))
        cheat = await market.seller(name="cheat", engine=engine(scripted), strategy=cheaper)
        client = await market.customer(budget=FREE_TO_GO)
        asked = []
        async with auditing(market, client) as auditor:
            for number in range(8):
                asked.append(await ask(client, number))
                await auditor.settled()
        assert asked[0] == cheat.peer
        assert asked[-4:] == [honest.peer] * 4
        found = audits(client, cheat)
        assert [one.kind for one in found] == [Kind.AUDIT_FAILED] * len(found)
        assert 2 <= len(found) <= 4, "no single one drives it away"
        assert {one.code for one in found} == {"unlikely"}
        verdict = found[0].verdict
        assert verdict is not None
        said = verify_verdict(verdict, network="devnet", verify=verify_by_peer)
        assert (said.provider, said.auditor, said.outcome) == (cheat.peer, client.host.peer, "failed")
        assert said.synthetic


def slow_reader(seconds: float) -> Reader:
    """Takes so long for each answer."""

    class Slow(ScriptedEngine):
        async def score(self, request: Request, text: str) -> Scored:
            await trio.sleep(seconds)
            return await super().score(request, text)

    @asynccontextmanager
    async def open_slow() -> AsyncIterator[ScriptedEngine]:
        yield Slow(Scripted())

    return Reader(open_slow, "scripted")


async def test_what_is_known_to_be_false_is_not_paid_for_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        cheat, client = await market.seller(engine=ScriptedEngine(IMPOSTOR)), await market.customer()
        hardly_any = AuditBudget(share_percent=0.001)
        async with auditing(market, client, hardly_any, reader=slow_reader(60)) as auditor:
            for number in range(12):
                await ask(client, number)  # all of them before the first one is found to be false
            await auditor.settled()
        assert [one.kind for one in audits(client, cheat)] == [Kind.AUDIT_FAILED] * 5


async def test_who_answers_most_does_not_keep_others_from_being_audited(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        busy, client = await market.seller(name="busy"), await market.customer(budget=FREE_TO_GO)
        async with auditing(market, client, AuditBudget(share_percent=100), reader=slow_reader(60)) as auditor:
            for number in range(6):
                await ask(client, number)
            cheaper = await market.seller(name="cheaper", strategy=FixedPrice(PRICES.scaled(1, 100)))
            asked = [await ask(client, number) for number in range(6, 8)]
            await auditor.settled()
        assert asked == [cheaper.peer] * 2
        order = [one["peer"] for one in client.diary.of("audited")]
        assert order == [busy.peer, busy.peer, cheaper.peer, busy.peer, cheaper.peer] + [busy.peer] * 3


class Doubting(ScriptedEngine):
    """Finds each token a little unlikely: less so than an answer may be, and more than many may."""

    async def score(self, request: Request, text: str) -> Scored:
        scored = await super().score(request, text)
        lacking = [msgspec.structs.replace(one, logprob=one.best - 0.03) for one in scored.figures]
        return msgspec.structs.replace(scored, figures=tuple(lacking), end=None)


async def test_answers_that_are_a_little_off_are_found_together(tmp_path: Path, autojump_clock: MockClock) -> None:
    @asynccontextmanager
    async def open_doubting() -> AsyncIterator[ScriptedEngine]:
        yield Doubting(Scripted())

    async with open_market(tmp_path) as market:
        seller, client = await market.seller(), await market.customer()
        everything = AuditBudget(share_percent=100)
        async with auditing(market, client, everything, reader=Reader(open_doubting, "scripted")) as auditor:
            number = 0
            while Kind.AUDIT_FAILED not in {one.kind for one in audits(client, seller)}:
                await ask(client, number)
                await auditor.settled()
                number += 1
                assert number < 20
        *before, last = sorted(audits(client, seller), key=lambda one: one.kind is Kind.AUDIT_FAILED)
        assert {one.kind for one in before} == {Kind.AUDIT_PASSED}
        assert last.code == "unlikely_in_all"
        assert last.tokens >= POOLED_TOKENS > sum(one.tokens for one in before)


class Padded(ScriptedEngine):
    """Says a third of what it may, and each of its tokens claims to be three."""

    async def _paced(self, request: Request) -> AsyncGenerator[Delta | Finished]:
        third = msgspec.structs.replace(request, max_tokens=request.max_tokens // 3)
        async for item in super()._paced(third):
            if isinstance(item, Delta):
                yield msgspec.structs.replace(item, tokens=3)
            else:
                usage = msgspec.structs.replace(item.usage, completion_tokens=3 * item.usage.completion_tokens)
                yield msgspec.structs.replace(item, usage=usage)


async def test_a_made_up_count_is_found(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(engine=Padded(Scripted())), await market.customer()
        async with auditing(market, client) as auditor:
            for number in range(3):
                await ask(client, number)
                await auditor.settled()
        assert [one.code for one in audits(client, seller)] == ["answer_count"] * 3
