"""The provider's machine as its owner uses it, and a pause whenever that asks for one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import trio
from trio.to_thread import run_sync

from inference.gpu import Gpu, gpus
from p2p.manners import STOPPING, Manners, Pause, Seen
from p2p.trace import Trace

LOOK_EVERY_S = 5.0


class Owner:
    """Looks every few seconds; between, `pause` is what was found last."""

    def __init__(
        self,
        manners: Manners,
        trace: Trace,
        *,
        root: Path = Path("/"),
        local_time: Callable[[], time.struct_time] = time.localtime,
        look_at_gpus: Callable[[], Sequence[Gpu]] = gpus,
    ) -> None:
        self._manners = manners
        self._trace = trace
        self._root = root
        self._local_time = local_time
        self._look_at_gpus = look_at_gpus
        self._stopping = False
        self._found: Pause | None = None
        self.gpus: Sequence[Gpu] = ()  # as they were when it looked last

    def pause(self) -> Pause | None:
        """Why nothing new is served right now, if that is so."""
        return STOPPING if self._stopping else self._found

    def stop(self) -> None:
        """From now on nothing new is served."""
        self._stopping = True

    async def watch(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look until cancelled; `started` once it has looked."""
        while True:
            self._take(await run_sync(self.look))
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            await trio.sleep(LOOK_EVERY_S)

    def _take(self, pause: Pause | None) -> None:
        before = self._found and self._found.reason
        self._found = pause
        if pause is not None and pause.reason != before:
            self._trace("paused", reason=pause.reason, why=pause.why, for_s=pause.for_s)
        elif pause is None and before:
            self._trace("resumed")

    def look(self) -> Pause | None:
        """Why to rest right now, if there is a reason. Blocks while it asks files and drivers."""
        now = self._local_time()
        second = now.tm_hour * 3600 + now.tm_min * 60 + min(now.tm_sec, 59)
        self.gpus = self._look_at_gpus()
        in_use = any(not is_ours(pid, self._root) for gpu in self.gpus for pid in gpu.pids)
        return self._manners.pause(Seen(second, on_battery(self._root), in_use))


def on_battery(root: Path = Path("/")) -> bool:
    """Whether no mains is on, or, where none is listed, a battery of the machine's own discharges."""
    supplies = root / "sys/class/power_supply"
    found = [_supply(folder) for folder in supplies.iterdir()] if supplies.is_dir() else []
    own = [supply for supply in found if supply.get("scope") != "Device"]  # a mouse's battery is not ours
    mains = [supply.get("online") for supply in own if supply.get("type") == "Mains"]
    if mains:
        return "1" not in mains
    return any(supply.get("status") == "Discharging" for supply in own if supply.get("type") == "Battery")


def _supply(folder: Path) -> dict[str, str]:
    found = {}
    for name in ("type", "online", "status", "scope"):
        try:
            found[name] = (folder / name).read_text().strip()
        except OSError:
            continue
    return found


def is_ours(pid: int, root: Path = Path("/"), us: int | None = None) -> bool:
    """Whether a process is this one or descends from it, as the engine's worker does."""
    us = os.getpid() if us is None else us
    while pid > 1:
        if pid == us:
            return True
        try:
            status = (root / f"proc/{pid}/status").read_text()
        except OSError:
            return False
        pid = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("PPid:")), 0)
    return False
