"""One configuration from a file, the environment and flags; and what is said of one that is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from p2p.config import Config, load
from p2p.errors import LocalError
from p2p.protocol.price import Prices


def configure(
    tmp_path: Path, toml: str = "", environment: Mapping[str, str] | None = None, flags: Mapping[str, Any] | None = None
) -> Config:
    file = tmp_path / "bombyx.toml"
    file.write_text(toml)
    return load(file, environment or {}, flags or {})


def test_nothing_said_gives_the_defaults() -> None:
    assert load(None, {"HOME": "elsewhere", "PATH": ""}, {}) == Config()


def test_a_variable_goes_over_the_file_and_a_flag_over_both(tmp_path: Path) -> None:
    toml = 'home = "a"\n[provide]\nslots = 3\nprice_input = 1\nprice_output = 2\n'
    environment = {"BOMBYX_PROVIDE_SLOTS": "4", "BOMBYX_PROVIDE_PRICE_INPUT": "5", "BOMBYX_ASK_MODEL": "b"}
    config = configure(tmp_path, toml, environment, {"provide": {"slots": "6"}})
    assert config.home == "a"
    assert config.provide.slots == 6
    assert config.provide.prices == Prices(5, Config().provide.price_cached_input, 2)
    assert config.ask.model == "b"


def test_listening_places_are_a_list_everywhere(tmp_path: Path) -> None:
    expected = ("/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/2")
    assert configure(tmp_path, f"listen = {list(expected)}").listen == expected
    assert configure(tmp_path, environment={"BOMBYX_LISTEN": ",".join(expected)}).listen == expected
    assert configure(tmp_path, flags={"listen": list(expected)}).listen == expected


def test_a_missing_cap_caps_nothing(tmp_path: Path) -> None:
    assert Config().ask.prices_max is None
    capped = configure(tmp_path, "[ask]\nprice_max_output = 7").ask.prices_max
    assert capped is not None
    assert capped.cover(Prices(10**15, 10**15, 7))
    assert not capped.cover(Prices(0, 0, 8))


@pytest.mark.parametrize(
    ("toml", "environment", "complaint"),
    [
        ("homes = 1", {}, "there is no setting homes; see --help"),
        ("[ask]\nmodels = 1", {}, "there is no setting ask.models; see --help"),
        ("", {"BOMBYX_ASK_MODELS": "x"}, "there is no setting ask.models; see --help"),
        ("", {"BOMBYX_ASK": "x"}, "there is no setting ask; see --help"),
        ("[ask]\nmax_tokens = 0", {}, "the setting ask.max_tokens is wrong: expected `int` >= 1"),
        ("ask = 1", {}, "the setting ask is wrong: expected `object`, got `int`"),
        ("ask = 1", {"BOMBYX_ASK_MODEL": "x"}, "the setting ask is wrong: it is a section"),
        ("", {"BOMBYX_PROVIDE_SLOTS": "x"}, "the setting provide.slots is wrong: expected `int`, got `str`"),
    ],
)
def test_what_is_wrong_is_named(toml: str, environment: dict[str, str], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(LocalError) as raised:
        configure(tmp_path, toml, environment)
    assert str(raised.value) == complaint


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="not valid TOML"):
        configure(tmp_path, "[ask")
    with pytest.raises(LocalError, match="No such file"):
        load(tmp_path / "nowhere.toml", {}, {})
