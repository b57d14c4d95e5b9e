"""Connections through a relay, from both ends: a stream to the relay stands for the socket.

Noise and Yamux run over it as over any other, between the two ends, so that the relay sees who, when and how much, and
nothing of what.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from libp2p.abc import IRawConnection, ITransport
from libp2p.connection_types import ConnectionType
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.exceptions import SwarmException
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, PeerId, Status, StopMessage
from libp2p.transport.exceptions import OpenConnectionError
from multiaddr import Multiaddr

from p2p.errors import Error, RemoteError, Unavailable
from p2p.net.delimited import receive, send
from p2p.net.dialling import Dialler
from p2p.net.relay import HOP, STOP
from p2p.net.stream import Blame, Libp2pStream, open_stream, serve
from p2p.protocol.addresses import parse_full

MAX_INBOUND = 64  # connections that relays have brought us
_CLOSE_TIMEOUT_S = 1.0


class _Pipe(ReadWriteCloser):
    """A stream as libp2p's raw connections want their socket."""

    def __init__(self, stream: Libp2pStream) -> None:
        self._stream = stream

    async def read(self, n: int | None = None) -> bytes:
        try:
            data = await self._stream.read(n or 65536)
        except Unavailable as error:
            raise ConnectionClosedError(str(error)) from error
        if not data:
            raise ConnectionClosedError("the other end closed the circuit")
        return data

    async def write(self, data: bytes) -> None:
        try:
            await self._stream.write(data)
        except Error as error:
            raise ConnectionClosedError(str(error)) from error

    async def close(self) -> None:
        await self._stream.drain(_CLOSE_TIMEOUT_S)

    def get_remote_address(self) -> None:
        """The relay's is not the peer's."""


def _raw(stream: Libp2pStream, address: Multiaddr, *, initiator: bool) -> RawConnection:
    return RawConnection(_Pipe(stream), initiator, ConnectionType.RELAYED, [address])


class Circuits(ITransport):
    """Dials addresses at relays, and takes in what comes through those where we have a place."""

    def __init__(self, host: Any, blame: Blame, dialler: Dialler, is_our_relay: Callable[[str], bool]) -> None:
        self._host = host
        self._network = host.get_network()
        self._dialler = dialler
        self._is_our_relay = is_our_relay
        self._inbound = 0
        self._network.transport_manager.add_transport(self)
        serve(host, STOP, self._serve, blame, timeout_s=math.inf)  # for as long as the connection

    # Outwards

    async def dial(self, maddr: Multiaddr) -> IRawConnection:
        """Raises `OpenConnectionError`."""
        text = str(maddr)
        target = text.rpartition("/p2p/")[2]
        try:
            address = parse_full(text, target)
            relay = ID.from_base58(address.relay)
            await self._dialler.reach_directly(relay, address)
            stream = await open_stream(self._host, relay, HOP)
        except Error as error:
            raise OpenConnectionError(f"no way to the relay: {error}") from error
        try:
            peer = PeerId(id=ID.from_base58(target).to_bytes())
            await send(stream, HopMessage(type=HopMessage.CONNECT, peer=peer))
            answer = await receive(stream, HopMessage)
        except BaseException as error:
            await stream.reset()
            if isinstance(error, Error):
                raise OpenConnectionError(f"the relay does not answer: {error}") from error
            raise
        if answer.type != HopMessage.STATUS or answer.status != Status.OK:
            await stream.reset()
            raise OpenConnectionError(f"the relay said {_name(answer.status)}")
        return _raw(stream, maddr, initiator=True)

    def can_dial(self, maddr: Multiaddr) -> bool:
        return any(protocol.name == "p2p-circuit" for protocol in maddr.protocols())

    def protocols(self) -> list[str]:
        return ["p2p-circuit"]

    def listen_order(self) -> int:
        """Before TCP, which takes an address at a relay for the relay's own."""
        return -1

    def can_listen(self, maddr: Multiaddr) -> bool:
        return False

    def create_listener(self, handler_function: Any) -> Any:
        """Part of libp2p's interface; what comes in comes by `STOP`."""
        raise NotImplementedError

    # Inwards

    async def _serve(self, stream: Libp2pStream) -> None:
        asked = await receive(stream, StopMessage)
        if asked.type != StopMessage.CONNECT:
            raise RemoteError("malformed", "no circuit to take")
        if stream.relayed or not self._is_our_relay(stream.peer):
            await _answer(stream, Status.PERMISSION_DENIED)
        elif self._inbound >= MAX_INBOUND:
            await _answer(stream, Status.RESOURCE_LIMIT_EXCEEDED)
        else:
            self._inbound += 1
            try:
                await self._take(stream)
            finally:
                self._inbound -= 1

    async def _take(self, stream: Libp2pStream) -> None:
        """Be one end of a circuit for as long as it lasts."""
        await _answer(stream, Status.OK)
        # Whoever is at the other end says so in the handshake; what the relay says of it counts for nothing.
        raw = _raw(stream, Multiaddr(f"/p2p/{stream.peer}/p2p-circuit"), initiator=False)
        with suppress(SwarmException):  # how it ends, see `gate`
            await self._network.upgrade_inbound_raw_conn(raw, raw.get_transport_addresses()[0])


async def _answer(stream: Libp2pStream, status: Any) -> None:
    await send(stream, StopMessage(type=StopMessage.STATUS, status=status))


def _name(status: int) -> str:
    return str(Status.Name(status)) if status in Status.values() else f"status {status}"
