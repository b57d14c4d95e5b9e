"""Kills the process of a provider's engine while eight answers are under way over libp2p, again and again.

Nodes are processes of their own; the readers are clients in this one, and several, since none gets all places of a
provider. Where nobody else could go on, the network is private and has no money. A provider's node writes down how late
its loop is (`heartbeat`); the run goes from the first question to the first piece of an answer after the kill.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import trio
from handovers import BARGAIN
from local import SCRIPTED, Provider, start_bare
from processes import LIMIT_S, ROOT, Process, Processes

from inference.models import EMBEDDED_ID
from p2p.config import AskConfig, Config
from p2p.embed import Client
from p2p.errors import EngineError, Error

STREAMS = 8
SLOTS = 2 * STREAMS  # nobody gets more than half of what is free
BEGUN = 3  # pieces of each answer that have come when the engine is killed
BACK_WITHIN_S = 10.0
LATE_MAX_S = 0.05
QUESTION = "Write a very long story about a silk moth, with every detail of every day of its life."


@dataclass(frozen=True)
class Setting:
    """How often, and under which circumstances."""

    engine: str
    model: str
    tokens: int
    others: bool  # whether there is a provider that could go on
    kills: int
    clients: int = 4  # who share the answers: what one sees fail too often, it leaves


ALONE = Setting(engine="scripted", model=SCRIPTED, tokens=1000, others=False, kills=10)
SETTINGS = (
    ALONE,
    Setting(engine="scripted", model=SCRIPTED, tokens=1000, others=True, kills=10),
    Setting(engine="llamacpp", model=EMBEDDED_ID, tokens=350, others=False, kills=5),
)


@dataclass
class Reader:
    """What one reader met. Times are unix seconds."""

    begun: trio.Event = field(default_factory=trio.Event)
    provider: str | None = None  # the first
    error: Error | None = None
    tokens: int = 0
    heard: trio.Event = field(default_factory=trio.Event)  # the error, or the first piece from another
    heard_at: float = 0.0

    async def read(self, client: Client, tokens: int) -> None:
        pieces = 0
        try:
            async with client.chat(QUESTION, max_tokens=tokens) as reply:
                async for _ in reply:
                    pieces += 1
                    if pieces == BEGUN:
                        self.provider = reply.provider
                        self.begun.set()
                    if reply.failovers:
                        self._hear()
                self.tokens = reply.completion_tokens
        except Error as error:
            self.error = error
            self._hear()
        finally:
            self.begun.set()
            self.heard.set()

    def _hear(self) -> None:
        if not self.heard_at:
            self.heard_at = time.time()
            self.heard.set()


@dataclass(frozen=True)
class Kill:
    """One engine's end, with what became of the answers."""

    readers: Sequence[Reader]
    killed_at: float
    begun_at: float  # when the first was asked
    again_at: float  # first piece of the next answer of the same provider
    refused: Sequence[str]  # what was said meanwhile to those who asked

    @property
    def heard_s(self) -> Sequence[float]:
        return [reader.heard_at - self.killed_at for reader in self.readers]


@dataclass(frozen=True)
class Report:
    """A whole run. `late_s` is of each beat of the providers' nodes: plainly, and by their own doing."""

    setting: Setting
    kills: Sequence[Kill]
    late_s: Sequence[tuple[float, float]]

    @property
    def faults(self) -> Sequence[str]:
        faults = [fault for kill in self.kills for fault in _faults(kill, self.setting)]
        if (late_s := p99([own for _, own in self.late_s])) > LATE_MAX_S:
            faults.append(f"the 99th percentile of the loop's lag is {1000 * late_s:.0f} ms")
        return faults


def _faults(kill: Kill, setting: Setting) -> Sequence[str]:
    faults = []
    whole = {reader.tokens for reader in kill.readers if reader.error is None}
    for reader in kill.readers:
        if setting.others and (reader.error is not None or not reader.heard_at):
            faults.append(f"an answer did not go on with another: {reader.error!r}")
        if not setting.others and not isinstance(reader.error, EngineError):
            faults.append(f"an answer failed otherwise than clearly, or not at all: {reader.error!r}")
    if setting.others and len(whole) != 1:
        faults.append(f"answers to one question had {sorted(whole)} tokens")
    if kill.again_at - kill.killed_at > BACK_WITHIN_S:
        faults.append(f"the provider was back after {kill.again_at - kill.killed_at:.1f} s")
    return faults


def p99(values: Sequence[float]) -> float:
    """The 99th percentile."""
    return sorted(values)[int(0.99 * len(values))]


