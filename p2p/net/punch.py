"""Punching a hole (DCUtR): two peers that are connected through a relay dial each other at the same moment.

Each one's first packet opens its own router for the other's. Both dial from the port that the relay has seen, so that
the packet leaves where the other one aims. The two sockets become one connection, by TCP's simultaneous open, in which
the peer that dialled the relay speaks first. The one that was reached through the relay leads.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Sequence
from typing import Any

import trio
from libp2p.network.exceptions import SwarmException
from libp2p.peer.id import ID
from libp2p.rcmgr import Direction
from libp2p.relay.circuit_v2.pb.dcutr_pb2 import HolePunch
from multiaddr import Multiaddr

from p2p.errors import RemoteError, Unavailable
from p2p.net.delimited import receive, send
from p2p.net.dialling import Dialler
from p2p.net.notices import Notices
from p2p.net.stream import Blame, Libp2pStream, is_relayed, open_stream, serve
from p2p.net.tcp import Tcp, connect_from, raw
from p2p.protocol.addresses import Address, parse
from p2p.protocol.reachability import Reachability

DCUTR = "/libp2p/dcutr"
ATTEMPTS = 3
ATTEMPT_TIMEOUT_S = 5.0
MAX_ADDRESSES = 4
FIRST_PAUSE_S = 0.1  # after a refusal, because the other one's router was not open yet; then twice as long
LOOK_S = 0.02
CLOSE_TIMEOUT_S = 1.0
GRACE_S = 10.0  # between two looks whether the connection through the relay is still needed

_log = logging.getLogger(__name__)


class Punch:
    """Serves `DCUTR` on a libp2p host from when it is made; leads while `run` runs.

    What is dialled from is the own port of `tcp`; `core` knows where others see it.
    """

    def __init__(self, host: Any, blame: Blame, dialler: Dialler, tcp: Tcp, core: Reachability) -> None:
        self.punched: weakref.WeakSet[Any] = weakref.WeakSet()  # muxed connections
        self._host = host
        self._network = host.get_network()
        self._dialler = dialler
        self._tcp = tcp
        self._core = core
        self._busy: set[ID] = set()
        self._nursery: trio.Nursery | None = None
        serve(host, DCUTR, self._follow, blame)
        self._network.register_notifee(Notices(connected=self._connected))

    async def run(self) -> None:
        """For ever."""
        async with trio.open_nursery() as self._nursery:
            await trio.sleep_forever()

    def _connected(self, connection: Any) -> None:
        """With somebody who came to us through a relay, try to do without."""
        peer_id = connection.muxed_conn.peer_id
        came_round = is_relayed(connection) and connection.direction is Direction.INBOUND
        if came_round and self._nursery is not None and peer_id not in self._busy:
            self._busy.add(peer_id)
            self._nursery.start_soon(self._lead, peer_id)

    async def _lead(self, peer_id: ID) -> None:
        try:
            if await self._lead_through(peer_id):
                await self._leave_relay(peer_id)
        except Exception as error:  # the library's, or ours: the connection through the relay remains
            _log.debug("no hole to %s: %r", peer_id, error)
        finally:
            self._busy.discard(peer_id)

    async def _lead_through(self, peer_id: ID) -> bool:
        if not self._outside():
            return False
        stream = await open_stream(self._host, peer_id, DCUTR)
        try:
            for _ in range(ATTEMPTS):
                asked_at = trio.current_time()
                await self._say_where(stream)
                theirs = self._read(await receive(stream, HolePunch), HolePunch.CONNECT)
                if not theirs:
                    return False
                round_trip_s = trio.current_time() - asked_at
                await send(stream, HolePunch(type=HolePunch.SYNC))
                await trio.sleep(round_trip_s / 2)
                if await self._meet(peer_id, theirs, initiator=False):
                    return True
        finally:
            await stream.close()
        return False

    async def _follow(self, stream: Libp2pStream) -> None:
        if not stream.relayed:
            raise Unavailable("there is nothing to punch")
        for _ in range(ATTEMPTS):
            theirs = self._read(await receive(stream, HolePunch), HolePunch.CONNECT)
            await self._say_where(stream)
            self._read(await receive(stream, HolePunch), HolePunch.SYNC)
            if await self._meet(ID.from_base58(stream.peer), theirs, initiator=True):
                return

    async def _say_where(self, stream: Libp2pStream) -> None:
        addresses = [Multiaddr(str(address)).to_bytes() for address in self._outside()]
        await send(stream, HolePunch(type=HolePunch.CONNECT, ObsAddrs=addresses))

    def _outside(self) -> Sequence[Address]:
        """Where others may knock."""
        return self._core.outside(self._tcp.own_port)[:MAX_ADDRESSES]

    def _read(self, message: Any, kind: int) -> list[Address]:
        """The addresses that we may dial. Raises `RemoteError` for a message of another kind."""
        if message.type != kind:
            raise RemoteError("out_of_turn", "in the middle of punching")
        addresses = []
        for each in message.ObsAddrs[:MAX_ADDRESSES]:
            try:
                address = parse(str(Multiaddr(each)))
            except Exception as error:  # the library's parser raises what it likes on bytes from a peer
                _log.debug("an address cannot be read: %r", error)
                continue
            if not address.relay and self._core.holds(address):
                addresses.append(address)
        return addresses

    async def _meet(self, peer_id: ID, addresses: Sequence[Address], *, initiator: bool) -> bool:
        """Dial until there is a connection without a relay, or it has taken too long."""
        with trio.move_on_after(ATTEMPT_TIMEOUT_S):
            async with trio.open_nursery() as nursery:
                for address in addresses:
                    nursery.start_soon(self._knock, peer_id, address, initiator)
                while not self._dialler.is_reached_directly(peer_id):  # noqa: ASYNC110  # it may come in by our listener
                    await trio.sleep(LOOK_S)
                nursery.cancel_scope.cancel()
        straight = [one.muxed_conn for one in self._dialler.connections(peer_id) if not is_relayed(one)]
        self.punched.update(straight)
        return bool(straight)

    async def _knock(self, peer_id: ID, address: Address, initiator: bool) -> None:
        """One address, again and again, a little later each time."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                stream = await connect_from(self._tcp.own_port, address)
            except OSError as error:
                _log.debug("knocking at %s: %s", address, error)
            else:
                await self._upgrade(stream, peer_id, initiator=initiator)
            await trio.sleep(pause_s)
            pause_s *= 2

    async def _upgrade(self, stream: trio.SocketStream, peer_id: ID, *, initiator: bool) -> None:
        connection = raw(stream, initiator=initiator)
        if initiator:
            await self._speak_first(connection, peer_id)
        else:
            assert self._nursery is not None
            self._nursery.start_soon(self._stay, connection)  # it lasts longer than the attempt

    async def _speak_first(self, connection: Any, peer_id: ID) -> None:
        try:
            await self._network.upgrade_outbound_raw_conn(connection, peer_id)
        except BaseException as error:
            await _close(connection)
            if not isinstance(error, SwarmException):
                raise
            _log.debug("it was somebody else, or there is another way already: %s", error)

    async def _stay(self, connection: Any) -> None:
        try:
            await self._network.upgrade_inbound_raw_conn(connection, connection.get_transport_addresses()[0])
        except Exception as error:  # that is also how it ends, see `gate`
            _log.debug("a connection through a hole: %r", error)
        finally:
            await _close(connection)

    async def _leave_relay(self, peer_id: ID) -> None:
        """Close what runs through the relay once nothing of ours is going on there."""
        while True:
            await trio.sleep(GRACE_S)
            relayed = [one for one in self._dialler.connections(peer_id) if is_relayed(one)]
            if not relayed or not self._dialler.is_reached_directly(peer_id):
                return
            if not any(_is_work(stream) for one in relayed for stream in one.get_streams()):
                for one in relayed:
                    await one.close()
                return


def _is_work(stream: Any) -> bool:
    return str(stream.get_protocol()).startswith("/bombyx/")


async def _close(connection: Any) -> None:
    with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
        await connection.close()
