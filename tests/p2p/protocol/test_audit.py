"""Verdicts: what is judged how, what is allowed, and who is audited when."""

from __future__ import annotations

import hashlib
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.keys import Ed25519Signer
from inference.engine import Figures, Message, Request, Scored
from inference.script import answer as scripted_answer
from inference.script import count_tokens, scored
from p2p.errors import RemoteError
from p2p.keys import peer_id_of, verify_by_peer
from p2p.protocol.audit import (
    CALIBRATED,
    POOLED_TOKENS,
    TOKENS_MIN,
    UNKNOWN,
    Delivered,
    Fault,
    Finding,
    Limits,
    Outcome,
    Verdict,
    Weights,
    deviation,
    due,
    judge,
    limits_of,
    strain_permille,
    verify_verdict,
    with_earlier,
)
from p2p.protocol.audit_prompts import synthetic
from p2p.protocol.price import Tokens
from p2p.protocol.reputation import Evidence, Kind, weigh
from p2p.protocol.wire import sign

LIMITS = Limits(greedy=0.1, pooled=0.02, low=3.0, high=2.0)
SURE = Figures(logprob=-0.1, best=-0.1, mean=-0.5, variance=0.25)
END = Figures(logprob=-7.0, best=-0.5, mean=-1.0, variance=1.0)
AUDITOR = Ed25519Signer(hashlib.sha256(b"auditor").digest())


def lacking(nats: float) -> Figures:
    return Figures(-0.1 - nats, -0.1, -0.5, 0.25)


def judged(
    figures: list[Figures],
    *,
    greedy: bool = True,
    tokens: int = 0,
    prompt: int = 0,
    end: Figures | None = None,
    reason: str = "length",
) -> Finding:
    paid = Tokens(input=100 + prompt, output=len(figures) + tokens)
    read = Scored(len(figures), tuple(figures), end)
    return judge(Delivered(greedy, reason, paid), read, 100, LIMITS)  # type: ignore[arg-type]


def test_greedily_the_mean_of_what_tokens_lack_counts_and_no_single_one_much() -> None:
    assert deviation([SURE, lacking(0.5)], greedy=True) == pytest.approx(0.25)
    assert deviation([SURE, lacking(40)], greedy=True) == pytest.approx(2.5)
    assert deviation([], greedy=True) == 0


def test_what_was_drawn_is_measured_in_standard_deviations() -> None:
    # Four tokens, each 0.4 above the mean, of variance 0.25: 1.6 in all, and one standard deviation is 1.
    assert deviation([SURE] * 4, greedy=False) == pytest.approx(1.6)
    assert deviation([lacking(0.9)] * 4, greedy=False) == pytest.approx(-2.0)
    assert deviation([Figures(0.0, 0.0, 0.0, 0.0)] * 9, greedy=False) == 0, "nothing was left to chance"


@pytest.mark.parametrize(
    ("finding", "outcome", "fault"),
    [
        (judged([SURE] * 30), "passed", None),
        (judged([lacking(0.09)] * 30), "passed", None),
        (judged([lacking(0.11)] * 30), "failed", "unlikely"),
        (judged([lacking(9)] * (TOKENS_MIN - 1)), "unclear", None),
        (judged([lacking(9)] * TOKENS_MIN), "failed", "unlikely"),
        (judged([SURE] * 24, greedy=False), "failed", "too_likely"),  # 3.9 above
        (judged([lacking(0.4)] * 24, greedy=False), "passed", None),
        (judged([lacking(0.75)] * 24, greedy=False), "failed", "unlikely"),  # 3.4 below
        # Counts, with 4 and a tenth to spare, whatever the text is.
        (judged([SURE] * 7, tokens=4), "unclear", None),
        (judged([SURE] * 7, tokens=5), "failed", "answer_count"),
        (judged([SURE] * 30, tokens=-20), "passed", None),
        (judged([SURE] * 30, prompt=14), "passed", None),
        (judged([SURE] * 30, prompt=15), "failed", "prompt_count"),
        (judged([SURE] * 30, prompt=-15), "failed", "prompt_count"),
        # An end counts as a token where the answer claims to have come to one.
        (judged([SURE] * 30, end=END, reason="stop"), "failed", "unlikely"),
        (judged([SURE] * 30, end=END), "passed", None),
        (judged([SURE] * 30, reason="stop"), "passed", None),
    ],
)
def test_verdicts(finding: Finding, outcome: str, fault: str | None) -> None:
    assert (finding.outcome, finding.fault) == (outcome, fault)


