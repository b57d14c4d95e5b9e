"""A fair: five providers, each with a fault, and a client that buys many short answers of them.

The network is real, with a process for each node; the models are scripted unless others are asked for. What each
provider does wrong is in `cheats`, and how the bill is drawn up in `takings`.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from books import amounts
from local import SCRIPTED, Bare, start_bare
from ports import free_port
from processes import ROOT, Process, Processes
from takings import Bill, Bought, bill, parts, shares

from inference.link import Spec
from inference.llamacpp import LlamaCpp
from inference.scripted import Scripted
from p2p.config import EMBEDDED_MODEL
from p2p.protocol.price import Prices

# A hundred times what is asked by default, and a second is worth a hundred times as much: so an answer of 16 tokens
# counts as one of 1,600 would, beside what a channel costs.
BEST = Prices(6_000_000_000, 3_000_000_000, 18_000_000_000)
NANO_PER_SECOND = 100_000
CHEATS_MAX, OVERPAID_MAX = 0.05, 0.02  # in the last quarter
DEPOSIT_NANO, AUDITS_MAX_NANO = 300_000_000, 1_000_000_000
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


class Audit(NamedTuple):
    """One of the client's, of a provider by its name here."""

    provider: str
    outcome: str
    cost_nano: int


@dataclass(frozen=True)
class Plan:
    """How large a fair. The audits that are due are waited for after each of the `visits`."""

    answers: int
    at_once: int
    mortal_gives: int  # answers, before it dies in the middle of one
    seed: int
    visits: int = 1
    model: str = SCRIPTED
    engine: Spec = field(default_factory=Scripted)
    slots: int = 16  # of each provider

    @property
    def engine_name(self) -> str:
        return "scripted" if isinstance(self.engine, Scripted) else "llamacpp"


@dataclass(frozen=True)
class Report:
    """What came of it. `deaths` are of the mortal one; `fees_nano` what opening and filling up channels cost."""

    plan: Plan
    bought: Sequence[Bought]
    deaths: int
    channels: int
    audits: Sequence[Audit]
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
        engine = ("--engine", plan.engine_name, "--slots", str(plan.slots))
        listen = ("--listen", f"/ip4/127.0.0.1/tcp/{free_port()}", "--network", network.file, "--home", self.home)
        self._flags: tuple[str | Path, ...] = ("provide", *engine, *prices, *listen, "--json")
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


def scripted(answers: int, seed: int) -> Plan:
    """Of the scripted model."""
    return Plan(answers=answers, at_once=8, mortal_gives=150, seed=seed)


def embedded(answers: int, seed: int) -> Plan:
    """Of the model that comes along."""
    engine = LlamaCpp(slots=2, context=2048)
    return Plan(answers=answers, at_once=4, mortal_gives=20, seed=seed, model=EMBEDDED_MODEL, engine=engine, slots=4)


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
        records = list(_records(trace))
        opened = [one for one in records if one["kind"] in {"channel", "topped_up"}]
        audited = [one for one in records if one["kind"] == "audited"]
        audits = [Audit(names[one["peer"]], one["outcome"], one["cost_nano"]) for one in audited]
        return Report(
            plan=plan,
            bought=bought,
            audits=audits,
            deaths=stands["mortal"].deaths,
            channels=sum(one["kind"] == "channel" for one in opened),
            fees_nano=sum(one["fee_nano"] for one in opened),
            disagreements=list(_disagreements(directory / SHOPPER, list(stands.values()), bought, audits)),
            took_s=took_s,
        )


def _start_shopper(processes: Processes, network: Bare, plan: Plan, trace: Path) -> Process:
    sizes = {"answers": plan.answers, "visits": plan.visits, "at_once": plan.at_once}
    orders = {**sizes, "seed": plan.seed, "engine": plan.engine}
    home = ("--network", network.file, "--home", processes.directory / SHOPPER)
    budget = ("--deposit-nano", str(DEPOSIT_NANO), "--nano-per-second", str(NANO_PER_SECOND))
    flags = ("--model", plan.model, "--trace", trace, "--json")
    environment = _with_us(
        SHOPPER=msgspec.json.encode(orders).decode(),
        BOMBYX_ASK_CHANNELS_MAX=str(len(FAULTS)),
        BOMBYX_AUDIT_ENGINE=plan.engine_name,
        BOMBYX_AUDIT_BUDGET_NANO_PER_DAY=str(AUDITS_MAX_NANO),
    )
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


def _disagreements(
    home: Path, stands: Sequence[Stand], bought: Sequence[Bought], audits: Sequence[Audit]
) -> Iterator[str]:
    """Where the books of the two ends, or what was told of each answer, differ.

    What came last of one that was killed is not paid, and it may have forgotten a window of what is.
    """
    ours, deaths = amounts(home), sum(stand.deaths for stand in stands)
    for stand in stands:
        theirs = amounts(stand.home)
        for channel in ours.keys() & theirs.keys():
            if ours[channel] != theirs[channel] and not stand.deaths:
                yield f"{stand.name}: {ours[channel]} in the client's book, {theirs[channel]} in its own"
    delivered_nano = sum(one.delivered_nano for one in ours.values())
    paid_nano = sum(part.cost_nano for part in parts(bought)) + sum(one.cost_nano for one in audits)
    if abs(delivered_nano - paid_nano) > WINDOW_NANO * deaths:
        yield f"{delivered_nano} nano were delivered over all channels, and {paid_nano} are the sum of all answers"


def dishonesty(report: Report) -> Iterator[str]:
    """What was lost, differs, or went to cheats."""
    yield from report.lost
    yield from report.disagreements
    if (share := report.cheats_share(report.latter)) >= CHEATS_MAX:
        yield f"in the last quarter the cheats have {share:.1%} of the traffic"


def faults(report: Report) -> Iterator[str]:
    """That, and what was paid too much. On a real model the honest ones are busy, and a dearer one may be worth it."""
    yield from dishonesty(report)
    if (overpaid := report.bill(report.latter).overpaid) >= OVERPAID_MAX:
        yield f"in the last quarter {overpaid:.1%} too much was paid for tokens"
