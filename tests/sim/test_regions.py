"""Places and delays."""

from __future__ import annotations

import csv
from importlib.resources import files

import pytest

from sim.errors import ScenarioError
from sim.kernel import Kernel
from sim.regions import SAME_REGION_RTT_MS, Place, draw_place, load_matrix, one_way_s
from sim.scenario import Range


def test_delay_is_half_a_round_trip_and_both_access_links() -> None:
    matrix = load_matrix(["East US", "Japan East"])
    assert matrix["East US"]["Japan East"] == 163
    here, there = Place("East US", 10.0), Place("Japan East", 20.0)
    assert one_way_s(matrix, here, there) == pytest.approx((163 / 2 + 10 + 20) / 1000)
    assert one_way_s(matrix, here, here) == pytest.approx((SAME_REGION_RTT_MS / 2 + 20) / 1000)


def test_a_pair_measured_one_way_serves_for_both() -> None:
    """West India is a column of the table and no row, so look up a pair with a blank."""
    text = files("sim").joinpath("data/rtt_ms.csv").read_text(encoding="utf-8")
    rows = {row["Source"]: row for row in csv.DictReader(x for x in text.splitlines() if not x.startswith("#"))}
    here, there = next((a, b) for a in rows for b in rows if a != b and not rows[a].get(b) and rows[b].get(a))
    matrix = load_matrix([here, there])
    assert matrix[here][there] == matrix[there][here] == float(rows[there][here])


def test_unknown_region_is_refused() -> None:
    with pytest.raises(ScenarioError, match="'Atlantis'"):
        load_matrix(["East US", "Atlantis"])


def test_regions_are_drawn_by_weight() -> None:
    chance, link = Kernel(1).stream("places"), Range(least=3.0, most=5.0)
    places = [draw_place({"rare": 1.0, "common": 9.0}, link, chance) for _ in range(2000)]
    assert 100 < sum(place.region == "rare" for place in places) < 300
    assert all(3.0 <= place.last_mile_ms <= 5.0 for place in places)