def earlier(*nats: float, tokens: int = 48, kind: Kind = Kind.AUDIT_PASSED) -> list[Evidence]:
    found = (Finding(Outcome.PASSED, None, tokens, one) for one in nats)
    return [
        Evidence(at=at, kind=kind, tokens=tokens, strain_permille=strain_permille(one, LIMITS))
        for at, one in enumerate(found, 1)
    ]


@pytest.mark.parametrize(
    ("before", "fails"),
    [
        (earlier(0.03, 0.03), False),  # 144 tokens are too few
        (earlier(0.03, 0.03, 0.03), True),
        (earlier(0.03, 0.0, 0.0), False),
        (earlier(0.09, 0.0, 0.0), True),
        (earlier(0.09, 0.0, 0.0, 0.0), False),  # the first is too long ago
        (earlier(0.04, 0.04, kind=Kind.AUDIT_UNCLEAR) + earlier(0.03), True),
        ([*earlier(0.03, 0.03), *earlier(0.0, 0.03, kind=Kind.AUDIT_FAILED)], False),  # which begins anew
        ([*earlier(0.03, 0.03, 0.03), Evidence(at=9, kind=Kind.AUDIT_PASSED, tokens=500)], True),  # that was drawn
        ([*earlier(0.03, 0.03, 0.03), Evidence(at=9, kind=Kind.ANSWERED, tokens=500)], True),
    ],
)
def test_answers_that_are_a_little_off_fail_together(before: list[Evidence], fails: bool) -> None:
    now = judged([lacking(0.03)] * 48)
    assert now.outcome is Outcome.PASSED
    found = with_earlier(now, before, LIMITS)
    if fails:
        assert (found.outcome, found.fault) == (Outcome.FAILED, Fault.UNLIKELY_IN_ALL)
        assert found.tokens == POOLED_TOKENS
        assert found.deviation > LIMITS.pooled
    else:
        assert found == now


def test_a_long_answer_is_many_by_itself_and_a_failed_one_stays_what_it_is() -> None:
    long = judged([lacking(0.03)] * POOLED_TOKENS)
    assert with_earlier(long, (), LIMITS).fault is Fault.UNLIKELY_IN_ALL
    failed = judged([lacking(0.3)] * POOLED_TOKENS)
    assert with_earlier(failed, (), LIMITS) == failed


def test_what_nobody_has_calibrated_is_allowed_more() -> None:
    for weights, limits in CALIBRATED.items():
        assert limits_of(weights) == limits
        assert limits_of(weights._replace(quantisation="Q2_K")) == UNKNOWN
        assert limits < UNKNOWN


def delivered(request: Request, *, weights: str = "m") -> tuple[str, Delivered]:
    *deltas, finished = scripted_answer(msgspec.structs.replace(request, model=weights))
    text = "".join(one.text for one in deltas)  # type: ignore[union-attr]
    usage = finished.usage  # type: ignore[union-attr]
    tokens = Tokens(input=count_tokens(request), output=usage.completion_tokens)
    return text, Delivered(request.temperature == 0, finished.reason, tokens)  # type: ignore[union-attr]


