"""A small fair. `make proof` has one of two thousand answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from fair import BEST, CHEATS, FAULTS, PRICES, Plan, run_fair
from takings import Bought, Part, bill, shares

from p2p.protocol.price import Tokens, cost_nano


@pytest.mark.slow
def test_no_answer_is_lost_among_five_providers_that_all_have_a_fault(tmp_path: Path) -> None:
    # Whoever sold most on one visit is known for what it is on the next, however fast the answers came.
    report = run_fair(tmp_path, Plan(answers=32, visits=4, at_once=8, mortal_gives=3, seed=1))
    assert report.lost == []
    assert len(report.bought) == 32
    assert report.deaths > 0
    assert report.disagreements == []
    assert {one.provider for one in report.audits if one.outcome == "failed"} == set(CHEATS)


def part(provider: str, *, prompt: int = 10, tokens: int = 20, lie: int = 0, **true: int) -> Part:
    """Paid as it was counted."""
    counted = Tokens(input=prompt + lie, output=tokens + lie)
    return Part(
        provider=provider,
        prompt_tokens=counted.input,
        completion_tokens=counted.output,
        cost_nano=cost_nano(PRICES[provider], counted),
        true_prompt_tokens=true.get("prompt", prompt),
        true_completion_tokens=tokens,
    )


def answer(*parts: Part) -> Bought:
    return Bought(number=0, seconds=1.0, why_not="", parts=parts)


def overpaid(*answers: Bought) -> float:
    return bill(answers, BEST, PRICES, false=["impostor"]).overpaid


def test_what_is_bought_of_the_best_is_worth_its_price_and_no_more_is_paid_for_what_others_give() -> None:
    assert overpaid(answer(part("slow")), answer(part("mortal"))) == 0
    assert overpaid(answer(part("dear"))) == pytest.approx(FAULTS["dear"].percent / 100 - 1)
    assert overpaid(answer(part("liar", lie=5))) == pytest.approx(0.9 * (15 * 6 + 25 * 18) / (10 * 6 + 20 * 18) - 1)
    one = answer(part("mortal"))
    assert overpaid(one, answer(part("impostor"))) == pytest.approx(0.9), "what it gives is worth nothing"


def test_a_prompt_that_is_read_again_is_reported_apart() -> None:
    found = bill([answer(part("mortal", tokens=8), part("slow", prompt=19, tokens=12))], BEST, PRICES, false=[])
    assert found.repeated_nano == cost_nano(BEST, Tokens(input=19))
    assert found.overpaid == 0
    unpaid = Part(
        provider="mortal",
        prompt_tokens=0,
        completion_tokens=0,
        cost_nano=0,
        true_prompt_tokens=10,
        true_completion_tokens=0,
    )
    assert bill([answer(unpaid, part("slow"))], BEST, PRICES, false=[]).repeated_nano == 0


def test_shares_are_of_the_tokens_that_were_counted() -> None:
    assert shares([answer(part("mortal")), answer(part("slow"), part("liar"))]) == {
        "mortal": pytest.approx(1 / 3),
        "slow": pytest.approx(1 / 3),
        "liar": pytest.approx(1 / 3),
    }
