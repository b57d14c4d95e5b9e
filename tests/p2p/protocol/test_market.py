"""Which provider to take, and why."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.errors import Refused
from p2p.protocol.market import Candidate, Need, Score, choose, explain, rank, score
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


def test_a_score_is_the_sum_of_tokens_opening_and_time() -> None:
    need = replace(NEED, nano_per_second=1000, answers_per_channel=3)
    found = score(replace(PLAIN, opening_fee_nano=1000), need)
    assert found.tokens_nano == 100 + 1000
    assert found.opening_nano == 334
    assert found.expected_ms == 2 * 40 + 200 + 2000
    assert found.time_nano == 2280
    assert found.total_nano == 1100 + 334 + 2280


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


def scored(peer: str, tokens_nano: int, expected_ms: int) -> Score:
    return Score(replace(PLAIN, peer=peer), tokens_nano, 0, 0, expected_ms)


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        ([], "the only one that offered"),
        ([scored("b", 11, 1)], "the cheapest for this question"),
        ([scored("b", 9, 11)], "the fastest, and worth its price"),
        ([scored("b", 9, 9)], "the best balance of price and speed"),
    ],
)
def test_the_choice_is_explained(others: list[Score], reason: str) -> None:
    chosen = scored("a", 10, 10)
    assert explain(chosen, [chosen, *others]) == reason
