"""Inbound connections one after the other to one host, and what is left of them."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import trio
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.network.stream.net_stream import NetStream
from loopback import ECHO, a_host, echo, raw

from p2p.host import Host, PeerAddress
from p2p.net.muxer import MuxedConn, MuxedStream
from p2p.net.noise import NoiseSession

KINDS = {RawConnection, NoiseSession, MuxedConn, MuxedStream, SwarmConn, NetStream}
PATIENCE_S = 1.0
VISITORS = 5  # by turns: one peer may connect ten times a second


class Left(NamedTuple):
    """What there is once so many connections have come and gone."""

    connections: int
    tasks: int
    objects: int  # of those that a connection and its streams are made of
    rss_kib: int


async def visit(host: Host, marks: Sequence[int]) -> list[Left]:
    """A connection with an echo on it, and another, and so on; a look at what is left after each number in `marks`.

    Raises `AssertionError` or `Unavailable` for the first that is not served.
    """
    host.serve(ECHO, echo)
    left, before = [], _objects()  # those are somebody else's
    for start, mark in pairwise((0, *marks)):
        async with AsyncExitStack() as stack:
            names = [f"visitor {number}" for number in range(VISITORS)]
            visitors = [await stack.enter_async_context(a_host(name, listen=())) for name in names]
            for visitor in visitors:
                visitor.learn(PeerAddress(host.peer, tuple(host.addresses())))
            for number in range(start, mark):
                await _visit_once(visitors[number % VISITORS], host)
        left.append(await _look(mark, before))
    return left


async def _visit_once(visitor: Host, host: Host) -> None:
    stream = await visitor.open(host.peer, ECHO)
    await stream.write(b"served?")
    assert await stream.read(100) == b"served?"
    await stream.close()
    for connection in raw(visitor).get_network().get_connections():
        await connection.muxed_conn.close()


async def _look(number: int, before: int) -> Left:
    """Once the visitors have left and the last connection is all gone, or will not go."""
    with trio.move_on_after(PATIENCE_S):
        while (objects := _objects() - before) > 0:  # noqa: ASYNC110
            await trio.sleep(0.2)
    return Left(number, trio.lowlevel.current_statistics().tasks_living, max(0, objects), _resident_kib())


def _objects() -> int:
    gc.collect()
    return sum(type(each) in KINDS for each in gc.get_objects())


def _resident_kib() -> int:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0])
