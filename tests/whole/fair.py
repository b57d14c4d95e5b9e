"""A fair: five providers, each with a fault, and a client that buys many short answers of them.

The network is real, with a process for each node; the models are scripted unless others are asked for. What each
provider does wrong is in `cheats`, and how the bill is drawn up in `takings`.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from books import amounts
from local import SCRIPTED, Bare, start_bare
from processes import ROOT, Process, Processes
from takings import Bill, Bought, bill, parts, shares

from p2p.protocol.price import Prices

# A hundred times what is asked by default, and a second is worth a hundred times as much: so an answer of 16 tokens
# counts as one of 1,600 would, beside what a channel costs.
BEST = Prices(6_000_000_000, 3_000_000_000, 18_000_000_000)
NANO_PER_SECOND = 100_000
SLOTS = 16
DEPOSIT_NANO = 300_000_000
WINDOW_NANO = 1_000_000  # of an answer at these prices
LIMIT_S = 1800.0
SHOPPER = "shopper"


@dataclass(frozen=True)
class Fault:
    """What is wrong with one of the providers, and its price as a part of the best one."""

    what: str
    percent: int = 100

    @property
    def prices(self) -> Prices:
        return BEST.scaled(self.percent, 100)


FAULTS = {
    "dear": Fault("asks two and a half times as much", 250),
    "slow": Fault("gives a tenth of the tokens per second that it promises"),
    "mortal": Fault("is killed in mid-answer, time and again"),
    "liar": Fault("counts three tokens for two, and is cheap", 90),
    "impostor": Fault("serves another model, and is cheap", 90),
}
PRICES = {name: fault.prices for name, fault in FAULTS.items()}
CHEATS = ("liar", "impostor")


@dataclass(frozen=True)
class Plan:
    """How large a fair."""

    answers: int
    at_once: int
    mortal_gives: int  # answers, before it dies in the middle of one
    seed: int
    model: str = SCRIPTED
    engine: str = "scripted"


@dataclass(frozen=True)
class Report:
    """What came of it. `deaths` are of the mortal one; `fees_nano` what opening and filling up channels cost."""

    plan: Plan
    bought: Sequence[Bought]
    deaths: int
    channels: int
    fees_nano: int
    disagreements: Sequence[str]
    took_s: float

    @property
    def lost(self) -> list[str]:
        return [f"answer {one.number}: {one.why_not}" for one in self.bought if one.why_not]

    @property
    def latter(self) -> Sequence[Bought]:
        """The last quarter."""
        return self.bought[-len(self.bought) // 4 :]

    def bill(self, bought: Sequence[Bought]) -> Bill:
        return bill(bought, BEST, PRICES, false=["impostor"])

    def cheats_share(self, bought: Sequence[Bought]) -> float:
        return sum(shares(bought).get(cheat, 0.0) for cheat in CHEATS)


class Stand:
    """One provider's place, where it is put up again when it falls over."""

    def __init__(self, processes: Processes, network: Bare, name: str, plan: Plan) -> None:
        self.name = name
        self.home = processes.directory / name
        self.deaths = 0
        self._processes = processes
        self._module = ("p2p.node",) if name == "dear" else ("cheats", name)
        prices = ("--price-input", str(PRICES[name].input), "--price-output", str(PRICES[name].output))
        listen = ("--listen", f"/ip4/127.0.0.1/tcp/{_free_port()}", "--network", network.file, "--home", self.home)
        self._flags = ("provide", "--engine", plan.engine, "--slots", str(SLOTS), *prices, *listen, "--json")
        self._environment = _with_us(CHEAT_EVERY=str(plan.mortal_gives))
        self._process = self._start("--faucet")
        self._over = threading.Event()

    @property
    def peer(self) -> str:
        """Once it is up."""
        peer: str = self._process.records("ready")[0]["peer"]
        return peer

    def keep_up(self) -> None:
        """Start it again whenever it ends, until `end`."""
        while not self._over.is_set():
            self._process.wait(LIMIT_S)
            if not self._over.is_set():
                self.deaths += 1
                self._process = self._start()

    def end(self) -> None:
        self._over.set()
        self._process.end()

    def _start(self, *flags: str) -> Process:
        return self._processes.start(*self._module, *self._flags, *flags, environment=self._environment)


def run_fair(directory: Path, plan: Plan) -> Report:
    """Put everything up, have everything bought, and hold the books against each other."""
    with Processes(directory) as processes:
        network = start_bare(processes)
        stands = {name: Stand(processes, network, name, plan) for name in FAULTS}
        names = {stand.peer: name for name, stand in stands.items()}
        began, trace = time.monotonic(), directory / "trace.jsonl"
        with _kept_up(stands["mortal"]):
            done = _start_shopper(processes, network, plan, trace).wait(LIMIT_S)
        took_s = time.monotonic() - began
        assert done.code == 0, done.err
        for stand in stands.values():
            stand.end()
        bought = [_named(msgspec.json.decode(line, type=Bought), names) for line in done.out.splitlines()]
        opened = [record for record in _records(trace) if record["kind"] in {"channel", "topped_up"}]
        return Report(
            plan=plan,
            bought=bought,
            deaths=stands["mortal"].deaths,
            channels=sum(record["kind"] == "channel" for record in opened),
            fees_nano=sum(record["fee_nano"] for record in opened),
            disagreements=list(_disagreements(directory / SHOPPER, list(stands.values()), bought)),
            took_s=took_s,
        )


