"""Kills providers and clients with SIGKILL in the middle of paid answers, and counts what it cost whom.

A real network on this machine: a devnet, a bootstrap peer, and lanes of one provider and one client each, who pays
several answers at once over one channel. Per kill: wait until answers are under way, strike one of the two at a random
moment, start it again on its home, and wait until both have agreed over one more answer.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from explorer import history
from local import SCRIPTED, Bare, start_bare
from ports import free_port
from processes import ROOT, Process, Processes

from p2p.config import ProvideConfig

STRIKE_WITHIN_S = 1.2  # of the moment at which answers are under way; one takes about a second
LOOK_EVERY_S = 0.02
AGREE_LIMIT_S = 120.0
AT_ONCE = 3  # answers of a client
EXPOSURE_MAX_NANO = ProvideConfig().window_cap_nano
PHASES = ("STARTING", "PREFILL", "STREAMING", "CLOSING")

Victim = Literal["client", "provider"]


@dataclass(frozen=True)
class Kill:
    """One SIGKILL: what ran at that moment, and what each side has lost between the agreements before and after it."""

    victim: Victim
    phases: tuple[str, ...]  # of the client's sessions under way, as far as it knew
    client_loss_nano: int  # counted as delivered and never received; negative where the provider bore it
    provider_loss_nano: int  # handed over and not counted as delivered
    window_nano: int  # what the client may lose
    recovery_s: float
    compared: bool  # whether both ends told their totals of the agreement after it
    differ: bool

    @property
    def exposure_nano(self) -> int:
        """What the provider may lose: a window for each answer that may be under way."""
        return max(self.window_nano, min(EXPOSURE_MAX_NANO, AT_ONCE * self.window_nano))

    @property
    def parts(self) -> tuple[float, float]:
        """Of what client and provider may lose, what they lost."""
        return self.client_loss_nano / self.window_nano, self.provider_loss_nano / self.exposure_nano


@dataclass(frozen=True)
class Closed:
    """One lane's channel at the end, as everybody sees it."""

    authorised_nano: int
    received_nano: int
    settled_nano: int
    handed_over_nano: int


@dataclass
class Report:
    """What a run has shown. `faults` names whatever did not hold."""

    seed: int
    kills: list[Kill] = field(default_factory=list)
    closed: list[Closed] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    answers: int = 0
    duration_s: float = 0.0


