"""A node that writes down how late its loop is: `python -m heartbeat provide …`, which is `p2p.node` otherwise.

HEARTBEAT is the file that gets a JSON list of `[unix seconds, seconds late, seconds late by our own doing]` at the end.
A beat is due each `EVERY_S`, also while the loop is held up. What the kernel counts as waiting for a core is not our
own doing, nor is what a hypervisor takes from the core that lost most: a machine with other work makes everybody late.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import trio

from inference.nursery import open_background
from p2p import node
from p2p.console import Session

EVERY_S = 0.005
SCHEDSTAT, STAT = Path("/proc/thread-self/schedstat"), Path("/proc/stat")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")

Beat = tuple[float, float, float]
BEATS: list[Beat] = []


async def beat(beats: list[Beat]) -> None:
    """For ever."""
    due, before_s = trio.current_time() + EVERY_S, (_waited_s(), _stolen_s())
    while True:
        await trio.sleep_until(due)
        now, at, stolen_s = trio.current_time(), time.time(), _stolen_s()
        others_s = (
            _waited_s() - before_s[0] + max(after - then for then, after in zip(before_s[1], stolen_s, strict=True))
        )
        while due <= now:
            beats.append((at - (now - due), now - due, max(0.0, now - due - others_s)))
            due += EVERY_S
        before_s = _waited_s(), stolen_s


def _waited_s() -> float:
    return int(SCHEDSTAT.read_text().split()[1]) / 1e9


def _stolen_s() -> list[float]:
    """From each core, ever."""
    rows = (line.split() for line in STAT.read_text().splitlines() if line.startswith("cpu"))
    return [int(row[8]) / TICKS_PER_S for row in rows][1:]  # the first is of all together


async def provide(session: Session) -> None:
    """In place of the command."""
    async with open_background() as background:
        background.start_soon(beat, BEATS)
        await node.provide(session)


if __name__ == "__main__":
    node.COMMANDS["provide"] = provide
    try:
        node.main()
    finally:
        Path(os.environ["HEARTBEAT"]).write_text(json.dumps(BEATS))
