"""Real transports for tests: two ends of a socket, shaken hands by Noise, with our stack or the stock one."""

from __future__ import annotations

import hashlib
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_x25519
from libp2p.custom_types import TProtocol
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_PROTOCOL
from libp2p.security.noise.transport import Transport as StockNoise
from libp2p.stream_muxer.yamux.yamux import Yamux as StockYamux
from multiaddr import Multiaddr

from p2p.host import Host, Stream
from p2p.net import yamux
from p2p.net.libp2p_host import open_host
from p2p.net.limits import USUAL, InboundLimits
from p2p.net.muxer import MuxedConn
from p2p.net.noise import NoiseTransport
from p2p.protocol.relaying import Limits

LISTEN = ("/ip4/127.0.0.1/tcp/0",)
ECHO = "/bombyx/echo/1"
STOCK, OURS = "stock", "ours"


def seed(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def raw_pair() -> tuple[RawConnection, RawConnection]:
    ours, theirs = socket.socketpair()
    return _raw(ours, initiator=True), _raw(theirs, initiator=False)


def _raw(end: socket.socket, *, initiator: bool) -> RawConnection:
    return RawConnection(TrioTCPStream(trio.SocketStream(trio.socket.from_stdlib_socket(end))), initiator)


async def secure(a: RawConnection, b: RawConnection, kinds: tuple[str, str] = (OURS, OURS)) -> tuple[Any, Any]:
    """Shake hands over two raw ends; `kinds` says whose Noise each end runs."""
    keys = [create_new_key_pair(seed(name)) for name in ("a", "b")]
    noise: list[Any] = [
        NoiseTransport(key) if kind == OURS else StockNoise(key, noise_privkey=create_x25519().private_key)
        for key, kind in zip(keys, kinds, strict=True)
    ]
    sessions: list[Any] = [None, None]

    async def inbound() -> None:
        sessions[1] = await noise[1].secure_inbound(b)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(inbound)
        sessions[0] = await noise[0].secure_outbound(a, ID.from_pubkey(keys[1].public_key))
    return sessions[0], sessions[1]


class _Memory:
    """An end of a channel in memory, over which bytes come in pieces and take their time."""

    def __init__(self, stream: trio.abc.Stream, dice: random.Random) -> None:
        self._stream = stream
        self._dice = dice

    async def write(self, data: bytes) -> None:
        while data:
            size = self._dice.choice([1, 500, 20_000, 200_000])
            await self._stream.send_all(data[:size])
            data = data[size:]
            await trio.sleep(self._dice.choice([0, 0.001, 0.02]))

    async def read(self, n: int | None = None) -> bytes:
        return bytes(await self._stream.receive_some(n))

    async def close(self) -> None:
        await self._stream.aclose()

    def get_remote_address(self) -> tuple[str, int] | None:
        return None


def memory_pair(dice: random.Random) -> tuple[RawConnection, RawConnection]:
    """As `raw_pair`, without a socket: for tests on a clock of their own."""
    ours, theirs = trio.testing.memory_stream_pair()
    return RawConnection(_Memory(ours, dice), True), RawConnection(_Memory(theirs, dice), False)


@asynccontextmanager
async def muxed_pair(
    kinds: tuple[str, str] = (OURS, OURS), raws: tuple[RawConnection, RawConnection] | None = None
) -> AsyncIterator[tuple[Any, Any]]:
    """Two running muxed connections back to back, over a socket unless other ends are given."""
    sessions = await secure(*(raws or raw_pair()), kinds)
    conns = [
        (MuxedConn if kind == OURS else StockYamux)(session, session.get_remote_peer())
        for kind, session in zip(kinds, sessions, strict=True)
    ]
    async with trio.open_nursery() as nursery:
        for conn in conns:
            nursery.start_soon(conn.start)
            await conn.event_started.wait()
        try:
            yield conns[0], conns[1]
        finally:
            for conn in conns:
                with trio.move_on_after(1):
                    await conn.close()
            nursery.cancel_scope.cancel()


async def read_exactly(stream: Any, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = await stream.read(size - len(data))
        assert piece, "the stream ended early"
        data += piece
    return bytes(data)


def stock_host(name: str, **options: Any) -> Any:
    """A libp2p host as the library makes it, on Noise and Yamux; run it with `host.run(...)`."""
    key = create_new_key_pair(seed(name))
    return new_host(
        key_pair=key,
        sec_opt={NOISE_PROTOCOL: StockNoise(key, noise_privkey=create_x25519().private_key)},
        muxer_opt={TProtocol(yamux.PROTOCOL): StockYamux},
        listen_addrs=[Multiaddr(LISTEN[0])],
        **options,
    )


def a_host(
    name: str,
    *,
    dht_server: bool = True,
    listen: tuple[str, ...] = LISTEN,
    network: str = "test",
    relay: Limits | None = None,
    upnp: bool = False,
    inbound: InboundLimits = USUAL,
    swarm_key: bytes | None = None,
) -> Any:
    options: dict[str, Any] = {"dht_server": dht_server, "network": network, "relay": relay, "upnp": upnp}
    return open_host(seed(name), listen, inbound=inbound, swarm_key=swarm_key, **options)


def raw(host: Host) -> Any:
    """The library's host within one of ours, for what the seam does not show."""
    return host._host  # type: ignore[attr-defined]


async def read_to_end(stream: Stream) -> bytes:
    data = bytearray()
    while piece := await stream.read(65536):
        data += piece
    return bytes(data)


async def echo(stream: Stream) -> None:
    while data := await stream.read(65536):
        await stream.write(data)
    await stream.close()


async def until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Wait for something that libp2p tells nobody about."""
    with trio.fail_after(timeout_s):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.01)