class Witness:
    """What one side wrote down. `look` reads on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.agreements: list[dict[str, Any]] = []
        self.errors: list[dict[str, Any]] = []
        self._sessions: dict[str, dict[str, Any]] = {}  # the last that was said of each
        self._read = 0

    def look(self) -> Self:
        """Take in every whole line that is new. An agreement comes with the total at that moment."""
        data = self.path.read_bytes()[self._read :] if self.path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        for record in map(json.loads, whole.splitlines()):
            if "session" in record:
                self._sessions[record["session"]] = record
            elif record["event"] == "agreed":
                self.agreements.append(record | {"total_nano": self.total_nano})
            else:
                self.errors.append(record)
        return self

    @property
    def total_nano(self) -> int:
        """Over all sessions there ever were."""
        return sum(record["nano"] for record in self._sessions.values())

    @property
    def completed(self) -> int:
        return sum(record["phase"] == "DONE" for record in self._sessions.values())

    def under_way(self, earlier: Collection[str] = ()) -> dict[str, str]:
        """The phases of sessions that have not ended, those apart that were left hanging before."""
        return {
            session: record["phase"]
            for session, record in self._sessions.items()
            if record["phase"] in PHASES and session not in earlier
        }


@dataclass(frozen=True)
class Agreement:
    """An answer that came to its end alone on the channel, as each end tells of it."""

    ours: dict[str, Any]
    theirs: dict[str, Any]

    @property
    def comparable(self) -> bool:
        """Whether the provider, too, knew of no other session: it may not have noticed yet that some are dead."""
        return not self.theirs["shared"]

    @property
    def differs(self) -> bool:
        totals = ("delivered_nano", "authorised_nano")
        return self.comparable and any(self.ours[each] != self.theirs[each] for each in totals)


class Lane:
    """One provider and one client, and the channel between them."""

    def __init__(self, processes: Processes, network: Bare, number: int) -> None:
        self._processes = processes
        self._network = network
        self._homes = {who: processes.directory / f"{who}{number}" for who in ("client", "provider")}
        self.client = Witness(processes.directory / f"client{number}.witness")
        self.provider = Witness(processes.directory / f"provider{number}.witness")
        self._peer = ""
        self._listen = f"/ip4/127.0.0.1/tcp/{free_port()}"
        self._running: dict[str, Process] = {"provider": self._start_provider("--faucet")}
        self._peer = self._running["provider"].records("ready")[0]["peer"]
        self._running["client"] = self._start_client()
        self._agreed_after(0)

    def strike(self, victim: Victim, after_s: float) -> Kill:
        """Kill so long after the first answer began, start again, and see what it cost."""
        left_hanging = self.client.under_way()
        while not self.client.look().under_way(left_hanging):
            time.sleep(LOOK_EVERY_S)
        time.sleep(after_s)
        before = self._agreement(self.client.look().agreements[-1])
        self._running[victim].end()  # by SIGKILL
        struck_at = time.monotonic()
        phases = self.client.look().under_way(left_hanging).values()
        self._running[victim] = self._start_client() if victim == "client" else self._start_provider()
        after = self._agreed_after(len(self.client.look().agreements))
        delivered_nano = after.ours["delivered_nano"] - before.ours["delivered_nano"]
        return Kill(
            victim,
            tuple(phases),
            delivered_nano - (after.ours["total_nano"] - before.ours["total_nano"]),
            after.theirs["total_nano"] - before.theirs["total_nano"] - delivered_nano,
            max(before.ours["window_nano"], after.ours["window_nano"]),
            time.monotonic() - struck_at,
            after.comparable,
            after.differs,
        )

    def close(self) -> Closed:
        """End the client, close the channel from its home, and look at both books and at the chain."""
        self._running["client"].end()
        home = ("--network", self._network.file, "--home", self._homes["client"])
        (known,) = self._processes.run("p2p.node", "channels", "--json", *home).result
        channel: str = known["channel"]
        closed = self._processes.run("p2p.node", "channels", "close", channel, "--json", *home)
        assert closed.code == 0, closed.err
        ours, theirs = self._row("client", channel), self._row("provider", channel)
        executed = history(self._network.file, channel)
        assert [each.exit_code for each in executed] == [0] * len(executed)
        assert (executed[0].op, executed[-1].op) == ("open", "close_by_release")
        assert ours["state"] == "CLOSED"
        assert ours["authorised_nano"] == theirs["authorised_nano"], "the books differ in the highest voucher"
        assert ours["settled_nano"] == ours["released_nano"] == theirs["released_nano"], "the books differ in the end"
        return Closed(
            ours["authorised_nano"],
            self.client.look().total_nano,
            ours["settled_nano"],
            self.provider.look().total_nano,
        )

    def end(self) -> None:
        """Both processes."""
        for process in self._running.values():
            process.end()

    def blamed(self) -> list[str]:
        """Whatever this honest client held against its honest provider."""
        return [record["why"] for record in self.client.look().errors if record["event"] == "blamed"]

    def _start_provider(self, *flags: str) -> Process:
        arguments = ("--engine", "scripted", "--slots", "8", "--listen", self._listen, "--network", self._network.file)
        return self._start("provider", "provide", *arguments, *flags)

    def _start_client(self) -> Process:
        return self._start("client", "ask", "for ever", "--model", SCRIPTED, "--network", self._network.file)

    def _start(self, who: str, command: str, *arguments: str | Path) -> Process:
        witness = self.client if who == "client" else self.provider
        environment = {
            "WITNESS": str(witness.path),
            "WITNESS_PROVIDER": self._peer,
            "WITNESS_AT_ONCE": str(AT_ONCE),
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(Path(__file__).parent))),
        }
        return self._processes.start(
            "witness", command, *arguments, "--home", self._homes[who], "--json", environment=environment
        )

    def _agreed_after(self, known: int) -> Agreement:
        deadline = time.monotonic() + AGREE_LIMIT_S
        while len(self.client.look().agreements) <= known:
            if time.monotonic() > deadline:
                why = f"{self.client.errors[-3:]}, {[each.err.text[-400:] for each in self._running.values()]}"
                raise AssertionError(f"client and provider do not agree again: {why}")
            time.sleep(LOOK_EVERY_S)
        return self._agreement(self.client.agreements[known])

    def _agreement(self, ours: dict[str, Any]) -> Agreement:
        """The provider told of it before the client could hear of it."""
        agreements = self.provider.look().agreements
        return Agreement(ours, next(each for each in reversed(agreements) if each["answer"] == ours["answer"]))

    def _row(self, who: str, channel: str) -> dict[str, Any]:
        (path,) = self._homes[who].rglob("book.sqlite")
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            db.row_factory = sqlite3.Row
            (row,) = db.execute("SELECT * FROM channels WHERE channel = ?", (bytes.fromhex(channel),)).fetchall()
            return dict(row)


def run_crashes(directory: Path, *, kills: int, lanes: int, seed: int) -> Report:
    """All of it. What did not hold is in the report's `faults`."""
    report, began = Report(seed), time.monotonic()
    lock = threading.Lock()
    with Processes(directory) as processes:
        network = start_bare(processes)

        def run_lane(number: int) -> None:
            lane = Lane(processes, network, number)
            chance = random.Random(f"{seed}/{number}")
            try:
                for victim, after_s in _plan(chance, kills // lanes + (number < kills % lanes)):
                    kill = lane.strike(victim, after_s)
                    with lock:
                        report.kills.append(kill)
                with lock:
                    report.closed.append(lane.close())
                    report.faults += lane.blamed()
                    report.answers += lane.client.completed
            finally:
                lane.end()

        with ThreadPoolExecutor(lanes) as pool:
            for lane in [pool.submit(run_lane, number) for number in range(lanes)]:
                lane.result()
    report.duration_s = time.monotonic() - began
    report.faults += _faults(report)
    return report


def _plan(chance: random.Random, count: int) -> Iterator[tuple[Victim, float]]:
    for _ in range(count):
        yield chance.choice(("client", "provider")), chance.uniform(0.0, STRIKE_WITHIN_S)


def _faults(report: Report) -> Iterator[str]:
    for number, kill in enumerate(report.kills):
        for who, part in zip(("client", "provider"), kill.parts, strict=True):
            if part > 1:
                yield f"kill {number}: the {who} lost {part:.2f} times as much as it may: {kill}"
        if kill.differ:
            yield f"kill {number}: the two ends go on from different totals"
    for closed in report.closed:
        if closed.settled_nano > closed.authorised_nano:
            yield f"{closed.settled_nano} nano settled of {closed.authorised_nano} authorised"


def table(report: Report) -> list[str]:
    """In Markdown."""
    lines = [
        "| killed | times | client's worst loss | provider's worst loss | median recovery |",
        "|---|---|---|---|---|",
    ]
    for victim in ("client", "provider"):
        kills = [kill for kill in report.kills if kill.victim == victim]
        if kills:
            client, provider = (max(0, *parts) for parts in zip(*(kill.parts for kill in kills), strict=True))
            recovery_s = sorted(kill.recovery_s for kill in kills)[len(kills) // 2]
            lines.append(
                f"| {victim} | {len(kills)} | {client:.2f} windows | {provider:.2f} of the limit | {recovery_s:.1f} s |"
            )
    struck = Counter(phase.lower() for kill in report.kills for phase in kill.phases)
    none = sum(not kill.phases for kill in report.kills)
    where = ", ".join(f"{count} in {phase}" for phase, count in struck.most_common())
    compared = sum(kill.compared for kill in report.kills)
    return [
        *lines,
        "",
        f"Sessions struck, by phase as the client knew it: {where}; {none} kills met none under way.",
        f"Both ends' totals delivered and authorised were compared after {compared} of the {len(report.kills)} kills.",
    ]


def _range(amounts: Iterable[int]) -> str:
    least, *_, most = sorted(2 * list(amounts))
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def summary(report: Report) -> Sequence[str]:
    """What is said of the whole run."""
    received = sum(each.received_nano for each in report.closed)
    settled = sum(each.settled_nano for each in report.closed)
    handed = sum(each.handed_over_nano for each in report.closed)
    window, most = (_range(getattr(kill, name) for kill in report.kills) for name in ("window_nano", "exposure_nano"))
    run = f"{len(report.kills)} kills in {report.duration_s:.0f} s, seed {report.seed}, {len(report.closed)} channels"
    return [
        f"{run}, {report.answers} answers completed.",
        f"A window is {window} nano. The provider's limit is one for each of {AT_ONCE} answers at a time: {most} nano.",
        f"In all {received:,} nano were received, {settled:,} settled on chain, {handed:,} handed over.",
    ]
