"""What the settings of a demand come to."""

from __future__ import annotations

from typing import Any

import pytest

from p2p.config import load
from p2p.demand_command import wanted_by
from p2p.errors import LocalError
from p2p.protocol.allowance import DAY_S
from p2p.protocol.demand import Wanted
from p2p.protocol.price import Prices

NOW = 1_800_000_000.5  # 2027-01-15, 8 o'clock in UTC
MORNING_S = 8 * 3600


def wanted(ask: dict[str, Any] | None = None, **demand: Any) -> Wanted:
    return wanted_by(load(None, {}, {"ask": ask or {}, "demand": {"per_day": "10"} | demand}), NOW)


@pytest.mark.parametrize(
    ("ask", "demand", "said"),
    [
        ({"model": "a"}, {}, {"model": "a", "family": "", "until": int(NOW) + DAY_S}),
        ({"model": "a"}, {"model": "b"}, {"model": "b", "input_tokens": 500, "output_tokens": 200}),
        ({"model": "a"}, {"family": "f", "tier": "attested"}, {"model": "", "family": "f", "tier": "attested"}),
        ({}, {"until": "2027-01-15"}, {"until": int(NOW) + DAY_S - MORNING_S}),
        ({}, {"until": "2027-01-16"}, {"until": int(NOW) + 2 * DAY_S - MORNING_S}),
        ({}, {}, {"prices_max": None}),
        ({"price_max_output": 7}, {}, {"prices_max": Prices(1 << 53, 1 << 53, 7)}),
        ({"price_max_output": 7}, {"price_max_input": 5}, {"prices_max": Prices(5, 5, 1 << 53)}),
    ],
)
def test_a_demand_is_made_of_its_settings(ask: dict[str, Any], demand: dict[str, Any], said: dict[str, Any]) -> None:
    found = wanted(ask, **demand)
    assert {name: getattr(found, name) for name in said} == said


@pytest.mark.parametrize(
    ("demand", "words"),
    [
        ({"model": "m", "family": "f"}, "a model or a family, not both"),
        ({"per_day": "0"}, "--per-day N"),
        ({"until": "2027-01-14"}, "2027-01-14, is over"),
        ({"until": "soon"}, "the setting demand.until is wrong: write a day as 2027-01-31"),
    ],
)
def test_what_nobody_could_answer_is_said(demand: dict[str, Any], words: str) -> None:
    with pytest.raises(LocalError, match=words):
        wanted(**demand)
