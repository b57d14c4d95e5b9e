"""A network of many real hosts in several processes, looked at by clients that know nobody.

`measure_cold_starts` counts who is found and who hears of whom; `measure_churn` kills and starts providers meanwhile.
"""

from __future__ import annotations

import json
import math
import os
import random
import secrets
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import trio
from crowd import Crowd
from market import MODEL, NETWORK

from p2p.buying import Experience, Negotiations
from p2p.discovery import SETTLE_S, Directory
from p2p.errors import Error, Unavailable
from p2p.joining import joined
from p2p.keys import verify_by_peer
from p2p.net.libp2p_host import open_host
from p2p.protocol.market import Need
from p2p.protocol.negotiate import Ask
from p2p.protocol.price import Tokens
from p2p.protocol.strategy import TakeIt

PROGRAM = Path(__file__).with_name("crowd.py")
READY_TIMEOUT_S = 120.0
HEARD_TIMEOUT_S = 20.0
AWAY_S = 5.0  # for which killed providers stay away
APART_S = 1.0  # clients that only ask: the quotes that they leave behind hold the slots of a small swarm for a while


@dataclass(frozen=True)
class Attempt:
    """One client that knows only bootstrap peers."""

    found: int  # providers that answered
    stale: int  # those that were named and did not
    quoted: bool
    look_up_s: float
    quote_s: float  # from nothing at all to the first agreement


@dataclass
class Report:
    """What clients met."""

    providers: int
    attempts: list[Attempt] = field(default_factory=list)
    heard: list[float] = field(default_factory=list)  # for each advert, the part of the others that heard it
    heard_s: list[float] = field(default_factory=list)  # until the last of them did
    kills: int = 0


class Part:
    """One process of the swarm."""

    def __init__(self, process: trio.Process, crowd: Crowd) -> None:
        self.process = process
        self.crowd = crowd
        self.addresses: dict[str, list[str]] = {}
        self.ready = trio.Event()

    async def order(self, line: str) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(line.encode() + b"\n")


class Swarm:
    """All of it. `heard` maps (peer, seq) to the names that heard that advert."""

    def __init__(self, directory: Path, nursery: trio.Nursery) -> None:
        self._directory = directory
        self._nursery = nursery
        self.parts: list[Part] = []
        self.bootstraps: tuple[str, ...] = ()
        self.heard: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
        self._published: dict[str, tuple[str, int]] = {}
        self._heard_at: dict[str, float] = {}  # by peer: when an advert of its was last heard
        self._news = trio.Event()

    async def start_relays(self, names: Sequence[str]) -> None:
        part = await self._start(Crowd(str(self._directory), relays=tuple(names)))
        self.bootstraps = tuple(addresses[1] for addresses in part.addresses.values())

    async def start_providers(self, names: Sequence[str]) -> None:
        crowd = Crowd(str(self._directory), providers=tuple(names), bootstraps=self.bootstraps)
        self.parts.append(await self._start(crowd))

    @property
    def providers(self) -> int:
        return sum(len(part.crowd.providers) for part in self.parts)

    async def kill(self, part: Part) -> None:
        """SIGKILL: nobody says goodbye."""
        self.parts.remove(part)
        part.process.kill()
        await part.process.wait()

    async def publish(self, name: str) -> tuple[str, int]:
        """Have a provider gossip a new advert; returns its peer and the advert's `seq`.

        Not sooner than peers take a renewal: what comes on the heels of another is not passed on. It may renew its
        advert by itself meanwhile.
        """
        self._published.pop(name, None)
        part = next(part for part in self.parts if name in part.crowd.providers)
        peer = part.addresses[name][0]
        while trio.current_time() < (settled_at := self._heard_at.get(peer, -math.inf) + SETTLE_S):  # noqa: ASYNC110
            await trio.sleep_until(settled_at)
        await part.order(f"publish {name}")
        with trio.fail_after(HEARD_TIMEOUT_S):
            while name not in self._published:
                await self._news.wait()
        return self._published[name]

    async def settle_in(self, others: int) -> None:
        """Until gossip has found its ways: who has just subscribed is not known to all yet."""
        heard = 0
        with trio.fail_after(READY_TIMEOUT_S):
            while heard < others:
                heard = await self.hearers(await self.publish("provider-0"), others)

    async def hearers(self, advert: tuple[str, int], wanted: int) -> int:
        """How many heard it, as soon as those are enough or it took too long."""
        with trio.move_on_after(HEARD_TIMEOUT_S):
            while len(self.heard[advert]) < wanted:
                await self._news.wait()
        return len(self.heard[advert])

    async def _start(self, crowd: Crowd) -> Part:
        command = [sys.executable, str(PROGRAM), msgspec.json.encode(crowd).decode()]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        part = Part(process, crowd)
        self._nursery.start_soon(self._follow, part)
        with trio.fail_after(READY_TIMEOUT_S):
            await part.ready.wait()
        return part

    async def _follow(self, part: Part) -> None:
        buffer = b""
        try:
            assert part.process.stdout is not None
            async for data in part.process.stdout:
                *lines, buffer = (buffer + data).split(b"\n")
                for line in lines:
                    self._take(part, json.loads(line))
        finally:
            part.process.kill()
            with trio.CancelScope(shield=True):
                await part.process.wait()

    def _take(self, part: Part, record: dict[str, object]) -> None:
        match record["event"]:
            case "ready":
                part.addresses = record["peers"]  # type: ignore[assignment]
                part.ready.set()
            case "heard":
                self._heard_at[str(record["peer"])] = trio.current_time()
                self.heard[str(record["peer"]), int(str(record["seq"]))].add(str(record["by"]))
            case "published":
                self._published[str(record["by"])] = (str(record["peer"]), int(str(record["seq"])))
        self._news.set()
        self._news = trio.Event()


