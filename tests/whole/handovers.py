"""Kills a provider in the middle of an answer, again and again, where another is ready to go on with it.

Each node is a process, and each answer is one `ask` of its own, of a user who has a channel to both providers. The
cheaper of them is chosen; once the answer is under way it gets a SIGKILL, and is started again on its home. Times are
from the user's trace, which has the same clock as we.
"""

from __future__ import annotations

import json
import random
import re
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from books import Amounts, amounts
from local import CHEAP, SCRIPTED, Provider, start_bare, start_provider
from processes import LIMIT_S, Process, Processes

from inference.engine import Delta, Message, Request
from inference.script import answer

QUESTION = "Tell me of the whole life of a moth."  # the scripted answer has 300 words, at 100 a second
WHOLE = "".join(
    item.text
    for item in answer(Request(model=SCRIPTED, messages=(Message("user", QUESTION),), max_tokens=1000))
    if isinstance(item, Delta)
)
BARGAIN = ("--price-input", "6000000", "--price-output", "18000000")  # a tenth of what others ask
CONTINUES_WITHIN_S = 2.0
LOOK_EVERY_S = 0.01
PIECES = (5, 200)  # that have come when the provider is killed


@dataclass(frozen=True)
class Handover:
    """One kill. The parts are what the user was told to have paid to the one that died, and to the other."""

    said: str
    detected_s: float  # after the kill
    continued_s: float  # after that was detected, until the first piece from the other
    parts_nano: tuple[int, int]
    forgot_nano: int  # of its part, by the one that died
    window_nano: int


@dataclass(frozen=True)
class Report:
    """A whole run. `faults` names whatever did not hold."""

    handovers: Sequence[Handover]
    faults: Sequence[str]
    took_s: float


class Diary:
    """A trace file of the user's, read on as it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0
        self._records: list[dict[str, Any]] = []

    def records(self, kind: str, **fields: object) -> Sequence[dict[str, Any]]:
        """All so far of that kind with those fields."""
        data = self.path.read_bytes()[self._read :] if self.path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        self._records += map(json.loads, whole.splitlines())
        return [record for record in self._records if {"kind": kind, **fields}.items() <= record.items()]

    def pieces(self, provider: Provider) -> Sequence[float]:
        """When pieces of an answer came from it, in unix seconds."""
        return [record["t_us"] / 1e6 for record in self.records("heard", message="Delta", peer=provider.peer)]


class Pair:
    """A user, and two providers to whom there are channels."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._directory = processes.directory
        self._network = start_bare(processes).file
        self._home = self._directory / "me"
        self.standby = start_provider(processes, self._network, "standby", *CHEAP)
        self._short("--faucet", at=self.standby)
        self.cheap = self._start_cheap()
        self._agreed = self._short(at=self.cheap)
        self.faults: list[str] = []

    def kill(self, number: int, pieces: int) -> Handover:
        """Kill the cheap one once so many pieces of its answer have come."""
        before, agreed = self._ours(self.standby), self._agreed
        diary = Diary(self._directory / f"trace{number}.jsonl")
        asking = self._ask("--max-tokens", "1000", "--trace", diary.path)
        _wait_until(lambda: len(diary.pieces(self.cheap)) >= pieces, asking)
        killed_at = time.time()
        self.cheap.process.signal(signal.SIGKILL)
        self.cheap.process.wait()
        self.cheap = self._start_cheap()
        done = asking.wait()
        self._expect(done.code == 0 and done.out == WHOLE + "\n", f"the answer is not whole: {done.err}")
        (failed,) = diary.records("answer_failed", peer=self.cheap.peer)
        detected_at = failed["t_us"] / 1e6
        went_on_at = next(at for at in diary.pieces(self.standby) if at > detected_at)
        self._expect(not diary.records("opening"), "a channel was opened")
        (cost_nano,) = _nano(r"^cost ", done.err)
        first_nano, second_nano = _nano(r"^part by ", done.err)
        self._expect(first_nano + second_nano == cost_nano, f"{first_nano} and {second_nano} are not {cost_nano} nano")
        self._check_standby(second_nano, before)
        self._agreed = self._agree_again()
        counted_nano = self._agreed["delivered_nano"] - self._agreed["cost_nano"] - agreed["delivered_nano"]
        return Handover(
            said=done.err,
            detected_s=detected_at - killed_at,
            continued_s=went_on_at - detected_at,
            parts_nano=(first_nano, second_nano),
            forgot_nano=first_nano - counted_nano,
            window_nano=self._agreed["window_nano"],
        )

    def _check_standby(self, part_nano: int, before: Amounts) -> None:
        """What it was paid is what it delivered, in the user's book, in its own and on its receipt."""
        ours, theirs = self._ours(self.standby), self._theirs(self.standby)
        self._expect(ours == theirs, f"{ours} in the user's book, {theirs} in that of the one that went on")
        paid_nano = ours.delivered_nano - before.delivered_nano
        self._expect(ours.authorised_nano == ours.delivered_nano, f"{ours} in the user's book")
        receipt_nano = self.standby.process.records("served")[-1]["earned_nano"]
        self._expect(paid_nano == receipt_nano == part_nano, f"{paid_nano}, {receipt_nano} and {part_nano} nano")

    def _agree_again(self) -> dict[str, Any]:
        """One more answer of the one that died, and what it says. The user's book keeps what it knows to have come."""
        after = self._short(at=self.cheap)
        agreed, theirs = Amounts(after["authorised_nano"], after["delivered_nano"]), self._theirs(self.cheap)
        self._expect(agreed == theirs, f"{agreed} to the user, {theirs} in the book of the one that came back")
        ours = self._ours(self.cheap)
        kept_nano = ours.delivered_nano - agreed.delivered_nano
        known = ours.authorised_nano == agreed.authorised_nano and 0 <= kept_nano <= after["window_nano"]
        self._expect(known, f"{ours} in the user's book, and it agreed to {agreed}")
        return after

    def _expect(self, holds: bool, fault: str) -> None:
        if not holds:
            self.faults.append(fault)

    def _ours(self, provider: Provider) -> Amounts:
        ours, theirs = amounts(self._home), amounts(provider.home)
        (channel,) = ours.keys() & theirs.keys()
        return ours[channel]

    def _theirs(self, provider: Provider) -> Amounts:
        (theirs,) = amounts(provider.home).values()
        return theirs

    def _short(self, *flags: str, at: Provider) -> dict[str, Any]:
        done = self._ask("--max-tokens", "8", "--json", "--allow", at.peer, *flags).wait()
        result: dict[str, Any] = done.result
        return result

    def _ask(self, *flags: str | Path) -> Process:
        mine = ("--network", self._network, "--home", self._home)
        return self._processes.start("p2p.node", "ask", QUESTION, "--model", SCRIPTED, *mine, *flags)

    def _start_cheap(self) -> Provider:
        return start_provider(self._processes, self._network, "cheap", *CHEAP, *BARGAIN)


