"""A small network under abuse: what honest customers notice of it, and what memory its nodes hold afterwards.

Each node, the customers and the abuser are processes of their own. Every abuse is aimed at the bootstrap peer and the
provider together; meanwhile one customer buys answers, one after the other, and newcomers drop in.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from local import SCRIPTED, Local, start_local
from processes import ROOT, Processes

from p2p.network_file import read_network

WITHIN = 1.2  # of what a node held at the start, it may hold afterwards
LIMIT_S = 1200.0  # for one abuse at its full count on a busy machine
SETTLE_S = 130.0  # for what was left hanging to time out, and for adverts to expire and be tidied away
LOOK_EVERY_S = 0.5
KINDS = ("answer", "newcomer")
SAID = 4000  # characters of what a node said before it ended
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
    """What customers of one kind noticed: how long each waited for its first piece or advert, and what failed."""

    waits_s: tuple[float, ...]
    failures: tuple[str, ...]

    @property
    def tried(self) -> int:
        return len(self.waits_s) + len(self.failures)


class Noticed(NamedTuple):
    """What all of them did in some time."""

    answers: Seen
    newcomers: Seen


@dataclass(frozen=True)
class Assault:
    """One abuse and what came of it. Memory is in MiB: of the bootstrap peer and of the provider."""

    name: str
    count: int
    took_s: float
    refused: int
    noticed: Noticed
    memory_before: tuple[float, ...]
    memory_after: tuple[float, ...]


@dataclass(frozen=True)
class Report:
    """A whole siege."""

    peace: Noticed
    memory_at_first: tuple[float, ...]
    assaults: Sequence[Assault]

    @property
    def lost(self) -> list[str]:
        """What somebody honest did not get."""
        found = []
        for one in self.assaults:
            for kind, seen in zip(KINDS, one.noticed, strict=True):
                found += [f"{one.name}, {kind}, {times} times: {why}" for why, times in Counter(seen.failures).items()]
                if not seen.tried:
                    found.append(f"{one.name}, {kind}: none was under way meanwhile")
        return found

    @property
    def kept(self) -> list[str]:
        """Memory that did not come back."""
        return [
            f"{one.name}: {after:.0f} MiB are held afterwards, {first:.0f} were at the start"
            for one in self.assaults
            for first, after in zip(self.memory_at_first, one.memory_after, strict=True)
            if after > WITHIN * first
        ]


class Fallen(Exception):
    """A node ended, which no abuse may do. With the last that it said."""


class Siege:
    """A network, its customers and its abuser, all running."""

    def __init__(self, processes: Processes, network: Local, seed: int) -> None:
        self._nodes = {"bootstrap peer": network.relay, "provider": network.provider}
        home = processes.directory / "customer"
        flags = ("--network", network.file, "--home", home, "--model", SCRIPTED)
        here = {"PYTHONPATH": os.pathsep.join((str(ROOT), str(Path(__file__).parent)))}
        self._customer = processes.start("customer", "ask", "for ever", *flags, environment=here)
        about = (read_network(network.file).mark.name, str(seed), *(node.address for node in self._nodes.values()))
        self._abuser = processes.start("abuses", *about, stdin=subprocess.PIPE, environment=here)
        self._orders = 0

    def memory(self) -> tuple[float, ...]:
        """What each node holds, in MiB."""
        return tuple(_resident_mib(node.process.pid) for node in self._nodes.values())

    def watch(self, seconds: float) -> Noticed:
        """Peace, for so long."""
        began_at = time.time()
        time.sleep(seconds)
        return self._noticed(began_at, time.time())

    def assault(self, name: str, count: int, hold_s: float, within_mib: tuple[float, ...]) -> Assault:
        """One abuse, again and again until honest customers of each kind have come and gone in the midst of it.

        Afterwards memory has a while to come down to `within_mib`.
        """
        before, since, times, refused = self.memory(), time.time(), 0, 0
        while _kinds_since(_records(self._customer.out.text), since) != set(KINDS):
            refused += self._order(f"{name} {count} {hold_s}")["refused"]
            times += 1
            self._check_standing(name)
        until = time.time()
        noticed = self._noticed(since, until)
        deadline = time.monotonic() + SETTLE_S
        while any(now > most for now, most in zip(self.memory(), within_mib, strict=True)):
            if time.monotonic() > deadline:
                break
            time.sleep(LOOK_EVERY_S)
        return Assault(name, times * count, until - since, refused, noticed, before, self.memory())

    def _check_standing(self, abuse: str) -> None:
        """Raises `Fallen` if a node has ended."""
        for name, node in self._nodes.items():
            if (code := node.process.code) is not None:
                said = f"{node.process.out.whole()[-SAID:]}\n{node.process.err.whole()[-SAID:]}"
                raise Fallen(f"the {name} ended with code {code} under {abuse}:\n{said}")

    def _order(self, line: str) -> dict[str, Any]:
        """Have the abuser do it; what it says when it has done it."""
        self._orders += 1
        self._abuser.tell(line + "\n")
        return self._abuser.said(lambda text: _records(text)[self._orders - 1 :], LIMIT_S)[0]

    def _noticed(self, since: float, until: float) -> Noticed:
        """What began in that time, once all of it is over."""

        def all_of_it(text: str) -> list[dict[str, Any]]:
            records = _records(text)
            return records if _kinds_since(records, until) == set(KINDS) else []

        begun = [one for one in self._customer.said(all_of_it) if since <= one["at"] < until]
        return Noticed(*(_seen([one for one in begun if one["what"] == kind]) for kind in KINDS))


def _records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _kinds_since(records: Sequence[Mapping[str, Any]], since: float) -> set[str]:
    return {one["what"] for one in records if one["at"] >= since}


def _seen(records: Sequence[Mapping[str, Any]]) -> Seen:
    return Seen(
        tuple(one["first_s"] for one in records if not one["why"]), tuple(one["why"] for one in records if one["why"])
    )


def run_siege(directory: Path, counts: Mapping[str, int], *, peace_s: float, hold_s: float, seed: int) -> Report:
    """All abuses, one after the other; what only hangs around does so for `hold_s`."""
    with Processes(directory) as processes:
        siege = Siege(processes, start_local(processes), seed)
        siege.watch(1.0)
        peace, first = siege.watch(peace_s), siege.memory()
        within_mib = tuple(WITHIN * each for each in first)
        assaults = [siege.assault(name, count, hold_s, within_mib) for name, count in counts.items()]
    return Report(peace, first, assaults)


def table(report: Report) -> list[str]:
    """In Markdown. Waits are a median and a 95th percentile, memory is before and after."""
    bootstrap, provider = (f"{each:.0f}" for each in report.memory_at_first)
    rows = [["none", "", "", "", *_told(report.peace), bootstrap, provider]]
    for one in report.assaults:
        name, cost = one.name.replace("_", " "), [f"{one.took_s:.0f}", f"{one.refused:,}"]
        memory = [f"{a:.0f}, {b:.0f}" for a, b in zip(one.memory_before, one.memory_after, strict=True)]
        rows.append([name, f"{one.count:,}", *cost, *_told(one.noticed), *memory])
    waits = ["answers", "lost", "first piece, ms", "newcomers", "lost", "advert, ms"]
    titles = ["abuse", "times", "s", "cut off", *waits, "bootstrap peer, MiB", "provider, MiB"]
    return [f"| {' | '.join(cells)} |" for cells in (titles, ["---" for _ in titles], *rows)]


def _told(noticed: Noticed) -> list[str]:
    cells = []
    for seen in noticed:
        cells += [str(len(seen.waits_s)), str(len(seen.failures)), _waits(seen.waits_s)]
    return cells


def _waits(waits_s: Sequence[float]) -> str:
    if len(waits_s) < 2:
        return ", ".join(f"{1000 * each:.0f}" for each in waits_s)
    p95 = statistics.quantiles(waits_s, n=20, method="inclusive")[-1]
    return f"{1000 * statistics.median(waits_s):.0f}, {1000 * p95:.0f}"


def _resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