@asynccontextmanager
async def open_swarm(directory: Path, providers: int, processes: int, relays: int = 2) -> AsyncIterator[Swarm]:
    """`providers` hosts spread over `processes`, and some bootstrap peers in one more."""
    async with trio.open_nursery() as nursery:
        swarm = Swarm(directory, nursery)
        await swarm.start_relays([f"relay-{number}" for number in range(relays)])
        names = [f"provider-{number}" for number in range(providers)]
        for number in range(processes):
            await swarm.start_providers(names[number::processes])
        yield swarm
        nursery.cancel_scope.cancel()


class _Stale:
    """A trace that counts whom a client tried in vain."""

    def __init__(self) -> None:
        self.peers: set[object] = set()

    def __call__(self, kind: str, /, **fields: object) -> None:
        if kind in {"probe_failed", "no_quote"}:
            self.peers.add(fields["peer"])


async def cold_start(bootstraps: Sequence[str]) -> Attempt:
    """Find everybody who sells the model, and agree with one of them."""
    began, stale, found, looked_up_s = trio.current_time(), _Stale(), 0, 0.0
    quoted = False
    try:
        async with (
            open_host(secrets.token_bytes(32), (), dht_server=False, network=NETWORK.name) as host,
            joined(host, bootstraps),
        ):
            directory = Directory(host, network=NETWORK.name, verify=verify_by_peer, clock=time.time, trace=stale)
            providers = await directory.find(MODEL)
            found, looked_up_s = len(providers), trio.current_time() - began
            negotiations = Negotiations(
                host,
                network=NETWORK.name,
                need=Need(tokens=Tokens(input=100, output=100)),
                strategy=TakeIt(),
                window_max_nano=1_000_000,
                experience=Experience(),
                failed=lambda _peer, _why: None,
                draw=secrets.randbelow,
                clock=time.time,
                trace=stale,
            )
            await negotiations.agree(providers, _ask)
            quoted = True
    except Unavailable:
        pass  # nobody was there, which is what is counted
    except Error:
        if not stale.peers:
            raise
    return Attempt(found, len(stale.peers), quoted, looked_up_s, trio.current_time() - began)


def _ask() -> Ask:
    payer = secrets.token_bytes(32)
    return Ask(model=MODEL, prompt_tokens=100, max_tokens=100, payer_key=payer, nonce=secrets.token_bytes(16))


async def measure_cold_starts(directory: Path, *, providers: int, processes: int, trials: int, seed: int) -> Report:
    """In each trial one provider gossips, and one client begins from nothing."""
    report, chance = Report(providers), random.Random(seed)
    async with open_swarm(directory, providers, processes) as swarm:
        others = providers - 1 + len(swarm.bootstraps)
        await swarm.settle_in(others)
        for _ in range(trials):
            advert = await swarm.publish(f"provider-{chance.randrange(providers)}")
            asked_at = trio.current_time()
            report.heard.append(await swarm.hearers(advert, others) / others)
            report.heard_s.append(trio.current_time() - asked_at)
            report.attempts.append(await cold_start(swarm.bootstraps))
    return report


async def measure_churn(
    directory: Path, *, providers: int, processes: int, for_s: float, every_s: float, seed: int
) -> Report:
    """One client after the other, while every `every_s` one of the processes is killed and comes back."""
    report, chance = Report(providers), random.Random(seed)

    async def churn(swarm: Swarm) -> None:
        while True:
            await trio.sleep(every_s)
            part = chance.choice(swarm.parts)
            await swarm.kill(part)
            report.kills += len(part.crowd.providers)
            await trio.sleep(AWAY_S)
            await swarm.start_providers(part.crowd.providers)

    async with open_swarm(directory, providers, processes) as swarm, trio.open_nursery() as nursery:
        nursery.start_soon(churn, swarm)
        with trio.move_on_after(for_s):
            while True:
                report.attempts.append(await cold_start(swarm.bootstraps))
                await trio.sleep(APART_S)
        nursery.cancel_scope.cancel()
    return report


def table(report: Report) -> list[str]:
    """In Markdown."""
    rows = [
        ("clients that began from nothing", f"{len(report.attempts)}"),
        ("of them got a quote", f"{_part(one.quoted for one in report.attempts):.1%}"),
        ("found every provider", f"{_part(one.found >= report.providers for one in report.attempts):.1%}"),
        ("providers found", _spread([one.found for one in report.attempts], "{:.0f}")),
        ("stale providers tried", _spread([one.stale for one in report.attempts], "{:.1f}")),
        ("seconds to all adverts", _spread([one.look_up_s for one in report.attempts if one.found], "{:.2f}")),
        ("seconds to the first quote", _spread([one.quote_s for one in report.attempts if one.quoted], "{:.2f}")),
    ]
    if report.heard:
        rows += [
            ("adverts that all others heard by gossip", f"{_part(each == 1 for each in report.heard):.1%}"),
            ("seconds until the last heard", _spread(report.heard_s, "{:.2f}")),
        ]
    if report.kills:
        rows.append(("providers killed and started again", f"{report.kills}"))
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]


def _part(holds: Iterable[bool]) -> float:
    return statistics.fmean(holds)


def _spread(values: Sequence[float], form: str) -> str:
    if len(values) < 2:
        return ", ".join(form.format(value) for value in values) or "none"
    p95 = statistics.quantiles(values, n=20, method="inclusive")[-1]
    mean = statistics.fmean(values)
    return f"median {form.format(statistics.median(values))}, mean {form.format(mean)}, p95 {form.format(p95)}"
