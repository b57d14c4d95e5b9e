"""Crowds at the door of a whole host: who gets in meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
from loopback import ECHO, a_host, echo, raw, until
from test_guards import assert_serves, port_of

from p2p.host import Host
from p2p.net.gate import Gate

GREETING = b"\x13/multistream/1.0.0\n"  # what a node says first, once it is ready to shake hands


@asynccontextmanager
async def silent(host: Host, count: int, address: str = "127.0.0.1") -> AsyncIterator[list[trio.SocketStream]]:
    """Connections from that address that say nothing."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(await dial(host, address)) for _ in range(count)]


async def dial(host: Host, address: str) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", port_of(host), local_address=address)


@pytest.mark.slow
async def test_a_crowd_that_says_nothing_keeps_nobody_out() -> None:
    async with a_host("a") as a, silent(a, 300):
        with trio.fail_after(2):
            async with await dial(a, "127.0.0.2") as neighbour:
                assert await neighbour.receive_some(100) == GREETING
        await assert_serves(a)  # from the same address as the crowd


async def test_the_oldest_of_a_silent_crowd_is_dropped() -> None:
    async with a_host("a") as a, silent(a, 1) as (first,), silent(a, 64):
        with trio.fail_after(2):
            while await first.receive_some(100):
                pass


async def test_a_garbled_handshake_leaves_nothing() -> None:
    async with a_host("a") as a:
        async with silent(a, 20) as crowd:
            for stream in crowd:
                await stream.send_all(GREETING + b"\x07/noise\n" + bytes(100))
        await until(lambda: not len(gate(a)._arrivals))
        assert not gate(a)._inbound
        assert not gate(a)._shaking


async def test_a_connection_has_a_place_until_it_ends() -> None:
    async with a_host("a") as a:
        a.serve(ECHO, echo)
        async with a_host("b", listen=()) as b:
            await b.connect(a.addresses()[0])
            assert len(gate(a)._arrivals) == len(raw(a).get_network().get_connections()) > 0
        await until(lambda: not len(gate(a)._arrivals))
        assert not raw(a).get_network().get_connections()


def gate(host: Host) -> Gate:
    return host._gate  # type: ignore[attr-defined,no-any-return]
