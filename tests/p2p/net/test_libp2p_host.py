"""Whole hosts on loopback: streams, failures, discovery, gossip and what strangers may try."""

from __future__ import annotations

import random
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
import trio.testing
from loopback import ECHO, a_host, echo, raw, read_to_end, seed, until

from chain.keys import Ed25519Signer
from p2p.errors import LocalError, RemoteError, Unavailable
from p2p.host import Host, PeerAddress, Stream
from p2p.keys import peer_id_of


@asynccontextmanager
async def two_hosts() -> AsyncIterator[tuple[Host, Host]]:
    async with a_host("a") as a, a_host("b") as b:
        a.learn(PeerAddress(b.peer, tuple(b.addresses())))
        yield a, b


async def test_identity_and_addresses() -> None:
    async with two_hosts() as (a, b):
        assert a.peer == peer_id_of(Ed25519Signer(seed("a")).public_key)
        (address,) = b.addresses()
        assert address.startswith("/ip4/127.0.0.1/tcp/")
        assert "/tcp/0/" not in address
        assert address.endswith(f"/p2p/{b.peer}")
    async with a_host("dialler", listen=()) as dialler:
        assert dialler.addresses() == ()


async def test_echo_half_close_and_both_ends_known() -> None:
    async with two_hosts() as (a, b):
        peers = []

        async def handler(stream: Stream) -> None:
            peers.append((stream.peer, stream.source))
            await echo(stream)

        b.serve(ECHO, handler)
        stream = await a.open(b.peer, ECHO)
        await stream.write(b"hello")
        await stream.close()
        await stream.close()
        assert await read_to_end(stream) == b"hello"
        assert await stream.read(1) == b""
        assert (stream.peer, peers) == (b.peer, [(a.peer, "127.0.0.1")])
        with pytest.raises(LocalError):
            await stream.write(b"more")
        with pytest.raises(LocalError):
            await stream.read(0)


async def test_five_megabytes_both_ways_at_once() -> None:
    async with two_hosts() as (a, b), trio.open_nursery() as nursery:
        b.serve(ECHO, echo)
        stream = await a.open(b.peer, ECHO)
        data = random.Random(5).randbytes(5_000_000)

        async def send() -> None:
            await stream.write(data)
            await stream.close()

        nursery.start_soon(send)
        with trio.fail_after(30):
            assert await read_to_end(stream) == data


async def test_a_reset_reaches_the_other_end() -> None:
    async with two_hosts() as (a, b):
        reading, seen = trio.Event(), trio.Event()

        async def handler(stream: Stream) -> None:
            assert await stream.read(1) == b"x"
            reading.set()
            with pytest.raises(Unavailable):
                await stream.read(1)
            seen.set()

        b.serve(ECHO, handler)
        stream = await a.open(b.peer, ECHO)
        await stream.write(b"x")
        await reading.wait()
        await stream.reset()
        await stream.reset()
        with trio.fail_after(5):
            await seen.wait()
        for call in (stream.read(1), stream.write(b"x")):
            with pytest.raises(Unavailable):
                await call