def _start_shopper(processes: Processes, network: Bare, plan: Plan, trace: Path) -> Process:
    orders = {"answers": plan.answers, "at_once": plan.at_once, "seed": plan.seed}
    home = ("--network", network.file, "--home", processes.directory / SHOPPER)
    budget = ("--deposit-nano", str(DEPOSIT_NANO), "--nano-per-second", str(NANO_PER_SECOND))
    flags = ("--model", plan.model, "--trace", trace, "--json")
    environment = _with_us(SHOPPER=json.dumps(orders), BOMBYX_ASK_CHANNELS_MAX=str(len(FAULTS)))
    return processes.start("shopper", "ask", "much", *home, *budget, *flags, environment=environment)


def _with_us(**environment: str) -> Mapping[str, str]:
    return {"PYTHONPATH": os.pathsep.join((str(ROOT), str(Path(__file__).parent))), **environment}


@contextmanager
def _kept_up(stand: Stand) -> Iterator[None]:
    keeper = threading.Thread(target=stand.keep_up)
    keeper.start()
    try:
        yield
    finally:
        stand.end()
        keeper.join()


def _named(one: Bought, names: Mapping[str, str]) -> Bought:
    """With providers by their names here."""
    named = (msgspec.structs.replace(part, provider=names[part.provider]) for part in one.parts)
    return msgspec.structs.replace(one, parts=tuple(named))


def _records(trace: Path) -> Iterator[dict[str, Any]]:
    with trace.open() as lines:
        yield from map(json.loads, lines)


def _disagreements(home: Path, stands: Sequence[Stand], bought: Sequence[Bought]) -> Iterator[str]:
    """Where the books of the two ends, or what was told of each answer, differ.

    One that was killed may have forgotten a window, and what came of it last is not paid.
    """
    ours, deaths = amounts(home), sum(stand.deaths for stand in stands)
    for stand in stands:
        theirs = amounts(stand.home)
        for channel in ours.keys() & theirs.keys():
            if ours[channel] != theirs[channel] and not stand.deaths:
                yield f"{stand.name}: {ours[channel]} in the client's book, {theirs[channel]} in its own"
    delivered_nano = sum(one.delivered_nano for one in ours.values())
    paid_nano = sum(part.cost_nano for part in parts(bought))
    if not 0 <= delivered_nano - paid_nano <= WINDOW_NANO * deaths:
        yield f"{delivered_nano} nano were delivered over all channels, and {paid_nano} are the sum of all answers"


def table(report: Report) -> Sequence[str]:
    """In Markdown."""
    return [*_providers(report), "", *_bills(report), "", *_whole(report)]


def _providers(report: Report) -> Iterator[str]:
    overall, latter = shares(report.bought), shares(report.latter)
    yield "| provider | its fault | price | parts of answers | of the traffic | of the last quarter's | paid, nano |"
    yield "|---" * 7 + "|"
    for name, fault in FAULTS.items():
        given = [part for part in parts(report.bought) if part.provider == name]
        share = f"{overall.get(name, 0.0):.1%} | {latter.get(name, 0.0):.1%}"
        paid_nano = sum(part.cost_nano for part in given)
        yield f"| {name} | {fault.what} | {fault.percent} % | {len(given):,} | {share} | {paid_nano:,} |"


def _bills(report: Report) -> Iterator[str]:
    rows: Mapping[str, Callable[[Bill], str]] = {
        "paid for tokens, nano": lambda bill: f"{bill.paid_nano - bill.repeated_nano:,}",
        "what one who knew everything would have paid": lambda bill: f"{bill.needed_nano:,}",
        "overpaid": lambda bill: f"{bill.overpaid:.1%}",
        "paid for prompts that were read again, nano": lambda bill: f"{bill.repeated_nano:,}",
    }
    bills = [report.bill(report.bought), report.bill(report.latter)]
    yield "| | all answers | the last quarter |"
    yield "|---" * 3 + "|"
    for what, figure in rows.items():
        yield f"| {what} | {' | '.join(map(figure, bills))} |"


def _whole(report: Report) -> Iterator[str]:
    waits_s = sorted(one.seconds for one in report.bought)
    rows = {
        "answers": f"{len(report.bought):,}, {report.plan.at_once} at a time",
        "lost": f"{len(report.lost)}",
        "in several parts": f"{sum(len(one.parts) > 1 for one in report.bought)}",
        "deaths of the mortal one": f"{report.deaths}",
        "chain fees, nano": f"{report.fees_nano:,}, for opening and filling up {report.channels} channels",
        "seconds for an answer, median and 95th percentile": " and ".join(
            f"{waits_s[len(waits_s) * percent // 100]:.1f}" for percent in (50, 95)
        ),
        "answers a second": f"{len(report.bought) / report.took_s:.1f}",
    }
    yield "| | |"
    yield "|---" * 2 + "|"
    for what, figure in rows.items():
        yield f"| {what} | {figure} |"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
