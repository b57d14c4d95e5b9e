"""How much memory there is for a model: the machine's, less where a control group or a limit allows less."""

from __future__ import annotations

import resource
from pathlib import Path

_UNLIMITED = 1 << 60  # control groups of version 1 write a huge number where there is no limit


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that can be had now without swapping; `None` where the system does not say (Linux's proc file system)."""
    meminfo = root / "proc/meminfo"
    if not meminfo.exists():
        return None
    sizes = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    found = [int(sizes["MemAvailable"].split()[0]) * 1024, *_control_groups(root)]
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        found.append(limit)
    return max(0, min(found))


def _control_groups(root: Path) -> list[int]:
    """What is left in the group that we are in, and in each above it."""
    listed = root / "proc/self/cgroup"
    left = []
    for line in listed.read_text().splitlines() if listed.exists() else ():
        _, controllers, group = line.split(":", 2)
        if not controllers:
            top, limit, used = root / "sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            top, limit, used = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        inside = top / group.lstrip("/")
        left += [room for folder in (inside, *inside.parents) if (room := _room(folder, limit, used)) is not None]
    return left


def _room(folder: Path, limit: str, used: str) -> int | None:
    try:
        most = int((folder / limit).read_text())  # version 2 has the word `max` there
        room = most - int((folder / used).read_text())
    except (OSError, ValueError):
        return None
    return room if most < _UNLIMITED else None
