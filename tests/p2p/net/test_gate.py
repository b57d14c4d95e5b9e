"""Crowds at the door of a whole host: who gets in meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio
from loopback import ECHO, a_host, echo, raw, read_to_end, until
from test_guards import assert_serves, port_of

from p2p.errors import RemoteError, Unavailable
from p2p.host import Host, Stream
from p2p.net.conduct import BAN_S, FAULTS_FORGIVEN
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


async def test_who_is_connected_and_how() -> None:
    async with a_host("a") as a, a_host("b", listen=()) as b:
        await b.connect(a.addresses()[0])
        await until(lambda: a.peers()[0].rtt_ms and b.peers()[0].rtt_ms)
        ((at_a,), (at_b,)) = a.peers(), b.peers()
        assert (at_a.peer, at_a.inbound, at_a.path, at_a.banned) == (b.peer, True, "direct", "")
        assert (at_b.peer, at_b.inbound, at_b.path, at_b.banned) == (a.peer, False, "direct", "")
        assert at_b.addresses == (a.addresses()[0].rpartition("/p2p/")[0],)
        assert 0 <= at_b.connected_s < 10
        assert 1 <= at_b.rtt_ms < 1000


async def write_between(connection: Any, data: bytes) -> None:
    """Below the muxer, which may be writing itself: peers that have just met have much to say."""
    while True:
        try:
            await connection.write(data)
        except trio.BusyResourceError:
            await trio.sleep(0.01)
        else:
            return


async def test_a_connection_that_breaks_the_muxers_rules_counts_against_its_peer() -> None:
    async with a_host("a") as a, a_host("b", listen=()) as b:
        await b.connect(a.addresses()[0])
        (connection,) = raw(b).get_network().get_connections()
        await write_between(connection.muxed_conn._conn, b"\xff" * 12)
        await until(lambda: len(gate(a)._conduct._faults) == 1)
        await assert_serves(a)


async def test_a_handler_has_its_time_and_no_more() -> None:
    async def hang(stream: Stream) -> None:
        await trio.sleep_forever()

    async with a_host("a") as a, a_host("b", listen=()) as b:
        a.serve("/slow/1", hang, timeout_s=0.1)
        await b.connect(a.addresses()[0])
        with trio.fail_after(5), pytest.raises(Unavailable):
            await read_to_end(await b.open(a.peer, "/slow/1"))
        await assert_serves(a)


async def test_who_breaks_the_protocol_again_and_again_is_let_in_no_more() -> None:
    async def refuse(stream: Stream) -> None:
        raise RemoteError("malformed", "as every time")

    async with a_host("a") as a, a_host("b", listen=()) as b:
        a.serve("/strict/1", refuse)
        for _ in range(FAULTS_FORGIVEN + 1):
            assert gate(a).ban(b.peer) is None
            await b.connect(a.addresses()[0])
            with pytest.raises(Unavailable):
                await read_to_end(await b.open(a.peer, "/strict/1"))
        await until(lambda: not raw(a).get_network().get_connections())
        (state,) = a.peers()
        assert (state.peer, state.banned, state.addresses) == (b.peer, "malformed: as every time", ())
        assert 0 < state.banned_s <= BAN_S
        with pytest.raises(Unavailable):
            await read_to_end(await b.open(a.peer, "/strict/1"))
        await assert_serves(a)  # to others at the same address


def gate(host: Host) -> Gate:
    return host._gate  # type: ignore[attr-defined,no-any-return]
