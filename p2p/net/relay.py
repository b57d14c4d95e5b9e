"""A circuit relay, version 2: it takes peers in that cannot be dialled, and carries what others send them.

Ours rather than libp2p 0.8.1's, which reserves in anybody's name, ends one circuit of a peer with another, writes a
message into the peers' bytes when it cuts them off, and has no limit for an address. The same messages on the wire:
other implementations may use it.
"""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import trio
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, Limit, PeerId, Reservation, Status, StopMessage

from p2p.errors import Error, Refused, RemoteError, Unavailable
from p2p.net.address_group import address_group
from p2p.net.delimited import receive, send
from p2p.net.stream import Blame, Libp2pStream, is_relayed, open_stream, serve
from p2p.protocol import relaying
from p2p.protocol.relaying import Limits, RelayBook

HOP = "/libp2p/circuit/relay/0.2.0/hop"
STOP = "/libp2p/circuit/relay/0.2.0/stop"
EXTEND_TIMEOUT_S = 5.0  # for the target to take a circuit
MAX_ID_BYTES = 64
_PIECE_BYTES = 64 * 1024

_STATUS = {
    relaying.RESERVATION_REFUSED: Status.RESERVATION_REFUSED,
    relaying.NO_RESERVATION: Status.NO_RESERVATION,
    relaying.TOO_MANY_CIRCUITS: Status.RESOURCE_LIMIT_EXCEEDED,
}

_log = logging.getLogger(__name__)


class RelayServer:
    """Serves `HOP` on a libp2p host from when it is made."""

    def __init__(self, host: Any, blame: Blame, limits: Limits) -> None:
        self.book = RelayBook(limits, self._is_connected)
        self._host = host
        self._limit = Limit(duration=int(limits.circuit_s), data=limits.circuit_bytes)
        serve(host, HOP, self._serve, blame, timeout_s=math.inf)  # circuits have a limit of their own

    def holds_place(self, peer: str) -> bool:
        """Whether others may want to reach the peer through us, so that its connection is of use though it is idle."""
        return self.book.has_place(peer, trio.current_time())

    async def _serve(self, stream: Libp2pStream) -> None:
        asked = await receive(stream, HopMessage)
        if stream.relayed or stream.remote_ip is None:
            await _answer(stream, Status.PERMISSION_DENIED)  # no relaying of what is relayed
        elif asked.type == HopMessage.RESERVE:
            await self._reserve(stream, stream.remote_ip)
        elif asked.type == HopMessage.CONNECT:
            await self._connect(stream, _peer_of(asked.peer))
        else:
            await _answer(stream, Status.UNEXPECTED_MESSAGE)

    async def _reserve(self, stream: Libp2pStream, ip: str) -> None:
        now = trio.current_time()
        try:
            expires_at = self.book.reserve(stream.peer, address_group(ip), now)
        except Refused as no:
            await _answer(stream, _STATUS[no.reason])
            return
        reservation = Reservation(
            expire=int(time.time() + expires_at - now),
            addrs=[address.to_bytes() for address in self._host.get_addrs()],
        )
        await _answer(stream, Status.OK, reservation=reservation, limit=self._limit)

    async def _connect(self, near: Libp2pStream, target: ID) -> None:
        source = near.peer
        try:
            self.book.open(source, str(target), trio.current_time())
        except Refused as no:
            await _answer(near, _STATUS[no.reason])
            return
        try:
            far = await self._extend(near, target)
            if far is not None:
                await _answer(near, Status.OK, limit=self._limit)
                await self._carry(near, far)
        finally:
            self.book.close(source, str(target))

    async def _extend(self, near: Libp2pStream, target: ID) -> Libp2pStream | None:
        """The other half of a circuit, or none if the target will not have it."""
        far = None
        try:
            with trio.fail_after(EXTEND_TIMEOUT_S):
                far = await open_stream(self._host, target, STOP)
                source = PeerId(id=ID.from_base58(near.peer).to_bytes())
                await send(far, StopMessage(type=StopMessage.CONNECT, peer=source, limit=self._limit))
                answer = await receive(far, StopMessage)
            if answer.type == StopMessage.STATUS and answer.status == Status.OK:
                return far
        except (Error, trio.TooSlowError) as error:
            _log.debug("a circuit to %s: %r", target, error)
        if far is not None:
            await far.reset()
        await _answer(near, Status.CONNECTION_FAILED)
        return None

    async def _carry(self, near: Libp2pStream, far: Libp2pStream) -> None:
        """Pour both ways until both ends are done, one breaks, or a limit is reached."""
        with trio.move_on_after(self.book.limits.circuit_s) as scope:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._pour, near, far, scope)
                    nursery.start_soon(self._pour, far, near, scope)
            finally:
                if scope.cancel_called:
                    await near.reset()
                    await far.reset()
        if scope.cancelled_caught:
            raise Unavailable("the circuit broke or reached its limits")

    async def _pour(self, source: Libp2pStream, sink: Libp2pStream, scope: trio.CancelScope) -> None:
        left = self.book.limits.circuit_bytes
        try:
            while data := await source.read(_PIECE_BYTES):
                left -= len(data)
                if left < 0:
                    scope.cancel()
                    return
                await sink.write(data)  # waits for the reader at the other end, and so makes the writer wait
            await sink.close()
        except Error:
            scope.cancel()

    def _is_connected(self, peer: str) -> bool:
        connections = self._host.get_network().get_connections(ID.from_base58(peer))
        return any(not connection.is_closed and not is_relayed(connection) for connection in connections)


async def _answer(stream: Libp2pStream, status: Any, **more: Any) -> None:
    await send(stream, HopMessage(type=HopMessage.STATUS, status=status, **more))


def _peer_of(named: Any) -> ID:
    if not 0 < len(named.id) <= MAX_ID_BYTES:
        raise RemoteError("malformed", "no peer to connect to")
    return ID(named.id)