@given(st.integers(0, 1 << 30), st.sampled_from([0.0, 0.8]))
def test_scripted_answers_are_told_apart(seed: int, temperature: float) -> None:
    draw = Random(seed).randrange
    like = Request(model="m", messages=(Message("user", "mine"),), max_tokens=60, temperature=temperature)
    request = synthetic(draw, like)
    limits = limits_of(Weights("bombyx/scripted", "none", "scripted"))

    def found(asked: Request, weights: str = "m") -> Outcome:
        text, answer = delivered(asked, weights=weights)
        answer = answer._replace(tokens=Tokens(input=count_tokens(request), output=answer.tokens.output))
        return judge(answer, scored(request, text), count_tokens(request), limits).outcome

    assert found(request) is Outcome.PASSED
    assert found(request, "another") is Outcome.FAILED
    first, *rest = request.messages
    cut = Message(first.role, first.content[len(first.content) // 2 :])
    assert found(msgspec.structs.replace(request, messages=(cut, *rest))) is Outcome.FAILED


def test_prompts_differ_and_have_the_users_settings() -> None:
    like = Request(model="m", messages=(Message("user", "mine"),), max_tokens=77, temperature=0.4, top_p=0.5)
    asked = [synthetic(Random(seed).randrange, like) for seed in range(300)]
    assert len({one.messages for one in asked}) == 300
    assert len({one.seed for one in asked}) == 300
    assert {(one.model, one.max_tokens, one.temperature) for one in asked} == {("m", 77, 0.4), ("m", 77, 0.0)}
    assert {len(one.messages) for one in asked} == {1, 3}
    lengths = sorted(sum(len(message.content) for message in one.messages) for one in asked)
    assert lengths[0] < 150 < 300 < lengths[-1]
    assert all("{" not in message.content for one in asked for message in one.messages)
    assert synthetic(Random(5).randrange, like) == synthetic(Random(5).randrange, like)


VERDICT = Verdict(
    network="devnet",
    auditor=peer_id_of(AUDITOR.public_key),
    provider="12D3KooW",
    receipt=bytes(32),
    model="m",
    quantisation="Q4_1",
    digest="00",
    engine="llamacpp",
    synthetic=True,
    outcome=Outcome.FAILED,
    fault=Fault.UNLIKELY,
    tokens=64,
    deviation_milli=-4100,
    at=1_800_000_000,
)


def test_a_verdict_is_its_auditors() -> None:
    signed = sign(VERDICT, AUDITOR)
    assert verify_verdict(signed, network="devnet", verify=verify_by_peer) == VERDICT
    with pytest.raises(RemoteError, match="wrong_network"):
        verify_verdict(signed, network="mainnet", verify=verify_by_peer)
    somebody = Ed25519Signer(hashlib.sha256(b"somebody").digest())
    with pytest.raises(RemoteError, match="bad_signature"):
        verify_verdict(sign(VERDICT, somebody), network="devnet", verify=verify_by_peer)


def evidence(*kinds: Kind) -> list[Evidence]:
    return [Evidence(at=number, kind=kind) for number, kind in enumerate(kinds)]


PASSED, FAILED, UNCLEAR = Kind.AUDIT_PASSED, Kind.AUDIT_FAILED, Kind.AUDIT_UNCLEAR


@pytest.mark.parametrize(
    ("known", "always"),
    [
        ([], True),
        (evidence(*[Kind.ANSWERED] * 50), True),
        (evidence(PASSED, PASSED), True),
        (evidence(PASSED, UNCLEAR, PASSED), False),
        (evidence(PASSED, PASSED, PASSED, FAILED), True),
        (evidence(FAILED, FAILED, FAILED, PASSED, Kind.ANSWERED), False),
        (list(reversed(evidence(PASSED, PASSED, PASSED, FAILED))), True),
        (evidence(*[FAILED] * 4), True),
        (evidence(*[FAILED] * 5), False),
        (evidence(*[Kind.MISCOUNTED] * 5), False),
    ],
)
def test_newcomers_are_audited_and_who_failed_until_avoided_and_others_by_chance(
    known: list[Evidence], always: bool
) -> None:
    def never(_: int) -> int:
        return 99_999

    assert due(weigh(known, 100), 2, never) == always
    sound = weigh(evidence(*[PASSED] * 3), 100)
    drawn = sum(due(sound, 2, Random(seed).randrange) for seed in range(2000))
    assert 20 < drawn < 60
    assert not due(sound, 0, lambda _: 0)
