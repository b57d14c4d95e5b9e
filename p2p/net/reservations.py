"""Places at relays, for a peer that cannot be dialled: taken, renewed, and given up when they are lost."""

from __future__ import annotations

import logging
import time
from typing import Any

import trio
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStoreError
from libp2p.rcmgr import Direction
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, Status

from p2p.errors import Error, Refused
from p2p.net.delimited import receive, send
from p2p.net.dialling import Dialler
from p2p.net.relay import HOP
from p2p.net.stream import is_relayed, open_stream
from p2p.protocol.addresses import Address, socket_address
from p2p.protocol.reachability import Reachability

MAX_PLACES = 2
RENEW_S = 900.0  # or half of what the relay gives, if that is less
RETRY_S = 15.0  # after a no, or when no relay is connected
_ASK_TIMEOUT_S = 10.0
_LEAST_LIFE_S = 60.0  # a relay whose clock is wrong is asked no oftener than by this

_log = logging.getLogger(__name__)


class Reservations:
    """Keeps `core` informed of the places that we hold."""

    def __init__(self, host: Any, dialler: Dialler, core: Reachability) -> None:
        self._host = host
        self._dialler = dialler
        self._core = core
        self._held: set[ID] = set()
        self._due: dict[ID, float] = {}  # when to ask each relay next, by Trio's clock

    def at(self, peer: str) -> bool:
        """Whether we hold a place at this relay."""
        return ID.from_base58(peer) in self._held

    async def see_to(self) -> float:
        """Give up what is lost, take or renew what is due, and say when to come again."""
        for relay in [relay for relay in self._held if self._connection(relay) is None]:
            self._give_up(relay)
        if not self._core.wants_place:
            for relay in list(self._held):
                self._give_up(relay)
            return float("inf")
        relays = sorted(self._relays(), key=lambda relay: relay not in self._held)  # those that we have first
        chosen = [relay for relay in relays if relay in self._held or self._is_due(relay)][:MAX_PLACES]
        async with trio.open_nursery() as nursery:
            for relay in filter(self._is_due, chosen):
                nursery.start_soon(self._ask, relay)
            if not relays:
                nursery.start_soon(self._look_for_relays)
        now = trio.current_time()
        self._due = {relay: due for relay, due in self._due.items() if due > now}
        return min(self._due.values(), default=now + RETRY_S)

    def _is_due(self, relay: ID) -> bool:
        return self._due.get(relay, 0) <= trio.current_time()

    async def _ask(self, relay: ID) -> None:
        """Take a place, or renew it."""
        connection = self._connection(relay)
        try:
            life_s = await self._reserve(relay)
        except Error as error:
            _log.debug("no place at %s: %s", relay, error)
            self._give_up(relay)
            self._due[relay] = trio.current_time() + RETRY_S
            return
        self._held.add(relay)
        self._due[relay] = trio.current_time() + min(RENEW_S, life_s / 2)
        self._core.placed(str(relay), _address(connection))

    async def _reserve(self, relay: ID) -> float:
        """For how many seconds the place is given. Raises `Error`."""
        stream = await open_stream(self._host, relay, HOP)
        try:
            await send(stream, HopMessage(type=HopMessage.RESERVE))
            answer = await receive(stream, HopMessage, _ASK_TIMEOUT_S)
        finally:
            await stream.reset()
        if answer.type != HopMessage.STATUS or answer.status != Status.OK:
            raise Refused("no_place", f"status {answer.status}")
        return max(_LEAST_LIFE_S, float(answer.reservation.expire) - time.time())

    async def _look_for_relays(self) -> None:
        """Dial again whom we were told to dial; one of them is a relay, or knows one."""
        async with trio.open_nursery() as nursery:
            for peer_id in self._dialler.named():
                nursery.start_soon(self._try_to_reach, peer_id)

    async def _try_to_reach(self, peer_id: ID) -> None:
        try:
            with trio.fail_after(_ASK_TIMEOUT_S):
                await self._dialler.reach(peer_id)
        except (Error, trio.TooSlowError) as error:
            _log.debug("%s cannot be reached: %s", peer_id, error)

    def _give_up(self, relay: ID) -> None:
        self._held.discard(relay)
        self._due.pop(relay, None)
        self._core.placed(str(relay), None)

    def _relays(self) -> list[ID]:
        """The relays that we are connected to."""
        return [peer_id for peer_id in self._host.get_connected_peers() if self._is_relay(peer_id)]

    def _is_relay(self, peer_id: ID) -> bool:
        try:
            speaks = HOP in self._host.get_peerstore().get_protocols(peer_id)
        except PeerStoreError:
            return False
        return speaks and self._connection(peer_id) is not None

    def _connection(self, relay: ID) -> Any | None:
        """A connection that we made to it: then its other end is where others find it, too."""
        for connection in self._dialler.connections(relay):
            if not is_relayed(connection) and connection.direction is Direction.OUTBOUND:
                return connection
        return None


def _address(connection: Any) -> Address:
    ip, port = connection.muxed_conn.get_remote_address()
    return socket_address(ip, port)
