"""Bulk demand on the command line: a price for many answers ahead, which holds for who has it, and after a restart."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from local import CHEAP, SCRIPTED, Local, start_provider
from processes import Done, Processes

BULK = (*CHEAP, "--price-output", "100000000", "--bulk-discount-percent", "20")


@pytest.mark.slow
def test_a_standing_quote_is_used_by_the_next_questions_and_survives_its_provider(
    network: Local, processes: Processes, tmp_path: Path
) -> None:
    bulk = start_provider(processes, network.file, "bulk", *BULK)

    def run(*arguments: str | Path, home: Path = tmp_path / "me") -> Done:
        return processes.run("p2p.node", *arguments, "--network", network.file, "--home", home)

    def ask(*flags: str) -> Done:
        return run("ask", "What is silk?", "--model", SCRIPTED, "--max-tokens", "20", "--faucet", *flags)

    demand = ("demand", "--model", SCRIPTED, "--per-day", "3", "--output-tokens", "20")
    (held,) = run(*demand, "--json").result
    assert (held["provider"], held["uses_left"], held["prices"]["output"]) == (bulk.peer, 3, 80_000_000)

    first = ask("--json").result
    assert (first["provider"], first["price"]["output"], first["providers_found"]) == (bulk.peer, 80_000_000, 0)
    assert [row["standing_quote"] for row in first["ranking"]] == [True]
    assert "standing quote" in ask("--explain").err
    (given,) = run("demand", "list", "--provider", "--json", home=bulk.home).result
    assert (given["quote"], given["client"], given["uses_left"]) == (held["quote"], first["client"], 1)

    bulk.process.signal(signal.SIGKILL)
    bulk = start_provider(processes, network.file, "bulk", *BULK)
    third = ask("--json").result
    assert (third["provider"], third["price"]["output"]) == (bulk.peer, 80_000_000)
    assert "No standing quotes." in run("demand", "list").out, "it is used up"
