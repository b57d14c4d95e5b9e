"""The door: carries out over libp2p's swarm what `p2p.net.arrivals` and `p2p.net.conduct` decide."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import trio
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.exceptions import SwarmException

from p2p.net import mesh
from p2p.net.arrivals import Arrivals, Begin, Drop, Event, Use
from p2p.net.conduct import Ban, Conduct
from p2p.net.limits import InboundLimits
from p2p.net.muxer import MuxedConn

CLOSE_TIMEOUT_S = 1.0
_BACKGROUND = {mesh.PROTOCOL, "/ipfs/ping/1.0.0", "/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", None}  # None: not agreed yet

_log = logging.getLogger(__name__)


@dataclass
class _Inbound:
    """One connection on its way in."""

    turn: trio.Event = field(default_factory=trio.Event)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    muxed: MuxedConn | None = None


class Gate:
    """Stands before the swarm of a host that does not run yet. `run` must run as long as the host does.

    Fault of libp2p 0.8.1: any number of connections may shake hands at once from one address, until all places are
    taken for as long as that may last; and an inbound connection holds its place, and a task, until the host ends.
    """

    def __init__(self, network: Any, limits: InboundLimits) -> None:
        self._network = network
        self._conduct = Conduct()
        self._arrivals = Arrivals(limits, self._use, trio.current_time())
        self._inbound: dict[int, _Inbound] = {}
        self._shaking: dict[Any, int] = {}  # by raw connection
        self._numbers = itertools.count()
        self._news = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._is_kept: Callable[[str], bool] = lambda _peer: False
        self._upgrade = network.upgrade_inbound_raw_conn
        self._add = network.add_conn
        network._handle_inbound_connection = self._come_in
        network.upgrade_inbound_raw_conn = self._shake_hands_and_stay
        network.add_conn = self._add_unless_banned

    async def run(self) -> None:
        """Keep the time, for ever."""
        async with trio.open_nursery() as self._nursery:
            while True:
                with trio.move_on_after(self._arrivals.deadline() - trio.current_time()):
                    await self._news.wait()
                self._news = trio.Event()
                self._carry_out(self._arrivals.tick(trio.current_time()))

    def keep(self, is_kept: Callable[[str], bool]) -> None:
        """Whose connections are of use though no stream is open on them."""
        self._is_kept = is_kept

    def blame(self, peer: str, why: str) -> None:
        """Hold it against the peer. Once too often, and we have nothing to do with it for a while."""
        ban = self._conduct.fault(peer, why, trio.current_time())
        if ban is not None:
            _log.info("%s is banned: %s", peer, why)
            for connection in self._network.get_connections():
                if str(connection.muxed_conn.peer_id) == peer:
                    self._close_soon(connection)

    def ban(self, peer: str) -> Ban | None:
        """Why and until when (Trio's clock) the peer is banned, if it is."""
        return self._conduct.ban(peer, trio.current_time())

    def bans(self) -> dict[str, Ban]:
        """Every ban that holds."""
        return self._conduct.bans(trio.current_time())

    async def _come_in(self, stream: Any, maddr: Any) -> None:
        """In place of the swarm's own: from the socket that was accepted to the end of its connection."""
        number, one = next(self._numbers), _Inbound()
        self._inbound[number] = one
        ip, _ = stream.get_remote_address() or ("", 0)  # it may have gone already
        try:
            with one.scope:
                self._carry_out(self._arrivals.arrive(number, ip, trio.current_time()))
                self._news.set()
                await one.turn.wait()
                raw = RawConnection(stream, False)
                self._shaking[raw] = number
                try:
                    await self._network.upgrade_inbound_raw_conn(raw, maddr)
                finally:
                    self._shaking.pop(raw, None)
        except Exception as error:
            _log.debug("an inbound connection: %r", error)
        finally:
            self._arrivals.left(number)
            del self._inbound[number]
            with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
                await stream.close()

    async def _shake_hands_and_stay(self, raw: Any, maddr: Any) -> None:
        """In place of the swarm's own: lasts as long as the connection, and raises at its end."""
        muxed: MuxedConn = await self._upgrade(raw, maddr)
        number = self._shaking.pop(raw, None)
        if number is not None:  # otherwise it came through a relay
            self._inbound[number].muxed = muxed
            self._carry_out(self._arrivals.shaken(number, trio.current_time()))
        await muxed.wait_stopped()
        if muxed.core.broken:
            self.blame(str(muxed.peer_id), str(muxed.core.closed))
        raise SwarmException("the connection ended")

    async def _add_unless_banned(self, muxed: Any, direction: str = "unknown") -> Any:
        if (ban := self.ban(str(muxed.peer_id))) is not None:
            await muxed.close()
            raise SwarmException(f"the peer is banned: {ban.why}")
        return await self._add(muxed, direction)

    def _carry_out(self, events: Iterable[Event]) -> None:
        for event in events:
            one = self._inbound[event.connection]
            match event:
                case Begin():
                    one.turn.set()
                case Drop(why=why):
                    _log.debug("an inbound connection is dropped: %s", why)
                    if one.muxed is None:
                        one.scope.cancel()
                    else:
                        self._close_soon(one.muxed)

    def _close_soon(self, connection: Any) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(_close, connection)

    def _use(self, number: int) -> Use:
        """What the connection's open streams are."""
        muxed = self._inbound[number].muxed
        assert muxed is not None
        protocols = {
            stream.get_protocol()
            for connection in self._network.get_connections(muxed.peer_id)
            if connection.muxed_conn is muxed
            for stream in connection.get_streams()
        }
        if not protocols and not self._is_kept(str(muxed.peer_id)):
            return Use.NONE
        return Use.BACKGROUND if all(map(_is_background, protocols)) else Use.WORK


def _is_background(protocol: str | None) -> bool:
    return protocol in _BACKGROUND or str(protocol).endswith("/kad/1.0.0")


async def _close(connection: Any) -> None:
    """Whatever goes wrong with it, it is over."""
    try:
        with trio.move_on_after(2 * CLOSE_TIMEOUT_S):
            await connection.close()
    except Exception as error:
        _log.debug("a connection did not close well: %r", error)