class Street:
    """Providers whose engines are killed, and clients who share the eight answers. Starting takes most of a short run:
    providers come up while the readers do.
    """

    def __init__(self, processes: Processes, setting: Setting) -> None:
        self._processes, self._setting = processes, setting
        self._network, self._key = processes.directory / "network.json", ""
        if setting.others:
            start_bare(processes)
            self._starting = [self._start("cheap", "--faucet", *BARGAIN), self._start("standby", "--faucet")]
        else:
            self._key = str(processes.directory / "relay" / "swarm.key")
            unpaid = ("--unpaid", "--network-out", self._network, "--home", processes.directory / "relay")
            processes.serve("p2p.node", "relay", *unpaid).records("ready")
            self._starting = [self._start("only", "--swarm-key", self._key)]
        self._providers: dict[str, Provider] = {}

    def _start(self, name: str, *flags: str) -> tuple[Process, Path]:
        home = self._processes.directory / name
        mine: tuple[str | Path, ...] = ("--network", self._network, "--home", home, *flags)
        offer = ("--engine", self._setting.engine, "--slots", str(SLOTS), "--context", "1024")
        path = os.pathsep.join((str(ROOT), str(Path(__file__).parent)))
        environment = {"HEARTBEAT": str(home / "beats.json"), "PYTHONPATH": path}
        return self._processes.serve("heartbeat", "provide", *mine, *offer, environment=environment), home

    async def kill_again_and_again(self) -> Sequence[Kill]:
        async with AsyncExitStack() as stack:
            crowd = [await self._client(stack, f"reader{number}") for number in range(self._setting.clients)]
            for process, home in self._starting:
                (ready,) = await trio.to_thread.run_sync(process.records, "ready")
                self._providers[ready["peer"]] = Provider(process, home, ready)
            probes = {peer: await self._client(stack, peer, peer) for peer in self._providers}
            for client in probes.values():
                await client.complete(QUESTION, max_tokens=4)  # a channel is open
            return [await self._kill(crowd, probes) for _ in range(self._setting.kills)]

    async def _client(self, stack: AsyncExitStack, name: str, *allow: str) -> Client:
        home, ask = self._processes.directory / name, AskConfig(model=self._setting.model, allow=allow)
        if self._setting.others:
            mine = ("--network", self._network, "--home", home)
            assert self._processes.run("p2p.node", "wallet", "fund", *mine).code == 0
        config = Config(home=str(home), network=str(self._network), swarm_key=self._key, ask=ask)
        return await stack.enter_async_context(Client(config))

    async def _kill(self, crowd: list[Client], probes: dict[str, Client]) -> Kill:
        readers, begun_at = [Reader() for _ in range(STREAMS)], time.time()
        with trio.fail_after(LIMIT_S):
            async with trio.open_nursery() as nursery:
                for reader, client in zip(readers, STREAMS // len(crowd) * crowd, strict=True):
                    nursery.start_soon(reader.read, client, self._setting.tokens)
                for reader in readers:
                    await reader.begun.wait()
                assert all(reader.error is None for reader in readers), [reader.error for reader in readers]
                (victim,) = {reader.provider for reader in readers if reader.provider}
                engine = engine_of(self._providers[victim].process, self._processes)
                killed_at = time.time()
                os.kill(engine, signal.SIGKILL)
                for reader in readers:
                    await reader.heard.wait()  # before, whoever asks is told that all places are taken
                again_at, refused = await _answered(probes[victim])
        return Kill(readers, killed_at, begun_at, again_at, refused)

    def late_s(self, kills: Sequence[Kill]) -> Sequence[tuple[float, float]]:
        """Ends the providers."""
        found = []
        for provider in self._providers.values():
            provider.process.close_stdin()
            assert provider.process.wait().code == 0
            beats = json.loads((provider.home / "beats.json").read_text())
            found += [
                (late_s, own_s)
                for at, late_s, own_s in beats
                if any(kill.begun_at <= at <= kill.again_at for kill in kills)
            ]
        return found


def engine_of(node: Process, processes: Processes) -> int:
    """The process of a provider's engine."""
    (pid,) = (pid for pid, command in processes.living().items() if _is_engine(pid, command, node.pid))
    return pid


def _is_engine(pid: int, command: str, parent: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    return "inference.child" in command and f"PPid:\t{parent}\n" in status


async def _answered(client: Client) -> tuple[float, Sequence[str]]:
    """When the first piece of an answer came, which is asked for until there is one; and what was said before."""
    refused: list[str] = []
    while True:
        try:
            async with client.chat(QUESTION, max_tokens=4) as reply:
                await anext(reply)
                first_at = time.time()
                async for _ in reply:  # an engine that never ends an answer is left alone for ever longer
                    pass
                return first_at, refused
        except Error as error:
            refused.append(str(error))


def run_kills(processes: Processes, setting: Setting) -> Report:
    street = Street(processes, setting)
    kills = trio.run(street.kill_again_and_again)
    return Report(setting, kills, street.late_s(kills))


def table(reports: Sequence[Report]) -> Sequence[str]:
    """In Markdown."""
    heads = "| engine | kills | failed clearly | went on with another | known after, median | worst "
    lines = [
        f"{heads}| answers again after, median | worst | loop's lag, p99 | plainly |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
        *map(_row, reports),
    ]
    readers = [reader for report in reports for kill in report.kills for reader in kill.readers]
    told = Counter(str(reader.error) for reader in readers if reader.error is not None)
    return [*lines, "", *(f"{count} readers were told: {text}." for text, count in told.items())]


def _row(report: Report) -> str:
    readers = [reader for kill in report.kills for reader in kill.readers]
    heard_s = [heard_s for kill in report.kills for heard_s in kill.heard_s]
    again_s = [kill.again_at - kill.killed_at for kill in report.kills]
    failed = sum(isinstance(reader.error, EngineError) for reader in readers)
    went_on = sum(reader.error is None and reader.heard_at > 0 for reader in readers)
    times = " | ".join(f"{of(times_s):.2f} s" for times_s in (heard_s, again_s) for of in (statistics.median, max))
    plain_ms, own_ms = (1000 * p99(late_s) for late_s in zip(*report.late_s, strict=True))
    counts = f"{len(report.kills)} | {failed} of {len(readers)} | {went_on} of {len(readers)}"
    return f"| {report.setting.engine} | {counts} | {times} | {own_ms:.1f} ms | {plain_ms:.1f} ms |"
