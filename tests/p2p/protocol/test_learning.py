"""Choice and reputation together: a client that asks again and again learns whom not to ask."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

import msgspec
import pytest

from p2p.protocol.market import Candidate, Need, choose, rank
from p2p.protocol.price import Prices, Tokens
from p2p.protocol.reputation import Evidence, Kind, standing, weigh

NEED = Need(Tokens(input=400, output=200), nano_per_second=1_000)
LIST = Prices(60_000_000, 30_000_000, 180_000_000)
EVERY_S = 600
KEPT = 100
PERCENT = {"fair": 100, "fair-too": 101, "dearer": 130, "slow": 100, "dying": 97, "liar": 85}
PROMISED = Evidence(
    at=0,
    kind=Kind.ANSWERED,
    tokens=200,
    ttft_ms=200,
    promised_ttft_ms=200,
    tokens_per_s=50,
    promised_tokens_per_s=50,
)


def what_comes(provider: str, at: int, chance: random.Random) -> Evidence:
    """How each of them behaves."""
    match provider:
        case "slow":
            return msgspec.structs.replace(PROMISED, at=at, ttft_ms=2000, tokens_per_s=5)
        case "dying" if chance.random() < 0.3:
            return msgspec.structs.replace(PROMISED, at=at, kind=Kind.BROKE_OFF)
        case "liar":
            return msgspec.structs.replace(PROMISED, at=at, kind=Kind.MISCOUNTED, code="overcount")
        case _:
            return msgspec.structs.replace(PROMISED, at=at)


def asked(answers: int, seed: int) -> list[str]:
    """Who was taken for each answer."""
    chance, taken = random.Random(seed), []
    seen: defaultdict[str, list[Evidence]] = defaultdict(list)
    for number in range(answers):
        now = number * EVERY_S
        candidates = [
            Candidate(
                peer,
                LIST.scaled(percent, 100),
                ttft_ms=200,
                tokens_per_s=50,
                rtt_ms=40,
                slots_free=1,
                standing=standing(weigh(seen[peer], now)),
            )
            for peer, percent in PERCENT.items()
        ]
        taken.append(choose(rank(candidates, NEED), chance.randrange).candidate.peer)
        seen[taken[-1]] = [*seen[taken[-1]], what_comes(taken[-1], now, chance)][-KEPT:]
    return taken


@pytest.mark.parametrize("seed", [0, 1])
def test_liars_and_those_that_fail_lose_their_customers_and_the_fair_share_them(seed: int) -> None:
    late = Counter(asked(400, seed)[-100:])
    assert late["liar"] < 5
    assert late["slow"] < 5
    assert late["dying"] < 10
    assert late["dearer"] == 0
    assert late["fair-too"] > 10, "as good as the best: taken when drawn twice"


def test_one_seed_makes_one_sequence_of_choices() -> None:
    assert asked(100, 7) == asked(100, 7)