def run_handovers(directory: Path, *, kills: int, seed: int) -> Report:
    """All of it."""
    began, chance = time.monotonic(), random.Random(seed)
    with Processes(directory) as processes:
        pair = Pair(processes)
        handovers = [pair.kill(number, chance.randint(*PIECES)) for number in range(kills)]
    return Report(handovers, [*pair.faults, *_faults(handovers)], time.monotonic() - began)


def _faults(handovers: Sequence[Handover]) -> Iterator[str]:
    for number, one in enumerate(handovers):
        if one.continued_s > CONTINUES_WITHIN_S:
            yield f"kill {number}: the answer went on {one.continued_s:.1f} s after it was known that it must"
        if abs(one.forgot_nano) > one.window_nano:
            yield f"kill {number}: {one.forgot_nano} nano were forgotten, the window is {one.window_nano}"


def table(report: Report) -> Sequence[str]:
    """In Markdown."""
    rows: dict[str, Callable[[Handover], float]] = {
        "from the kill until it is known": lambda one: one.detected_s,
        "from then until another goes on": lambda one: one.continued_s,
    }
    lines = ["| | median | worst |", "|---|---|---|"]
    for what, of in rows.items():
        times_s = [of(one) for one in report.handovers]
        lines.append(f"| {what} | {statistics.median(times_s):.2f} s | {max(times_s):.2f} s |")
    forgot = [one.forgot_nano for one in report.handovers]
    window_nano = max(one.window_nano for one in report.handovers)
    died, went_on = (sum(one.parts_nano[at] for one in report.handovers) for at in (0, 1))
    return [
        *lines,
        "",
        f"{len(report.handovers)} kills. The user paid {went_on:,} nano to the one that went on: the sum of its parts,",
        f"of its receipts, and of what both books count as delivered. The parts of the one that died came to {died:,}.",
        "It may forget up to a window of a part, or have delivered as much that never arrived: by the next answer",
        f"both agreed on the same totals again, {min(forgot):,} to {max(forgot):,} nano below the part; a window is",
        f"{window_nano:,} nano.",
    ]


def _wait_until(happened: Callable[[], bool], asking: Process) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not happened():
        assert time.monotonic() < deadline, asking.err.text
        time.sleep(LOOK_EVERY_S)


def _nano(row: str, text: str) -> Sequence[int]:
    return [int(nano.replace(",", "")) for nano in re.findall(rf"{row}.*\(([\d,]+) nano\)", text, re.MULTILINE)]
