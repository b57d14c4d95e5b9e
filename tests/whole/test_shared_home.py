"""Several `ask` at once on one home: each pays over a channel that is its own, and a killed one's is taken over."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from explorer import history
from local import SCRIPTED, Local
from processes import ROOT, Process, Processes
from signatures import Signature, read, turns

from chain.channel import State
from chain.ledger import Network
from chain.records import Channel, Role, open_records

DEVNET = Network("devnet", -239)

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Home:
    """One client's, and how its programs are started."""

    network: Local
    processes: Processes

    def start(self, *arguments: str) -> Process:
        """A program that signs."""
        environment = {
            "SIGNATURES": str(self._signatures),
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(Path(__file__).parent))),
            "BOMBYX_ASK_MODEL": SCRIPTED,
        }
        return self.processes.start("signatures", *arguments, *self._flags, environment=environment)

    def signed(self) -> Sequence[Signature]:
        return read(self._signatures)

    @property
    def folder(self) -> Path:
        return self.processes.directory / "me" / "client"

    @property
    def _signatures(self) -> Path:
        return self.processes.directory / "signatures"

    @property
    def _flags(self) -> tuple[str | Path, ...]:
        return ("--network", self.network.file, "--home", self.processes.directory / "me")


@pytest.fixture
def home(network: Local, processes: Processes) -> Home:
    return Home(network, processes)


def channels(folder: Path, role: Role) -> dict[str, Channel]:
    """What a book says, read beside whoever has it open."""
    with open_records(folder / "book.sqlite", role, DEVNET) as records:
        return {known.channel.hex(): known for known in records.channels()}


def paid_on_chain(home: Home, channel: str) -> int:
    """What the provider's settlements of a channel have brought it, nano, by the channel's own transactions."""
    opened, *others = history(home.network.file, channel)
    assert opened.op == "open"
    assert [each.exit_code for each in others] == [0] * len(others)
    settled = [each for each in others if each.op == "settle"]
    return sum(each.before_nano - each.after_nano - each.rent_nano for each in settled)


def settled(text: str, channel: str) -> int:
    """What a provider's lines, those that are whole, say of a channel."""
    records = map(json.loads, text[: text.rfind("\n") + 1].splitlines())
    totals = [one["settled_nano"] for one in records if one["event"] == "settled" and one["channel"] == channel]
    return max(totals, default=0)


def test_three_at_once_all_succeed_and_no_two_hold_one_channel(home: Home) -> None:
    asking = [home.start("ask", f"What is silk, {n}?", "--max-tokens", "8", "--faucet", "--json") for n in range(3)]
    answers = [each.wait().result for each in asking]
    assert all(answer["answer"] for answer in answers)
    costs: dict[str, int] = {}
    for answer in answers:
        costs[answer["channel"]] = costs.get(answer["channel"], 0) + answer["cost_nano"]
    signed = home.signed()
    assert {one.pid for one in signed} == {each.pid for each in asking}
    for channel in costs:
        who = turns(signed, channel)
        assert len(who) == len(set(who)), "two processes signed for one channel by turns"

    seller = home.network.provider
    seller.process.said(lambda text: all(settled(text, channel) == cost for channel, cost in costs.items()))
    ours, theirs = channels(home.folder, "payer"), channels(seller.home / "provider", "payee")
    assert ours.keys() == costs.keys()
    for channel, cost in costs.items():
        for each in (ours[channel], theirs[channel]):
            assert each.authorised_nano == each.delivered_nano == cost
        assert theirs[channel].settled_nano == paid_on_chain(home, channel) == cost


def test_the_channel_of_a_killed_process_is_taken_over_without_loss(home: Home) -> None:
    killed = home.start("ask", "Tell me a story.", "--faucet")
    killed.said(lambda text: len(text.split()) > 20)
    killed.signal(signal.SIGKILL)
    told = killed.wait().out
    after = home.start("ask", "What is silk?", "--max-tokens", "8", "--json", "--close").wait().result

    signed = home.signed()
    assert {one.channel for one in signed} == {after["channel"]}
    first, second = ([one for one in signed if one.pid == pid] for pid in turns(signed, after["channel"]))
    assert second[0].total_nano >= first[-1].total_nano > 0, "it goes on from the highest total"
    paid_nano = after["authorised_nano"] - after["cost_nano"]
    received_nano = len(told.split()) * after["price"]["output"] // 10**6
    assert abs(paid_nano - received_nano) <= after["window_nano"]

    (ours,) = channels(home.folder, "payer").values()
    theirs = channels(home.network.provider.home / "provider", "payee")[after["channel"]]
    assert ours.state is State.CLOSED
    assert ours.authorised_nano == theirs.authorised_nano == after["authorised_nano"]
    assert ours.settled_nano == theirs.settled_nano == after["delivered_nano"] == paid_on_chain(home, after["channel"])
    assert list(home.folder.glob("book.sqlite.leases/*")) == []
