"""What a provider gives away: which limits an answer counts in, and what is said where one is reached."""

from __future__ import annotations

import pytest

from p2p.errors import Refused
from p2p.protocol.allowance import ALWAYS, DAY_S, Allowance, Bucket, Left, day, slots_to_give

NOW = 20_000 * DAY_S + 3600.5


def test_an_answer_counts_for_its_client_for_ever_and_for_its_address_and_everybody_for_a_day() -> None:
    allowance = Allowance(per_client=100, per_address=300, per_day=1000)
    assert allowance.buckets("peer", "192.0.2.1", NOW) == (
        Bucket("client peer", ALWAYS, 100),
        Bucket("from 192.0.2.1", 20_000, 300),
        Bucket("everybody", 20_000, 1000),
    )
    assert day(NOW + DAY_S) == 20_001


@pytest.mark.parametrize(
    ("allowance", "tokens"),
    [
        (Allowance(), 0),
        (Allowance(100, 300, 1000), 100),
        (Allowance(100, 30, 1000), 30),
        (Allowance(100, 300, 0), 0),
    ],
)
def test_a_newcomer_may_hope_for_what_every_limit_allows(allowance: Allowance, tokens: int) -> None:
    assert allowance.tokens == tokens


def test_what_fits_is_given() -> None:
    Left(50, 60, 70).require(50, NOW)


@pytest.mark.parametrize(
    ("left", "said", "retry_after_s"),
    [
        (Left(49, 60, 70), "49 free tokens are left for you, and this may take 50", None),
        (Left(-3, 0, 70), "no free tokens are left for you, and this may take 50", None),  # the limit was lowered
        (Left(90, 12, 70), "12 free tokens are left today for your address, and this may take 50", DAY_S - 3600),
        (Left(90, 80, 7), "7 free tokens are left today for anybody, and this may take 50", DAY_S - 3600),
        (Left(90, 0, 7), "no free tokens are left today for your address, and this may take 50", DAY_S - 3600),
    ],
)
def test_a_refusal_says_what_is_left_for_whom_and_when_there_is_more(
    left: Left, said: str, retry_after_s: int | None
) -> None:
    with pytest.raises(Refused) as caught:
        left.require(50, NOW)
    assert str(caught.value) == f"{said}: ask for less, or pay"
    assert (caught.value.reason, caught.value.retry_after_s) == ("no_allowance", retry_after_s)


def test_half_of_the_slots_may_be_given_away_and_the_only_one() -> None:
    assert [slots_to_give(total) for total in (1, 2, 3, 8)] == [1, 1, 1, 4]
