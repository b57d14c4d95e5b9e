"""The only provider is killed in the middle of its answer: what that costs, and what is left of it."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

import pytest
from local import Local, start_provider
from processes import Processes

LONG = "Write a very long story about a silk moth, with every detail of every day of its life."


def advance(network: Local, seconds: int) -> None:
    """Move the devnet's clock on."""
    host, _, port = json.loads(network.file.read_text())["chain"]["bombyx"]["control"].rpartition(":")
    with socket.create_connection((host, int(port))) as control, control.makefile() as replies:
        control.sendall(json.dumps({"command": "advance", "seconds": seconds}).encode() + b"\n")
        assert json.loads(replies.readline())["error"] == ""


@pytest.mark.slow
def test_a_provider_killed_in_mid_answer_costs_one_window_and_no_more(
    network: Local, processes: Processes, tmp_path: Path
) -> None:
    chosen = start_provider(processes, network.file, "one", "--challenge-period-s", "60")
    assert len(processes.living()) == 2  # it has a process for its engine
    mine = ("--network", network.file, "--home", tmp_path / "me")
    short = ("ask", "What is silk?", "--max-tokens", "8", "--json", *mine)
    before = processes.run("p2p.node", *short, "--faucet").result
    assert before["provider"] == chosen.peer

    asking = processes.start("p2p.node", "ask", LONG, "--max-tokens", "1000", *mine)
    begun = asking.said(lambda text: text if len(text.split()) > 5 else "")
    assert asking.err.wait(lambda text: f"agreed with …{chosen.peer[-6:]}" in text)  # a channel is open there already
    chosen.process.signal(signal.SIGKILL)
    failed = asking.wait()
    assert failed.code == 1
    assert failed.out.startswith(begun)  # what came is kept
    assert failed.out.endswith("\n")  # so that what is said next stands on a line of its own
    assert "Traceback" not in failed.err
    assert [line for line in failed.err.splitlines() if line.startswith("bombyx:")] == failed.err.splitlines()[-1:]
    assert "went away in the middle of the answer; only what came is paid for: ask again" in failed.err
    assert "nobody goes on" in failed.err

    (channel,) = processes.run("p2p.node", "channels", "--json", *mine).result
    assert (channel["channel"], channel["state"]) == (before["channel"], "open")
    assert channel["delivered_nano"] > before["delivered_nano"]
    assert channel["authorised_nano"] - channel["delivered_nano"] <= before["window_nano"]

    other = start_provider(processes, network.file, "other", "--challenge-period-s", "60")
    after = processes.run("p2p.node", *short).result
    assert after["provider"] == other.peer
    assert after["answer"]
    assert after["authorised_nano"] == after["delivered_nano"] > 0

    # It never comes back, and what was not spent does all the same.
    held_nano = processes.run("p2p.node", "wallet", "--json", *mine).result["balance_nano"]
    assert processes.run("p2p.node", "channels", "start-close", channel["channel"], *mine).code == 0
    early = processes.run("p2p.node", "channels", "finalise", channel["channel"], *mine)
    assert early.code == 1
    assert "the challenge period is not over" in early.complaint
    advance(network, 61)
    assert processes.run("p2p.node", "channels", "finalise", channel["channel"], *mine).code == 0
    returned_nano = processes.run("p2p.node", "wallet", "--json", *mine).result["balance_nano"] - held_nano
    assert channel["deposited_nano"] - 5_000_000 < returned_nano  # but for fees

    other.process.close_stdin()
    assert other.process.wait().code == 0
    assert processes.left() == []
