"""Which provider to take, and why."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.errors import Refused
from p2p.protocol.market import (
    DISTRUSTED_PERMILLE,
    PRESETS,
    Candidate,
    LeftOut,
    Need,
    Objection,
    Score,
    Standing,
    answers_expected,
    choose,
    explain,
    nobody,
    objection,
    rank,
    score,
    sift,
)
from p2p.protocol.price import Prices, Tokens

PLAIN = Candidate(
    peer="plain",
    prices=Prices(1_000_000, 0, 10_000_000),
    ttft_ms=200,
    tokens_per_s=50,
    rtt_ms=40,
    slots_free=1,
)
NEED = Need(Tokens(input=100, output=100))


def test_a_score_is_the_sum_of_tokens_opening_time_and_risk() -> None:
    need = replace(NEED, nano_per_second=1000, answers_per_channel=3)
    found = score(replace(PLAIN, opening_fee_nano=1000), need)
    assert found.tokens_nano == 100 + 1000
    assert found.opening_nano == 334
    assert found.expected_ms == 2 * 40 + 200 + 2000
    assert found.ttft_ms == 2 * 40 + 200
    assert found.time_nano == 2280
    assert found.risk_nano == (1100 + 2280) * 20 // 980
    assert found.total_nano == 1100 + 334 + 2280 + 68


def test_a_stopped_provider_and_a_channel_for_no_answers_divide_by_one() -> None:
    found = score(replace(PLAIN, tokens_per_s=0, opening_fee_nano=5), replace(NEED, answers_per_channel=0))
    assert found.expected_ms == 280 + 100_000
    assert found.opening_nano == 5


def test_ranking_keeps_to_the_cap_and_breaks_ties_by_name() -> None:
    twin = replace(PLAIN, peer="alike")
    dear = replace(PLAIN, peer="dear", prices=Prices(1_000_001, 0, 10_000_000))
    cheap = replace(PLAIN, peer="cheap", prices=Prices(1_000_000, 0, 1_000_000))
    within = rank([PLAIN, dear, twin, cheap], replace(NEED, prices_max=PLAIN.prices))
    assert [s.candidate.peer for s in within] == ["cheap", "alike", "plain"]
    assert [s.candidate.peer for s in rank([PLAIN, dear, twin, cheap], NEED)][-1] == "dear"


def test_nobody_within_the_cap_is_an_honest_no() -> None:
    with pytest.raises(Refused, match="price cap"):
        choose(rank([PLAIN], replace(NEED, prices_max=Prices(0, 0, 0))), random.Random(0).randrange)


def test_of_two_as_good_the_one_with_more_room_is_taken() -> None:
    roomy = replace(PLAIN, peer="roomy", slots_free=3)
    ranked = rank([PLAIN, roomy], NEED)
    draws = iter([0, 1])
    assert choose(ranked, lambda n: next(draws) % n).candidate is roomy


def test_a_crowd_spreads_over_equals_and_leaves_the_dear_one_alone() -> None:
    equals = [replace(PLAIN, peer=f"p{n}") for n in range(5)]
    dear = replace(PLAIN, peer="dear", prices=Prices(1_000_000, 0, 11_000_000))
    draw = random.Random(7).randrange
    taken = Counter(choose(rank([*equals, dear], NEED), draw).candidate.peer for _ in range(500))
    assert set(taken) == {f"p{n}" for n in range(5)}
    assert min(taken.values()) > 50


def test_free_providers_are_equals() -> None:
    free = [replace(PLAIN, peer=f"p{n}", prices=Prices(0, 0, 0)) for n in range(2)]
    assert choose(rank(free, NEED), lambda n: n - 1).candidate.peer == "p1"


@given(
    st.lists(
        st.builds(
            Candidate,
            peer=st.uuids().map(str),
            prices=st.builds(Prices, *[st.integers(0, 1 << 53)] * 3),
            ttft_ms=st.integers(0, 1 << 63),
            tokens_per_s=st.integers(0, 1 << 63),
            rtt_ms=st.integers(0, 10_000),
            slots_free=st.integers(0, 1 << 63),
        ),
        min_size=1,
        max_size=8,
    ),
    st.integers(0, 1 << 40),
    st.randoms(use_true_random=False),
)
def test_the_choice_is_never_more_than_a_few_per_cent_from_the_best(
    candidates: list[Candidate], nano_per_second: int, chance: random.Random
) -> None:
    ranked = rank(candidates, replace(NEED, nano_per_second=nano_per_second))
    assert [s.total_nano for s in ranked] == sorted(s.total_nano for s in ranked)
    chosen = choose(ranked, chance.randrange)
    assert chosen.total_nano * 100 <= ranked[0].total_nano * 103


def test_experience_counts_more_than_promises() -> None:
    need = replace(NEED, nano_per_second=1000)
    known = replace(PLAIN, standing=Standing(failure_permille=500, ttft_percent=300, rate_percent=50))
    found = score(known, need)
    assert found.ttft_ms == 2 * 40 + 3 * 200
    assert found.expected_ms == 680 + 4000
    assert found.risk_nano == 1100 + 4680, "one of two fails, so each answer is asked for twice"
    hopeless = score(replace(PLAIN, standing=Standing(1000, 100, 0)), need)
    assert hopeless.risk_nano == 9 * (hopeless.tokens_nano + hopeless.time_nano)


@pytest.mark.parametrize(
    ("change", "need", "why"),
    [
        ({}, {}, None),
        ({}, {"block": {"other"}, "allow": {"plain"}}, None),
        ({}, {"block": {"plain"}, "allow": {"plain"}}, Objection.BLOCKED),
        ({}, {"allow": {"other"}}, Objection.NOT_ALLOWED),
        ({}, {"tier": "attested"}, Objection.TIER),
        ({"tier": "attested"}, {"tier": "attested"}, None),
        ({"tier": "attested"}, {"tier": "open"}, None),
        ({"features": ("tools", "json")}, {"features": {"json"}}, None),
        ({"features": ("tools",)}, {"features": {"json", "tools"}}, Objection.FEATURE),
        ({}, {"prices_max": PLAIN.prices}, None),
        ({}, {"prices_max": Prices(1 << 40, 1 << 40, 9_999_999)}, Objection.PRICE),
    ],
)
def test_hard_limits(change: dict[str, Any], need: dict[str, Any], why: Objection | None) -> None:
    assert objection(replace(PLAIN, **change), replace(NEED, **need)) == why


def test_full_ones_are_dropped_unless_all_are() -> None:
    full, dear = replace(PLAIN, peer="full", slots_free=0), replace(PLAIN, peer="dear", prices=Prices(2, 2, 1 << 40))
    capped = replace(NEED, prices_max=PLAIN.prices)
    assert sift([full, PLAIN, dear], capped) == ([PLAIN], [(full, Objection.FULL), (dear, Objection.PRICE)])
    assert sift([full, dear], capped) == ([full], [(dear, Objection.PRICE)]), "it can say when it will not be"
    assert [s.candidate for s in rank([full, PLAIN, dear], NEED)] == [PLAIN, dear]


def test_whoever_failed_too_often_is_asked_only_when_nobody_else_is_left() -> None:
    often = Standing(failure_permille=DISTRUSTED_PERMILLE)
    cheat = replace(PLAIN, peer="cheat", prices=Prices(0, 0, 0), standing=often)
    seldom = replace(PLAIN, standing=Standing(failure_permille=DISTRUSTED_PERMILLE - 1), slots_free=0)
    assert sift([cheat, seldom], NEED) == ([seldom], [(cheat, Objection.DISTRUSTED)])
    assert sift([cheat], NEED) == ([cheat], [])


def test_a_conversation_stays_where_its_cache_is_unless_that_is_much_dearer() -> None:
    def dearer(percent: int) -> Candidate:
        return replace(PLAIN, peer="warm", prices=PLAIN.prices.scaled(100 + percent, 100), warm=True)

    def no_draw(_: int) -> int:
        raise AssertionError("it is not left to chance")

    ranked = rank([PLAIN, dearer(15)], NEED)
    chosen = choose(ranked, no_draw)
    assert chosen.candidate.warm
    assert explain(chosen, ranked) == "it has this conversation in its cache"
    assert choose(rank([PLAIN, dearer(17)], NEED), lambda _: 0).candidate is PLAIN


def test_why_there_is_nobody_is_counted_and_the_lowest_price_named() -> None:
    blocked, dear = LeftOut(PLAIN, Objection.BLOCKED), LeftOut(PLAIN, Objection.PRICE)
    dearer = LeftOut(replace(PLAIN, prices=Prices(1 << 30, 0, 1 << 30)), Objection.PRICE)
    assert str(nobody([blocked, blocked, LeftOut(PLAIN, Objection.TIER)])) == (
        "no provider that was found will do: on your block list (2); nothing proves the tier that you want (1)"
    )
    assert "price cap" in str(nobody([blocked, dearer, dear]))
    assert nobody([blocked, dearer, dear]).prices == PLAIN.prices


def test_a_channel_is_expected_to_serve_as_many_as_those_before_it() -> None:
    assert answers_expected(100, 0, 0) == 100
    assert answers_expected(100, 10, 1) == 55
    assert answers_expected(100, 50, 24) == 6


def test_presets_differ_in_what_they_take() -> None:
    slow_and_cheap = replace(PLAIN, peer="cheap", prices=Prices(500_000, 0, 5_000_000), ttft_ms=9000)
    quick_and_dear = replace(PLAIN, peer="fast", prices=Prices(2_000_000, 0, 99_000_000), ttft_ms=1, tokens_per_s=500)
    both = [PLAIN, slow_and_cheap, quick_and_dear]

    def taken(name: str) -> list[str]:
        preset = PRESETS[name]
        need = replace(NEED, nano_per_second=preset.nano_per_second, tier=preset.tier)
        return [s.candidate.peer for s in rank(both, need)][:1]

    assert {name: taken(name) for name in PRESETS} == {
        "cheap": ["cheap"],
        "balanced": ["plain"],
        "fast": ["fast"],
        "private": [],
    }


def scored(peer: str, tokens_nano: int, expected_ms: int, risk_nano: int = 0) -> Score:
    return Score(replace(PLAIN, peer=peer), tokens_nano, 0, 0, expected_ms, risk_nano=risk_nano)


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        ([], "the only one that offered"),
        ([scored("b", 11, 1)], "the cheapest for this question"),
        ([scored("b", 9, 11)], "the fastest, and worth its price"),
        ([scored("b", 9, 9)], "the best balance of price and speed"),
        ([scored("b", 9, 9, risk_nano=1)], "the one that keeps its promises"),
    ],
)
def test_the_choice_is_explained(others: list[Score], reason: str) -> None:
    chosen = scored("a", 10, 10)
    assert explain(chosen, [chosen, *others]) == reason
