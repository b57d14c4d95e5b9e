"""Inbound connections one after the other to one host, and what is left of them."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import trio
from loopback import ECHO, a_host, echo, raw, until

from p2p.host import Host, PeerAddress

VISITORS = 10  # by turns: one peer may connect ten times a second


class Left(NamedTuple):
    """What there is once so many connections have come and gone."""

    connections: int
    tasks: int
    objects: int
    rss_kib: int


async def visit(host: Host, marks: Sequence[int]) -> list[Left]:
    """A connection with an echo on it, and another, and so on; a look at what is left after each number in `marks`.

    Raises `AssertionError` or `Unavailable` for the first that is not served.
    """
    host.serve(ECHO, echo)
    left = []
    async with AsyncExitStack() as stack:
        names = [f"visitor {number}" for number in range(VISITORS)]
        visitors = [await stack.enter_async_context(a_host(name, listen=())) for name in names]
        for visitor in visitors:
            visitor.learn(PeerAddress(host.peer, tuple(host.addresses())))
        for number in range(max(marks) + 1):
            if number in marks:
                left.append(await _look(host, number))
            visitor = visitors[number % VISITORS]
            stream = await visitor.open(host.peer, ECHO)
            await stream.write(b"served?")
            assert await stream.read(100) == b"served?"
            await stream.close()
            for connection in raw(visitor).get_network().get_connections():
                await connection.muxed_conn.close()
    return left


async def _look(host: Host, number: int) -> Left:
    """When all is quiet."""
    swarm = raw(host).get_network()
    await until(lambda: not swarm.get_connections() and swarm._inbound_limiter.borrowed_tokens == 0)
    await trio.sleep(0.3)  # the library's own notices of what ended
    gc.collect()
    return Left(number, trio.lowlevel.current_statistics().tasks_living, len(gc.get_objects()), _resident_kib())


def _resident_kib() -> int:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0])
