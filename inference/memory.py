"""How much memory there is for a model: the machine's, less where a control group or a limit allows less."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from inference.fitting import MEBIBYTE

_UNLIMITED = 1 << 60  # control groups of version 1 write a huge number where there is no limit
# glibc's, on 64 bits.
_STACK = 8 * MEBIBYTE  # of a thread, where no limit is on it
_ARENA = 64 * MEBIBYTE  # that a thread's allocator reserves
_LIBRARIES = 256 * MEBIBYTE  # mapped, and used in part


class Room(NamedTuple):
    """Bytes that can be had, and what allows no more."""

    bytes: int
    by: str


def available_memory(threads: int, root: Path = Path("/")) -> Room | None:
    """What a process of so many threads can have now without swapping.

    `None` where the system does not say (Linux's proc file system). A limit of the process counts what is reserved, so
    that what threads reserve is taken off.
    """
    meminfo = root / "proc/meminfo"
    if not meminfo.exists():
        return None
    sizes = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    machines = Room(int(sizes["MemAvailable"].split()[0]) * 1024, "what is free")
    least = min((machines, *_control_groups(root), *_limits(threads)), key=lambda room: room.bytes)
    return least._replace(bytes=max(0, least.bytes))


def _limits(threads: int) -> Iterator[Room]:
    stack, _ = resource.getrlimit(resource.RLIMIT_STACK)
    if stack == resource.RLIM_INFINITY:
        stack = _STACK
    for option, kind, per_thread, fixed in (
        ("d", resource.RLIMIT_DATA, stack, 0),
        ("v", resource.RLIMIT_AS, stack + _ARENA, _LIBRARIES),
    ):
        limit, _ = resource.getrlimit(kind)
        if limit != resource.RLIM_INFINITY:
            reserved = fixed + threads * per_thread
            by = f"`ulimit -{option}`, less {reserved // MEBIBYTE:,} MiB that {threads} threads reserve"
            yield Room(limit - reserved, by)


def _control_groups(root: Path) -> list[Room]:
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


def _room(folder: Path, limit: str, used: str) -> Room | None:
    try:
        most = int((folder / limit).read_text())  # version 2 has the word `max` there
        room = most - int((folder / used).read_text())
    except (OSError, ValueError):
        return None
    return Room(room, "a control group") if most < _UNLIMITED else None
