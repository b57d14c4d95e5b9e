"""What is said to have been checked of an answer, against how it really went."""

from __future__ import annotations

from pathlib import Path

import pytest
from market import MODEL, clock, open_market, question
from trio.testing import MockClock

from inference.scripted import Scripted, ScriptedEngine
from p2p.answer import Answer
from p2p.errors import EngineError
from p2p.gateway.checks import Check, checks_of
from p2p.gateway.metadata import of_parts
from p2p.protocol.reputation import Evidence, Kind
from p2p.track_record import TrackRecord

DAY_S = 86_400
PASSED = Evidence(at=DAY_S, kind=Kind.AUDIT_PASSED, tokens=200)
FAILED = Evidence(at=2 * DAY_S, kind=Kind.AUDIT_FAILED, code="unlikely", tokens=40)
UNCLEAR = Evidence(at=3 * DAY_S, kind=Kind.AUDIT_UNCLEAR, code="no_reader")


async def bought(directory: Path, scripted: Scripted, *audits: Evidence) -> tuple[Answer, list[Check]]:
    """One part, what was checked of it in mid-answer, and what was in the end is in its metadata."""
    async with open_market(directory) as market:
        seller = await market.seller(engine=ScriptedEngine(scripted))
        client = await market.customer()
        for audit in audits:
            await TrackRecord(client.keeper, clock).note_audit(seller.peer, audit, 0)
        deal = await client.peer.agree(await client.peer.find(MODEL), question())
        async with client.peer.answer(deal, question()) as answer:
            first = await anext(answer)
            assert first
            assert checks_of(answer) == []
            try:
                [piece async for piece in answer]
            except EngineError:
                assert scripted.fail_after is not None
        (part,) = of_parts([answer], await client.peer.audits({seller.peer}))["parts"]
        return answer, part["checks"]


def results(checks: list[Check]) -> dict[str, str]:
    return {check["what"]: check["result"] for check in checks}


def detail(checks: list[Check], what: str) -> str:
    return next(check["detail"] for check in checks if check["what"] == what)


async def test_a_whole_answer_as_promised(tmp_path: Path, autojump_clock: MockClock) -> None:
    answer, checks = await bought(tmp_path, Scripted())
    assert results(checks) == {
        "Identity": "passed",
        "Quote": "passed",
        "Receipt": "passed",
        "Promised speed": "passed",
        "Token counts": "not_checked",
        "Model": "not_checked",
        "Audits": "not_checked",
        "Machine": "not_checked",
    }
    assert "GRAM in" in detail(checks, "Quote")
    assert answer.deal.quote.model in detail(checks, "Model")


async def test_one_that_broke_off(tmp_path: Path, autojump_clock: MockClock) -> None:
    answer, checks = await bought(tmp_path, Scripted(fail_after=10))
    assert results(checks)["Receipt"] == "failed"
    assert str(answer.error) in detail(checks, "Receipt")
    assert results(checks)["Promised speed"] == "passed", "what came of it was in time"


async def test_one_that_was_slower_than_promised(tmp_path: Path, autojump_clock: MockClock) -> None:
    _, checks = await bought(tmp_path, Scripted(tokens_per_s=10))
    assert results(checks)["Promised speed"] == "failed"
    assert "promised 100, kept from 50" in detail(checks, "Promised speed")


@pytest.mark.parametrize(
    ("audits", "result", "said"),
    [
        ((UNCLEAR,), "not_checked", "no answer"),
        (
            (PASSED, UNCLEAR),
            "passed",
            "1 of 1 audits passed; the last on 1970-01-02: 200 tokens were",
        ),
        ((PASSED, FAILED), "failed", "1 of 2 audits passed; the last on 1970-01-03: another model's words"),
        ((FAILED, PASSED), "failed", "1 of 2"),
    ],
)
async def test_what_audits_found_of_its_provider(
    audits: tuple[Evidence, ...], result: str, said: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    _, checks = await bought(tmp_path, Scripted(), *audits)
    assert results(checks)["Audits"] == result
    assert said in detail(checks, "Audits")
