"""The transport at its full counts: cancels, connections that come and go, and bytes of every kind."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence

import campaign
import cancelling
import trio
import trio.testing
import visiting
from loopback import a_host
from targets import TARGETS

CANCELS, DIALS = 10_000, 500
CONNECTIONS = (250, 500, 1_000)
INPUTS = 1_000_000
GROWTH_KIB = 8  # of memory, for each connection that came and went; one that leaked would hold some 60


def cancels(seed: int) -> Sequence[str]:
    """Markdown, or the `AssertionError` of the first byte that was lost."""

    async def between_hosts() -> cancelling.Report:
        async with cancelling.host_link() as link:
            return await cancelling.run(link, CANCELS, random.Random(seed))

    async def in_memory() -> cancelling.Report:
        dice = random.Random(seed)
        async with cancelling.memory_link(dice) as link:
            return await cancelling.run(link, CANCELS, dice)

    async def dials() -> cancelling.Report:
        return await cancelling.run_dials(DIALS, random.Random(seed))

    runs: dict[str, Callable[[], Awaitable[cancelling.Report]]] = {
        "two hosts, over TCP": between_hosts,
        "two ends in memory, on a clock of their own": in_memory,
        "dials": dials,
    }
    rows = []
    for name, run in runs.items():
        clock = trio.testing.MockClock(autojump_threshold=0) if run is in_memory else None
        report = trio.run(run, clock=clock)
        done = [f"{report.cancelled[what]:,}" for what in ("read", "write", "open", "dial")]
        rows.append(f"| {name} | {' | '.join(done)} | {report.witnessed_bytes / 1e6:,.0f} MB |")
    return [
        "Each call is cancelled at its n-th await, n at random. What the cancelled streams had queued arrived, and no",
        f"more; {cancelling.WITNESSES} other streams of the same connection saw every byte, and nothing was left open.",
        "",
        "| over | reads | writes | openings of streams | dials | meanwhile on the other streams |",
        "|---|---|---|---|---|---|",
        *rows,
    ]


def visits(_seed: int) -> Sequence[str]:
    """Markdown, or the `AssertionError` for what inbound connections leave behind."""

    async def visit() -> Sequence[visiting.Left]:
        async with a_host("host") as host:
            return await visiting.visit(host, CONNECTIONS)

    first, *later = trio.run(visit)
    for left in later:
        grown = (left.rss_kib - first.rss_kib) / (left.connections - first.connections)
        new = left.connections - first.connections
        assert left.objects < first.objects + new, f"{left.objects} parts of connections are left of {left.connections}"
        assert left.tasks <= first.tasks + visiting.VISITORS, f"tasks grew from {first.tasks} to {left.tasks}"
        assert grown < GROWTH_KIB, f"memory grew by {grown:.0f} KiB for each connection"
    return [
        f"One host, and {visiting.VISITORS} others that connect to it by turns, are answered on a stream, and leave.",
        "Stock, the host would refuse the 251st.",
        "",
        "| inbound connections so far | tasks | parts of connections alive | memory of both sides |",
        "|---|---|---|---|",
        *map(_row, (first, *later)),
    ]


def _row(left: visiting.Left) -> str:
    return f"| {left.connections:,} | {left.tasks} | {left.objects} | {left.rss_kib / 1024:.1f} MiB |"


def inputs(seed: int) -> Sequence[str]:
    """Markdown, or the `AssertionError` for the first input that made a decoder raise what it may not."""
    if reason := campaign.missing():
        return [f"Not run: {reason}."]
    results = campaign.run(INPUTS, seed)
    for one in results:
        assert not one.fault, f"{one.name}: {one.fault}"
    total = sum(one.inputs for one in results)
    assert total >= INPUTS, f"only {total:,} inputs were tried"
    return [
        f"{total:,} inputs for {len(TARGETS)} decoders by atheris, which is led by what they reach in the code. No",
        "decoder raised anything but its own word for what is wrong.",
        "",
        "| decoder | inputs | that led further |",
        "|---|---|---|",
        *(f"| {one.name} | {one.inputs:,} | {one.kept:,} |" for one in results),
    ]