@pytest.mark.parametrize(
    "error", [ValueError("ours"), RemoteError("malformed"), ExceptionGroup("two", [OSError(), KeyError()])]
)
async def test_an_exception_in_a_handler_ends_that_stream_only(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async with two_hosts() as (a, b):

        async def broken(stream: Stream) -> None:
            await stream.read(1)
            raise error

        b.serve("/bombyx/broken/1", broken)
        b.serve(ECHO, echo)
        witness = await a.open(b.peer, ECHO)
        stream = await a.open(b.peer, "/bombyx/broken/1")
        await stream.write(b"x")
        with pytest.raises(Unavailable), trio.fail_after(5):
            await stream.read(1)
        await witness.write(b"still here")
        assert await witness.read(100) == b"still here"
        assert ("the handler of /bombyx/broken/1 failed" in caplog.text) is not isinstance(error, RemoteError)


async def test_what_a_handler_wrote_last_arrives_although_it_read_nothing() -> None:
    async with two_hosts() as (a, b):

        async def answer(stream: Stream) -> None:
            await stream.write(bytes(500_000))

        b.serve(ECHO, answer)
        stream = await a.open(b.peer, ECHO)
        await stream.write(bytes(100_000))
        with trio.fail_after(5):
            assert await read_to_end(stream) == bytes(500_000)
        await stream.close()


async def test_an_unknown_protocol_is_unavailable() -> None:
    async with two_hosts() as (a, b):
        with pytest.raises(Unavailable, match="/bombyx/nothing/1"):
            await a.open(b.peer, "/bombyx/nothing/1")


async def test_nobody_there_is_unavailable_and_a_new_address_is_tried_at_once() -> None:
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        port = placeholder.getsockname()[1]
    async with a_host("a") as a:
        peer = peer_id_of(Ed25519Signer(seed("b")).public_key)
        with pytest.raises(Unavailable, match="no address"):
            await a.open(peer, ECHO)
        with pytest.raises(Unavailable):
            await a.connect(f"/ip4/127.0.0.1/tcp/{port}/p2p/{peer}")
        a.learn(PeerAddress(peer, ("/ip4/127.0.0.1/tcp/1", "rubbish", f"/ip4/127.0.0.1/tcp/{port}/p2p/{peer}")))
        with pytest.raises(Unavailable):
            await a.open(peer, ECHO)
        async with a_host("b", listen=(f"/ip4/127.0.0.1/tcp/{port}",)) as b:
            b.serve(ECHO, echo)
            a.learn(PeerAddress(peer, tuple(b.addresses())))
            stream = await a.open(peer, ECHO)
            await stream.write(b"back")
            assert await stream.read(10) == b"back"


async def test_the_wrong_peer_at_an_address_is_unavailable() -> None:
    async with two_hosts() as (a, b):
        stranger = peer_id_of(Ed25519Signer(seed("stranger")).public_key)
        (address,) = b.addresses()
        with pytest.raises(Unavailable):
            await a.connect(address.replace(b.peer, stranger))


async def test_a_host_that_accepts_and_says_nothing_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    peer = peer_id_of(Ed25519Signer(seed("b")).public_key)
    async with a_host("a") as a:
        before = trio.current_time()
        with pytest.raises(Unavailable, match="too long"):
            await a.connect(f"/ip4/127.0.0.1/tcp/{port}/p2p/{peer}")
        assert trio.current_time() - before <= 10.1
    await listeners[0].aclose()


@pytest.mark.parametrize("address", ["", "junk", "/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/1/p2p/junk"])
async def test_a_bad_address_is_our_mistake(address: str) -> None:
    async with a_host("a", listen=()) as a:
        with pytest.raises(LocalError):
            await a.connect(address)
        with pytest.raises(LocalError):
            await a.open("junk", ECHO)


async def test_our_own_address_is_our_mistake() -> None:
    async with a_host("a") as a:
        with pytest.raises(LocalError, match="our own"):
            await a.connect(a.addresses()[0])


async def test_many_streams_at_once_dial_once() -> None:
    async with two_hosts() as (a, b), trio.open_nursery() as nursery:
        b.serve(ECHO, echo)
        for _ in range(20):
            nursery.start_soon(a.open, b.peer, ECHO)
        await until(lambda: raw(a).get_connected_peers())
        assert len(raw(a).get_network().get_connections()) == 1


async def test_a_taken_port_is_found_out_although_libp2p_would_share_it() -> None:
    async with a_host("a") as a:
        port = a.addresses()[0].split("/")[4]
        with pytest.raises(LocalError, match=f"port {port}"):
            async with a_host("b", listen=(f"/ip4/127.0.0.1/tcp/{port}",)):
                pytest.fail("two hosts listen on one port")
    async with a_host("b", listen=(f"/ip4/127.0.0.1/tcp/{port}",)) as b:
        assert f"/tcp/{port}/" in b.addresses()[0]


@pytest.mark.parametrize("listen", ["junk", "/ip4/127.0.0.1/udp/0", "/dns4/localhost/tcp/0", "/ip4/192.0.2.1/tcp/0"])
async def test_a_bad_listen_address_is_our_mistake(listen: str) -> None:
    with pytest.raises(LocalError):
        async with a_host("a", listen=(listen,)):
            pytest.fail("it listens")


async def test_what_the_body_raises_leaves_bare_and_nothing_stays_behind() -> None:
    tasks = trio.lowlevel.current_statistics().tasks_living

    async def fail_inside() -> None:
        async with two_hosts() as (a, b):
            await a.connect(b.addresses()[0])
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await fail_inside()
    await until(lambda: trio.lowlevel.current_statistics().tasks_living <= tasks)


@pytest.mark.slow
async def test_cancelling_closes_quickly_with_connections_open() -> None:
    tasks = trio.lowlevel.current_statistics().tasks_living
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(a_host(f"peer {number}", listen=())) for number in range(25)]
        with trio.CancelScope() as scope:
            async with a_host("a") as a:
                a.serve(ECHO, echo)
                for peer in peers:  # left alone, the library closes connections one after the other, 0.1 s each
                    await peer.connect(a.addresses()[0])
                stream = await peers[0].open(a.peer, ECHO)
                scope.cancel()
                cancelled_at = trio.current_time()
                await trio.sleep_forever()
        assert trio.current_time() - cancelled_at < 2.0
        with pytest.raises(Unavailable), trio.fail_after(2):
            await stream.read(1)
    await until(lambda: trio.lowlevel.current_statistics().tasks_living <= tasks)


async def test_a_peer_that_leaves_ends_its_streams() -> None:
    async with a_host("a") as a:
        async with a_host("b") as b:
            b.serve(ECHO, echo)
            a.learn(PeerAddress(b.peer, tuple(b.addresses())))
            stream = await a.open(b.peer, ECHO)
            await stream.write(b"x")
            assert await stream.read(1) == b"x"
        with pytest.raises(Unavailable), trio.fail_after(2):
            await stream.read(1)


class Wire:
    """A TCP proxy that keeps everything that passes."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.seen = bytearray()

    async def pump(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        async for data in source:
            self.seen += data
            await sink.send_all(data)

    async def handle(self, near: trio.SocketStream) -> None:
        far = await trio.open_tcp_stream("127.0.0.1", self._target)
        async with far, trio.open_nursery() as nursery:
            nursery.start_soon(self.pump, near, far)
            nursery.start_soon(self.pump, far, near)


async def test_nothing_of_a_payload_passes_in_clear() -> None:
    async with a_host("a") as a, a_host("b") as b, trio.open_nursery() as nursery:
        wire = Wire(int(b.addresses()[0].split("/")[4]))
        listeners = await nursery.start(trio.serve_tcp, wire.handle, 0)
        port = listeners[0].socket.getsockname()[1]
        b.serve(ECHO, echo)
        secret = b"the prompt that nobody else may read. " * 300
        a.learn(PeerAddress(b.peer, (f"/ip4/127.0.0.1/tcp/{port}/p2p/{b.peer}",)))
        stream = await a.open(b.peer, ECHO)
        await stream.write(secret)
        await stream.close()
        assert await read_to_end(stream) == secret
        assert len(wire.seen) > 2 * len(secret)
        assert b"/noise" in wire.seen, "the proxy sees the negotiation"
        for start in range(60):
            assert secret[start : start + 8] not in wire.seen
        assert ECHO.encode() not in wire.seen
        nursery.cancel_scope.cancel()
