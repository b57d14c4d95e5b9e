"""What a provider earned, shown while it goes on serving, and what its watchtower would be given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from here import here
from local import SCRIPTED, Local
from processes import Done, Processes


@pytest.mark.slow
def test_earnings_are_shown_by_day_and_model_while_the_provider_serves(
    network: Local, processes: Processes, tmp_path: Path
) -> None:
    client = ("--network", network.file, "--home", tmp_path / "client")
    asked = processes.run("p2p.node", "ask", "What is silk?", "--model", SCRIPTED, "--json", "--faucet", *client)
    channel = asked.result["channel"]
    settled = network.provider.process.said(
        lambda text: [
            one for one in map(json.loads, text.splitlines()) if one.get("channel") == channel and "why" in one
        ]
    )
    assert settled[0]["why"] == "more is unsettled than the limit"

    def provider(*arguments: str | Path) -> Done:
        return here(processes, *arguments, "--network", network.file, "--home", network.provider.home)

    told = provider("earnings", "--json").result
    of_channels = provider("channels", "--provider", "--json").result
    (models,) = {(each["model"], each["earned_nano"] == each["settled_nano"]) for each in told["models"]}
    assert models == (SCRIPTED, True)
    assert told["settled_nano"] == sum(each["settled_nano"] for each in of_channels)
    assert sum(day["fee_nano"] for day in told["fees"]) == told["fee_nano"] >= settled[0]["fee_nano"] > 0
    shown = provider("earnings").out
    assert SCRIPTED in shown
    assert f"({told['settled_nano']:,} nano)" in shown
    assert f"({told['fee_nano']:,} nano)" in shown
    assert [each["session"] for each in provider("receipts", "--provider", "--json").result]


@pytest.mark.slow
def test_nothing_earned_is_said_and_a_wrong_path_for_a_watchtower_too(
    network: Local, processes: Processes, tmp_path: Path
) -> None:
    mine = ("--network", network.file, "--home", tmp_path / "new")
    empty = here(processes, "earnings", *mine)
    assert empty.code == 0, empty.err
    assert "Nothing was sold yet." in empty.out
    for options, complaint in (((), "there is no book"), (("--charges", tmp_path / "none"), "No such file")):
        failed = here(processes, "watch", *options, *mine)
        assert failed.code == 2
        assert complaint in failed.complaint
