"""A small network under abuse: what an honest customer notices of it, and what memory its nodes hold afterwards.

Each node, the customer and the abuser are processes of their own. Every abuse is aimed at the bootstrap peer and at the
provider together; the customer buys answers all the while, and newcomers drop in.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local import SCRIPTED, Local, start_local
from processes import ROOT, Processes

from p2p.network_file import read_network

WITHIN = 1.2  # of what a node held at the start, it may hold afterwards
LIMIT_S = 1200.0  # for one abuse at its full count on a busy machine
SETTLE_S = 40.0  # for what was left hanging to time out
LOOK_EVERY_S = 0.5
FULL = {
    "garbage": 10_000,
    "half_handshakes": 3_000,
    "connections": 10_000,
    "streams": 1_000,
    "huge_frames": 500,
    "deep_messages": 5_000,
    "wrong_types": 5_000,
    "advert_flood": 10_000,
    "bad_adverts": 5_000,
    "never_reads": 50,
    "tiny_frames": 5_000_000,
}
SMALL = {
    "garbage": 60,
    "half_handshakes": 60,
    "connections": 60,
    "streams": 200,
    "huge_frames": 30,
    "deep_messages": 60,
    "wrong_types": 60,
    "advert_flood": 100,
    "bad_adverts": 200,
    "never_reads": 2,
    "tiny_frames": 50_000,
}


@dataclass(frozen=True)
class Seen:
    """What the customer noticed in some time."""

    tried: int
    failures: tuple[str, ...]
    median_s: float

    @classmethod
    def of(cls, records: Sequence[Mapping[str, Any]]) -> Seen:
        took = [record["took_s"] for record in records if not record["why"]]
        return cls(
            len(records),
            tuple(record["why"] for record in records if record["why"]),
            statistics.median(took) if took else float("inf"),
        )


@dataclass(frozen=True)
class Assault:
    """One abuse and what came of it. Memory is in MiB: of the bootstrap peer and of the provider."""

    name: str
    count: int
    took_s: float
    refused: int
    answers: Seen
    newcomers: Seen
    memory_before: tuple[float, ...]
    memory_after: tuple[float, ...]


@dataclass(frozen=True)
class Report:
    """A whole siege."""

    answers_before: Seen
    newcomers_before: Seen
    memory_at_first: tuple[float, ...]
    assaults: Sequence[Assault]

    @property
    def faults(self) -> list[str]:
        """Whatever did not hold."""
        found = []
        for one in self.assaults:
            found += [f"{one.name}: {why}" for why in (*one.answers.failures, *one.newcomers.failures)]
            if not one.answers.tried - len(one.answers.failures):
                found.append(f"{one.name}: not one answer was bought meanwhile")
            for first, after in zip(self.memory_at_first, one.memory_after, strict=True):
                if after > WITHIN * first:
                    found.append(f"{one.name}: {after:.0f} MiB are held afterwards, {first:.0f} were at the start")
        return found


class Siege:
    """A network, its customer and its abuser, all running."""

    def __init__(self, processes: Processes, network: Local) -> None:
        self._nodes = (network.relay, network.provider)
        home = processes.directory / "customer"
        flags = ("--network", network.file, "--home", home, "--model", SCRIPTED)
        here = {"PYTHONPATH": os.pathsep.join((str(ROOT), str(Path(__file__).parent)))}
        self._customer = processes.start("customer", "ask", "for ever", *flags, environment=here)
        name = read_network(network.file).mark.name
        addresses = [node.address for node in self._nodes]
        self._abuser = processes.start("abuses", name, *addresses, stdin=subprocess.PIPE, environment=here)
        self._assaults = 0

    def memory(self) -> tuple[float, ...]:
        """What each node holds, in MiB."""
        return tuple(_resident_mib(node.process.pid) for node in self._nodes)

    def watch(self, seconds: float) -> tuple[Seen, Seen]:
        """Peace, for so long."""
        began_at = time.time()
        time.sleep(seconds)
        return self._seen(began_at, time.time())

    def assault(self, name: str, count: int, hold_s: float, within_mib: tuple[float, ...]) -> Assault:
        """One abuse; afterwards memory has a while to come down to `within_mib`."""
        before, began_at = self.memory(), time.time()
        self._abuser.tell(f"{name} {count} {hold_s}\n")
        self._assaults += 1
        done = json.loads(self._abuser.said(self._outcome, LIMIT_S))
        answers, newcomers = self._seen(began_at, time.time())
        deadline = time.monotonic() + SETTLE_S
        while any(now > most for now, most in zip(self.memory(), within_mib, strict=True)):
            if time.monotonic() > deadline:
                break
            time.sleep(LOOK_EVERY_S)
        return Assault(name, count, done["took_s"], done["refused"], answers, newcomers, before, self.memory())

    def _outcome(self, text: str) -> str:
        lines = text.splitlines()
        return lines[self._assaults - 1] if len(lines) >= self._assaults and text.endswith("\n") else ""

    def _seen(self, since: float, until: float) -> tuple[Seen, Seen]:
        """What the customer did in that time, once all of it is known."""

        def all_of_it(text: str) -> list[dict[str, Any]]:
            records = [json.loads(each) for each in text.splitlines(keepends=True) if each.endswith("\n")]
            kinds = {record["what"] for record in records if record["at"] >= until}
            return records if len(kinds) == 2 else []

        records = [one for one in self._customer.said(all_of_it) if since <= one["at"] < until]
        return tuple(Seen.of([one for one in records if one["what"] == what]) for what in ("answer", "newcomer"))  # type: ignore[return-value]


def run_siege(directory: Path, counts: Mapping[str, int], *, peace_s: float, hold_s: float) -> Report:
    """All abuses, one after the other; what only hangs around does so for `hold_s`."""
    with Processes(directory) as processes:
        siege = Siege(processes, start_local(processes))
        siege.watch(1.0)
        answers, newcomers = siege.watch(peace_s)
        first = siege.memory()
        most = tuple(WITHIN * each for each in first)
        assaults = [siege.assault(name, count, hold_s, most) for name, count in counts.items()]
    return Report(answers, newcomers, first, assaults)


def table(report: Report) -> list[str]:
    """In Markdown."""
    peace = [*_noticed(report.answers_before), *_noticed(report.newcomers_before), "", _sizes(report.memory_at_first)]
    return [
        "| abuse | count | s | refused | answers | median ms | newcomers | median ms | MiB before | MiB after |",
        "|---|---|---|---|---|---|---|---|---|---|",
        _row(["none", "", "", "", *peace]),
        *(
            _row(
                [
                    one.name.replace("_", " "),
                    f"{one.count:,}",
                    f"{one.took_s:.0f}",
                    f"{one.refused:,}",
                    *_noticed(one.answers),
                    *_noticed(one.newcomers),
                    _sizes(one.memory_before),
                    _sizes(one.memory_after),
                ]
            )
            for one in report.assaults
        ),
    ]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _noticed(seen: Seen) -> list[str]:
    return [f"{seen.tried - len(seen.failures)} of {seen.tried}", f"{1000 * seen.median_s:.0f}"]


def _sizes(memory: Sequence[float]) -> str:
    return " + ".join(f"{each:.0f}" for each in memory)


def _resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
