"""Where peers are, and how long a message takes from one place to another.

One way is half the regions' round trip, plus both access links, plus jitter. The round trips are a cloud's (see
data/rtt_ms.csv), which knows no access link; the last mile is drawn for each peer.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import NamedTuple

from sim.errors import ScenarioError
from sim.scenario import Range

# Not in the table: two data centres of one region.
SAME_REGION_RTT_MS = 2.0

Matrix = Mapping[str, Mapping[str, float]]


class Place(NamedTuple):
    """One peer's region and the one-way delay of its access link."""

    region: str
    last_mile_ms: float


def load_matrix(regions: Sequence[str]) -> Matrix:
    """Round trips in ms between `regions`. A pair measured one way only serves for both.

    Raises `ScenarioError` for a region that the table lacks, or a pair that nobody measured.
    """
    table = _read_table()
    for region in regions:
        if region not in table:
            raise ScenarioError(f"unknown region {region!r}: see sim/data/rtt_ms.csv")
    return {here: {there: _rtt_ms(table, here, there) for there in regions} for here in regions}


def one_way_s(matrix: Matrix, here: Place, there: Place) -> float:
    """Seconds from one place to another, without jitter."""
    return (matrix[here.region][there.region] / 2 + here.last_mile_ms + there.last_mile_ms) / 1000


def draw_place(weights: Mapping[str, float], last_mile_ms: Range, chance: random.Random) -> Place:
    """A region by its weight, an access link within its range."""
    (region,) = chance.choices(list(weights), list(weights.values()))
    return Place(region, last_mile_ms.draw(chance))


def _read_table() -> dict[str, dict[str, str]]:
    text = files("sim").joinpath("data/rtt_ms.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return {row["Source"]: row for row in rows}


def _rtt_ms(table: Mapping[str, Mapping[str, str]], here: str, there: str) -> float:
    if here == there:
        return SAME_REGION_RTT_MS
    measured = table[here].get(there) or table[there].get(here)
    if not measured:
        raise ScenarioError(f"nobody measured the round trip between {here!r} and {there!r}")
    return float(measured)
