"""A stranger's end of a connection, made by hand: it shakes hands as it should, and then says whatever it likes."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.io.exceptions import IOException
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID

from p2p.net.noise import NoiseTransport

TIMEOUT_S = 15.0
DATA, WINDOW_UPDATE, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8
MULTISTREAM, NOISE, YAMUX = "/multistream/1.0.0", "/noise", "/yamux/1.0.0"
HEADER = struct.Struct(">BBHII")  # version, kind, flags, stream, length
WINDOW_BYTES = 256 * 1024
GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, IOException)


class Target(NamedTuple):
    """Whom it is about."""

    ip: str
    port: int
    peer: Any

    @classmethod
    def at(cls, address: str) -> Target:
        """`/ip4/…/tcp/…/p2p/…`"""
        _, _, ip, _, port, _, peer = address.split("/")
        return cls(ip, int(port), ID.from_base58(peer))


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def chunk(payload: bytes) -> bytes:
    """With its length in front, as most protocols here want it."""
    return varint(len(payload)) + payload


def line(text: str) -> bytes:
    """One of multistream's."""
    return chunk(text.encode() + b"\n")


async def knock(target: Target, source: str) -> trio.SocketStream:
    """A bare connection from that address of this machine."""
    return await trio.open_tcp_stream(target.ip, target.port, local_address=source)


@asynccontextmanager
async def intrude(target: Target, source: str, seed: bytes) -> AsyncIterator[Intruder]:
    """A connection whose handshakes are done. Raises one of `GONE`, or `trio.TooSlowError`."""
    async with await knock(target, source) as stream:
        with trio.fail_after(TIMEOUT_S):
            await _agree(stream.send_all, stream.receive_some, NOISE)
            raw = RawConnection(TrioTCPStream(stream), True)
            session = await NoiseTransport(create_new_key_pair(seed)).secure_outbound(raw, target.peer)
            await _agree(session.write, session.read, YAMUX)
        yield Intruder(session)


async def _agree(write: Any, read: Any, protocol: str) -> None:
    """Multistream, from the side that asks."""
    await write(line(MULTISTREAM) + line(protocol))
    awaited, heard = line(MULTISTREAM) + line(protocol), b""
    while len(heard) < len(awaited):
        piece = await read(len(awaited) - len(heard))
        if not piece:
            raise trio.BrokenResourceError("not let in")
        heard += piece


class Intruder:
    """Speaks Yamux frame by frame. Nothing of it is checked. `listen` must run for what waits for a window."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._next_id = 1
        self._windows: defaultdict[int, int] = defaultdict(lambda: WINDOW_BYTES)
        self._wider = trio.lowlevel.ParkingLot()

    async def send(self, kind: int, flags: int, stream: int, length: int, body: bytes = b"") -> None:
        """One frame."""
        await self.send_many(kind, flags, stream, length, 1, body)

    async def send_many(self, kind: int, flags: int, stream: int, length: int, count: int, body: bytes = b"") -> None:
        """The same frame so many times."""
        await self._session.write(count * (HEADER.pack(0, kind, flags, stream, length) + body))

    async def open(self, protocol: str = "", said: bytes = b"") -> int:
        """A stream, and all that is said on it at once: the agreement on a protocol, and what comes then."""
        stream, self._next_id = self._next_id, self._next_id + 2
        body = (line(MULTISTREAM) + line(protocol) if protocol else b"") + said
        self._windows[stream] -= len(body)
        await self.send(DATA, SYN, stream, len(body), body)
        return stream

    async def say(self, stream: int, data: bytes) -> None:
        """More on that stream, whatever its window."""
        for start in range(0, len(data), 65_000):
            piece = data[start : start + 65_000]
            await self.send(DATA, 0, stream, len(piece), piece)

    async def say_in_turn(self, stream: int, data: bytes) -> None:
        """The same, but not before there is room for it in the window. One at a time."""
        while self._windows[stream] < len(data):
            await self._wider.park()
        self._windows[stream] -= len(data)
        await self.say(stream, data)

    async def listen(self) -> None:
        """Read until it is over, and heed nothing but windows that are made wider."""
        heard = bytearray()
        try:
            while data := await self._session.read():
                heard += data
                while len(heard) >= HEADER.size:
                    _, kind, _, stream, length = HEADER.unpack_from(heard)
                    size = HEADER.size + (length if kind == DATA else 0)
                    if len(heard) < size:
                        break
                    del heard[:size]
                    if kind == WINDOW_UPDATE:
                        self._windows[stream] += length
                        self._wider.unpark_all()
        except GONE:
            pass
