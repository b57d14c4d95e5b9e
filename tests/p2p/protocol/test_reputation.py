"""What evidence comes to: promise against delivery, fading, and bounded."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.protocol.market import STRANGER, Candidate, Need, Standing, score
from p2p.protocol.price import Prices, Tokens
from p2p.protocol.reputation import (
    ASSUMED_TIMINGS,
    FAILURES,
    HALF_LIFE_S,
    RATIO_MAX,
    STEP_MAX_PERMILLE,
    Evidence,
    Kind,
    standing,
    weigh,
)

NOW = 1_800_000_000
GOOD = Evidence(
    at=NOW,
    kind=Kind.ANSWERED,
    tokens=100,
    ttft_ms=200,
    promised_ttft_ms=200,
    tokens_per_s=50,
    promised_tokens_per_s=50,
)

EVIDENCE = st.builds(
    Evidence,
    at=st.integers(NOW - 100 * HALF_LIFE_S, NOW + 1000),
    kind=st.sampled_from(Kind),
    tokens=st.integers(0, 1 << 40),
    ttft_ms=st.integers(0, 1 << 40),
    promised_ttft_ms=st.integers(0, 1 << 40),
    tokens_per_s=st.floats(0, 1e9),
    promised_tokens_per_s=st.integers(0, 1 << 40),
)


def of(*evidence: Evidence, at: float = NOW) -> Standing:
    return standing(weigh(evidence, at))


def bad(kind: Kind, **changes: object) -> Evidence:
    return msgspec.structs.replace(GOOD, kind=kind, code="overcount", **changes)


def test_a_stranger_has_the_standing_that_is_assumed() -> None:
    assert of() == STRANGER == Standing(20, 100, 100)


@pytest.mark.parametrize(
    ("evidence", "failure_permille"),
    [
        ([GOOD] * 25, 10),
        ([GOOD] * 100, 4),
        ([bad(Kind.BROKE_OFF)], 58),
        ([bad(Kind.ENGINE_FAILED)], 58),
        ([bad(Kind.BROKE_RULES)], 125),
        ([bad(Kind.MISCOUNTED)], 183),
        ([bad(Kind.MISCOUNTED)] * 10, 673),
        ([GOOD] * 100 + [bad(Kind.MISCOUNTED)], 42),
    ],
)
def test_failures_are_weighed_by_what_explains_them(evidence: list[Evidence], failure_permille: int) -> None:
    assert of(*evidence).failure_permille == failure_permille


def test_speed_is_measured_against_the_promise() -> None:
    twice_as_late = msgspec.structs.replace(GOOD, ttft_ms=400, tokens_per_s=25)
    assert of(*[twice_as_late] * 5)[1:] == (150, 75)
    never = msgspec.structs.replace(GOOD, ttft_ms=1 << 40, tokens_per_s=0)
    assert of(*[never] * 1000)[1:] == (399, 25), "so far and no further"
    short = msgspec.structs.replace(GOOD, tokens=7, tokens_per_s=1)
    assert of(short).rate_percent == 100, "seven tokens tell nothing of a rate"
    assert of(msgspec.structs.replace(GOOD, promised_ttft_ms=0, promised_tokens_per_s=0)) == of(GOOD)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "answered 100 tokens, the first after 200 ms (promised 200), then 50 a second (promised 50)"),
        (
            {"ttft_ms": 1600},
            "answered 100 tokens, the first after 1600 ms (promised 200), then 50 a second (promised 50)",
        ),
        ({"ttft_ms": 1601}, "the first after 1601 ms (promised 200), then 50 a second (promised 50): late"),
        ({"tokens_per_s": 24.9}, "then 25 a second (promised 50): slow"),
        ({"ttft_ms": 9000, "tokens_per_s": 1.0}, "then 1 a second (promised 50): late and slow"),
        ({"tokens": 7, "tokens_per_s": 1.0}, "answered 7 tokens, the first after 200 ms (promised 200)"),
        ({"tokens": 0}, "answered 0 tokens"),
        ({"kind": Kind.BROKE_OFF}, "went away or stalled in the middle of an answer, after 100 tokens"),
        ({"kind": Kind.ENGINE_FAILED}, "its engine failed in the middle of an answer, after 100 tokens"),
        ({"kind": Kind.BROKE_RULES, "code": "malformed"}, "broke the protocol (malformed)"),
        ({"kind": Kind.MISCOUNTED, "code": "overcount"}, "its counts were not true (overcount)"),
        ({"kind": Kind.AUDIT_PASSED}, "audited: 100 tokens were as they should be"),
        (
            {"kind": Kind.AUDIT_FAILED, "code": "unlikely"},
            "audited: another model's words, or an answer to another prompt, over 100 tokens",
        ),
        ({"kind": Kind.AUDIT_FAILED, "code": "of a later version"}, "audited: of a later version, over 100 tokens"),
        ({"kind": Kind.AUDIT_UNCLEAR, "code": "too_short"}, "audited, to no end (too_short)"),
    ],
)
def test_evidence_is_said_in_plain_words_and_broken_promises_count(changes: dict[str, object], said: str) -> None:
    evidence = msgspec.structs.replace(GOOD, **changes)
    assert evidence.said().endswith(said)
    broken = said.endswith(("late", "slow"))
    assert (evidence.failures == 0.5) == broken
    if broken:
        assert of(evidence).failure_permille > of(GOOD).failure_permille


def test_all_fades_to_what_is_assumed_of_strangers() -> None:
    liar = [bad(Kind.MISCOUNTED)] * 10
    faded = [of(*liar, at=NOW + age * HALF_LIFE_S).failure_permille for age in range(12)]
    assert faded[0] == 673
    assert faded == sorted(faded, reverse=True)
    assert faded[1] == of(*liar[:5]).failure_permille, "after a half-life ten count as five"
    assert faded[-1] == 21
    assert of(*[GOOD] * 100, at=NOW + 20 * HALF_LIFE_S) == STRANGER
    assert [weight for _, weight in weigh([GOOD], NOW - 9)] == [1.0], "our clock was set back"


@given(st.lists(EVIDENCE, max_size=30), EVIDENCE, st.integers(NOW, NOW + 50 * HALF_LIFE_S))
def test_no_single_event_moves_a_standing_far(before: list[Evidence], one: Evidence, now: int) -> None:
    was, is_ = of(*before, at=now), of(*before, one, at=now)
    assert abs(is_.failure_permille - was.failure_permille) <= STEP_MAX_PERMILLE + 1
    furthest_percent = 100 * RATIO_MAX / (ASSUMED_TIMINGS + 1) + 1
    assert abs(is_.ttft_percent - was.ttft_percent) <= furthest_percent
    assert abs(is_.rate_percent - was.rate_percent) <= furthest_percent
    assert 0 < is_.failure_permille < 1000


@given(st.lists(EVIDENCE, max_size=20))
def test_the_order_in_which_it_was_noted_does_not_matter(evidence: list[Evidence]) -> None:
    assert of(*reversed(evidence)) == pytest.approx(of(*evidence), abs=1), "but for the rounding of sums"
    weights = [weight for _, weight in weigh(evidence, NOW)]
    assert weights == sorted(weights, reverse=True), "the newest first"


def test_what_is_kept_comes_back_as_it_was() -> None:
    for evidence in (GOOD, *(bad(kind) for kind in FAILURES)):
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(evidence), type=Evidence) == evidence


def test_a_liar_is_no_bargain_soon() -> None:
    """One that asks 20 % less costs more in the end after two lies, and twice as much after ten."""
    plain = Candidate("a", Prices(100, 0, 1000), ttft_ms=200, tokens_per_s=50, rtt_ms=40, slots_free=1)
    need = Need(Tokens(input=1_000_000, output=1_000_000))

    def cost(percent: int, *evidence: Evidence) -> int:
        standing_ = of(*evidence)
        found = Candidate("b", plain.prices.scaled(percent, 100), 200, 50, 40, 1, standing=standing_)
        return score(found, need).total_nano

    honest = cost(100, *[GOOD] * 20)
    assert cost(80) < honest
    assert cost(80, *[bad(Kind.MISCOUNTED)] * 2) > honest
    assert cost(80, *[bad(Kind.MISCOUNTED)] * 10) > 2 * honest


def test_an_audit_that_failed_says_the_same_of_all_that_was_not_audited() -> None:
    failed, passed, unclear = bad(Kind.AUDIT_FAILED), bad(Kind.AUDIT_PASSED), bad(Kind.AUDIT_UNCLEAR)
    answers = [GOOD] * 100
    course = [of(*answers, *[failed] * count).failure_permille for count in (0, 1, 2, 3, 6)]
    assert course == [4, 170, 289, 377, 547], "no single one condemns, and good answers do not make up for several"
    assert of(*answers, *[passed] * 25, failed).failure_permille < course[1], "but audits that were passed do"
    assert of(unclear, unclear) == STRANGER
    assert of(passed) == STRANGER
    assert of(*[msgspec.structs.replace(passed, ttft_ms=5000)] * 9).ttft_percent == 100, "the answer counted already"


def test_what_an_audit_found_is_no_bargain_soon() -> None:
    """One that asks half the price costs more in the end after six audits that it failed."""
    half = Candidate("b", Prices(50, 0, 500), ttft_ms=200, tokens_per_s=50, rtt_ms=40, slots_free=1)
    need = Need(Tokens(input=1_000_000, output=1_000_000))
    found = [
        score(dataclasses.replace(half, standing=of(*[bad(Kind.AUDIT_FAILED)] * count)), need).total_nano
        for count in (0, 4, 6)
    ]
    assert found[1] < 2 * found[0] < found[2]
