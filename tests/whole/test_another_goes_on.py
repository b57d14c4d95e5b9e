"""A provider is killed in mid-answer and another, to which a channel is open, goes on: what reader and books say."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
from contextlib import closing
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


def amounts(home: Path) -> dict[bytes, tuple[int, int]]:
    """What a book says of each channel: authorised and delivered."""
    (path,) = home.rglob("book.sqlite")
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        rows = db.execute("SELECT channel, authorised_nano, delivered_nano FROM channels")
        return {channel: (authorised_nano, delivered_nano) for channel, authorised_nano, delivered_nano in rows}


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
    asking.said(lambda text: len(text.split()) > 80)
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
    ours = amounts(tmp_path / "me")
    paid_nano = []
    for provider, other in ((cheap, after), (standby, before)):
        theirs = amounts(provider.home)
        (channel,) = ours.keys() & theirs.keys()
        assert ours[channel] == theirs[channel]
        authorised_nano, delivered_nano = ours[channel]
        assert authorised_nano >= delivered_nano
        paid_nano.append(delivered_nano - other["cost_nano"])
    assert paid_nano[1] == parts[1]
    # One that is killed may forget up to a window of what it delivered: that stays ours.
    assert max(1, parts[0] - after["window_nano"]) <= paid_nano[0] <= parts[0]
    cheap.process.close_stdin()
    assert cheap.process.wait().code == 0
