"""Many streaming clients at one gateway at once: whether any fails, how long each waits, and what memory it takes."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import trio
from gateways import Gateway, start_gateway
from local import SCRIPTED, start_bare, start_provider
from processes import Processes

# What the scripted engine takes by its own schedule, of which nothing is our doing.
ENGINE_TTFT_MS = 50.0
ENGINE_GAP_MS = 10.0
AT_ONCE_PER_CHANNEL = 8
TOKENS = 100


@dataclass
class Crowd:
    """What was seen."""

    clients: int
    failed: list[str] = field(default_factory=list)
    answers: int = 0
    ttft_ms: list[float] = field(default_factory=list)
    gap_ms: list[float] = field(default_factory=list)
    rss_mb: list[float] = field(default_factory=list)

    @property
    def added_ttft_ms(self) -> float:
        """The median, beyond the engine's own."""
        return statistics.median(self.ttft_ms) - ENGINE_TTFT_MS

    @property
    def gap_ratio(self) -> float:
        """The median time between two tokens to the engine's own."""
        return statistics.median(self.gap_ms) / ENGINE_GAP_MS


def run_crowd(directory: Path, *, clients: int, duration_s: float) -> Crowd:
    """Each client asks again and again until that time is over, and at least once."""
    with Processes(directory) as processes:
        bare = start_bare(processes)
        start_provider(processes, bare.file, "seller", "--engine", "scripted", "--slots", str(clients))
        channels = {"BOMBYX_ASK_CHANNELS_MAX": str(-(-clients // AT_ONCE_PER_CHANNEL) + 1)}
        gateway = start_gateway(processes, bare.file, environment=channels)
        crowd = Crowd(clients)
        trio.run(_ask_all, crowd, gateway, duration_s)
        return crowd


async def _ask_all(crowd: Crowd, gateway: Gateway, duration_s: float) -> None:
    until = trio.current_time() + duration_s
    limits = httpx.Limits(max_connections=crowd.clients, max_keepalive_connections=crowd.clients)
    async with (
        httpx.AsyncClient(base_url=gateway.url, timeout=300, limits=limits) as http,
        trio.open_nursery() as nursery,
    ):
        await _one(Crowd(1), http, "the first opens a channel")

        async def client(number: int) -> None:
            for turn in range(1 << 30):
                await _one(crowd, http, f"{number} {turn} why is silk strong")
                if trio.current_time() >= until:
                    return

        async def watch() -> None:
            while True:
                crowd.rss_mb.append(rss_mb(gateway.process.pid))
                await trio.sleep(1)

        async with trio.open_nursery() as asking:
            nursery.start_soon(watch)
            for number in range(crowd.clients):
                asking.start_soon(client, number)
        nursery.cancel_scope.cancel()


async def _one(crowd: Crowd, http: httpx.AsyncClient, question: str) -> None:
    asked = {"model": SCRIPTED, "messages": [{"role": "user", "content": question}], "max_tokens": TOKENS}
    times, last, ended, asked_at = [], "", "", time.perf_counter()
    async with http.stream("POST", "/v1/chat/completions", json=asked | {"stream": True}) as response:
        async for line in response.aiter_lines():
            if '"content":" ' in line or ('"content":"' in line and '"content":""' not in line):
                times.append(time.perf_counter())
            if line.startswith("data:"):
                last, ended = ended, line
    if response.status_code != 200 or ended != "data: [DONE]" or json.loads(last[6:]).get("error"):
        crowd.failed.append(f"{response.status_code} {last[:300]}")
        return
    crowd.answers += 1
    crowd.ttft_ms.append(1000 * (times[0] - asked_at))
    crowd.gap_ms.append(1000 * (times[-1] - times[0]) / (len(times) - 1))


def rss_mb(pid: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def table(crowds: Sequence[Crowd]) -> list[str]:
    """A row for each number of clients."""
    named = "TTFT added, median | token gap to the engine's"
    head = f"| clients | answers | failed | {named} | memory at first | after a minute | in the end |"
    rows = [
        f"| {one.clients} | {one.answers} | {len(one.failed)} | {one.added_ttft_ms:.0f} ms | {one.gap_ratio:.2f} |"
        f" {one.rss_mb[0]:.0f} MB | {_after_a_minute(one)} | {one.rss_mb[-1]:.0f} MB |"
        for one in crowds
    ]
    return [head, "|---:|---:|---:|---:|---:|---:|---:|---:|", *rows]


def _after_a_minute(crowd: Crowd) -> str:
    """Of a run that lasts longer: by then everything was used that is kept for use."""
    return f"{crowd.rss_mb[60]:.0f} MB" if len(crowd.rss_mb) > 120 else ""
