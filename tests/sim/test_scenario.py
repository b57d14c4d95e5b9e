"""Scenarios are typed, and refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_world import small_toml, small_world

from sim.errors import ScenarioError
from sim.kernel import Kernel
from sim.run import simulate
from sim.scenario import Lognormal, known_scenarios, load_scenario, parse_scenario


def test_first_day_has_two_hundred_peers_for_an_hour() -> None:
    scenario = load_scenario("first_day")
    assert scenario.clients.count + scenario.providers.count == 200
    assert scenario.duration_s == 3600
    assert scenario.name == "first_day"


def test_every_scenario_that_ships_loads_under_its_own_name() -> None:
    assert [load_scenario(name).name for name in known_scenarios()] == known_scenarios()


def test_a_scenario_of_ones_own_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(small_toml(), encoding="utf-8")
    assert load_scenario(str(path)) == small_world()


@pytest.mark.parametrize(
    ("name", "says"),
    [("second_day", "unknown scenario 'second_day'.*first_day"), ("no/such.toml", "cannot read no/such.toml")],
)
def test_what_is_not_there_is_named(name: str, says: str) -> None:
    with pytest.raises(ScenarioError, match=says):
        load_scenario(name)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (small_toml() + "typo = 1\n", "unknown field `typo`"),
        (small_toml(deposit_nano="-1"), r"\$.clients.deposit_nano"),
        (small_toml(quotes="0"), r"\$.clients.quotes"),
        (small_toml(dying_percent="101"), r"\$.faults.dying_percent"),
        (small_toml(slots="[]"), r"\$.providers.slots"),
        (small_toml(confirm_s="{ least = 2.0, most = 1.0 }"), "`least` is above `most`"),
        (small_toml().replace("seed = 1\n", ""), "seed"),
        ("name = [", "mine"),
    ],
)
def test_a_bad_scenario_is_one_line(text: str, says: str) -> None:
    with pytest.raises(ScenarioError, match=says) as raised:
        parse_scenario(text.encode(), "mine.toml")
    assert "\n" not in str(raised.value)


def test_an_unknown_region_is_refused_before_anything_runs() -> None:
    text = small_toml().replace('"Japan East"', '"Atlantis"')
    with pytest.raises(ScenarioError, match="Atlantis"):
        simulate(parse_scenario(text.encode(), "mine.toml"), 1)


def test_lognormal_has_its_median_and_its_bounds() -> None:
    chance, sizes = Kernel(1).stream("sizes"), Lognormal(median=100, sigma=1.0, most=500)
    drawn = [sizes.draw(chance) for _ in range(4000)]
    assert 90 < sorted(drawn)[2000] < 110
    assert max(drawn) == 500
    assert min(drawn) >= 1
