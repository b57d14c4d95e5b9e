"""A provider is killed in mid-answer and another, to which a channel is open, goes on: what reader and books say."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from local import CHEAP, SCRIPTED, Local, start_provider
from processes import Processes

from inference.engine import Delta, Message, Request
from inference.script import answer

QUESTION = "Tell me of the whole life of a moth."  # the scripted answer has 300 words, at 100 a second
WHOLE = "".join(
    item.text
    for item in answer(Request(model=SCRIPTED, messages=(Message("user", QUESTION),), max_tokens=1000))
    if isinstance(item, Delta)
)
BARGAIN = ("--price-input", "1000000", "--price-output", "1000000")


def traced(path: Path, kind: str, **fields: object) -> list[dict[str, Any]]:
    """The client's records of that kind with those fields."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [record for record in records if {"kind": kind, **fields}.items() <= record.items()]


@pytest.mark.slow
def test_after_kill_9_the_next_provider_goes_on_and_each_is_paid_for_its_part(
    network: Local, processes: Processes, tmp_path: Path
) -> None:
    standby, trace = network.provider, tmp_path / "trace.jsonl"
    mine = ("--network", network.file, "--home", tmp_path / "me")
    ask = ("ask", QUESTION, "--model", SCRIPTED, *mine)
    before = processes.run("p2p.node", *ask, "--max-tokens", "8", "--json", "--faucet").result
    assert before["provider"] == standby.peer
    cheap = start_provider(processes, network.file, "cheap", *CHEAP, *BARGAIN)

    asking = processes.start("p2p.node", *ask, "--max-tokens", "1000", "--trace", trace)
    asking.said(lambda text: len(text.split()) > 40)
    cheap.process.signal(signal.SIGKILL)
    done = asking.wait()
    assert (done.code, done.out) == (0, WHOLE + "\n")
    assert f"agreed with …{cheap.peer[-6:]}" in done.err
    assert f"provider …{cheap.peer[-6:]} fell silent" in done.err
    assert f"…{standby.peer[-6:]} goes on from here" in done.err

    (failed,) = traced(trace, "answer_failed", peer=cheap.peer)
    went_on = next(
        record["t_us"]
        for record in traced(trace, "heard", message="Delta", peer=standby.peer)
        if record["t_us"] > failed["t_us"]
    )
    assert went_on - failed["t_us"] < 2_000_000
    (opening,) = traced(trace, "opening")
    assert opening["t_us"] < failed["t_us"], "the channel to the one that goes on was open before"

    # It comes back. By then both sides know of everything that was signed before.
    cheap = start_provider(processes, network.file, "cheap", *CHEAP, *BARGAIN)
    after = processes.run("p2p.node", *ask, "--max-tokens", "8", "--json").result
    assert after["provider"] == cheap.peer
    (cost,) = re.findall(r"^cost .*\(([\d,]+) nano\)$", done.err, re.MULTILINE)
    parts = [int(nano.replace(",", "")) for nano in re.findall(r"^part by .*\(([\d,]+) nano\)", done.err, re.MULTILINE)]
    assert sum(parts) == int(cost.replace(",", ""))
    ours = {channel["channel"]: channel for channel in processes.run("p2p.node", "channels", "--json", *mine).result}
    for provider, others_nano, part in ((cheap, after["cost_nano"], 0), (standby, before["cost_nano"], 1)):
        book = ("channels", "--provider", "--json", "--network", network.file, "--home", provider.home)
        theirs = next(each for each in processes.run("p2p.node", *book).result if each["channel"] in ours)
        mine_of_it = ours[theirs["channel"]]
        assert mine_of_it["delivered_nano"] == theirs["delivered_nano"] == others_nano + parts[part] > others_nano
        assert mine_of_it["authorised_nano"] == theirs["authorised_nano"] >= theirs["delivered_nano"]
    cheap.process.close_stdin()
    assert cheap.process.wait().code == 0
