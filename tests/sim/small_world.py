"""first_day made small: the same rules for a dozen peers and a quarter of an hour, in a second or two."""

from __future__ import annotations

from importlib.resources import files

from sim.scenario import Scenario, parse_scenario

_CHANGES = {
    "count = 160": "count = 16",
    "count = 40": "count = 6",
    "duration_s = 3600.0": "duration_s = 900.0",
    "requests_per_hour = 8.0": "requests_per_hour = 30.0",
    "dying_percent = 25": "dying_percent = 100",
    "downtime_s = 600.0": "downtime_s = 60.0",
}


def small_toml(**changes: str) -> str:
    """The scenario's text; `changes` replace the values of keys, named as in the file."""
    text = files("sim").joinpath("data/scenarios/first_day.toml").read_text(encoding="utf-8")
    for old, new in _CHANGES.items():
        assert text.count(f"\n{old}\n") == 1, old
        text = text.replace(f"\n{old}\n", f"\n{new}\n")
    for key, value in changes.items():
        (line,) = (line for line in text.splitlines() if line.startswith(f"{key} = "))
        text = text.replace(line, f"{key} = {value}")
    return text


def small_world(**changes: str) -> Scenario:
    return parse_scenario(small_toml(**changes).encode(), "small")
