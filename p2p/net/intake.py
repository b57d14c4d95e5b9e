"""The streams that others open: whose turn it is, how many at once, and that none harms more than itself."""

from __future__ import annotations

import itertools
import logging
from typing import Any

import trio

from p2p.net import yamux
from p2p.net.address_group import address_of
from p2p.net.limits import InboundLimits
from p2p.net.tally import Tally
from p2p.net.turns import Turns

MAX_STREAMS = 1024  # in all, some 12 kB each; `Tally` shares them out: to each peer 128 at most
RESET_TIMEOUT_S = 1.0

_log = logging.getLogger(__name__)


class Intake:
    """Stands before the handlers of a host that does not run yet. `run` must run as long as the host does.

    Fault of libp2p 0.8.1: an exception in any inbound stream's handler ends the swarm, and with it the host.
    """

    def __init__(self, host: Any, limits: InboundLimits) -> None:
        self._negotiate_and_handle = host._swarm_stream_handler  # there is no public name for it, only a setter
        self._tally = Tally(per_key=yamux.MAX_INBOUND_STREAMS, in_all=MAX_STREAMS)
        self._turns = Turns(per_s=limits.streams_per_s, burst=limits.burst_s * limits.streams_per_s)
        self._waiting: dict[int, trio.Event] = {}
        self._numbers = itertools.count()
        self._wanted = trio.lowlevel.ParkingLot()  # `run` waits here while nobody waits for a turn
        host.get_network().set_stream_handler(self._take)

    async def run(self) -> None:
        """Give out the turns, for ever."""
        while True:
            if self._turns.next_at is None:
                await self._wanted.park()
            else:
                await trio.sleep_until(self._turns.next_at)
                self._give_turns()

    async def _take(self, stream: Any) -> None:
        peer = str(stream.muxed_conn.peer_id)
        if not self._tally.take(peer):
            await stream.reset()
            return
        try:
            await self._turn(stream.muxed_conn)
            await self._negotiate_and_handle(stream)
        except Exception as error:
            _log.debug("a stream of protocol %s failed: %r", stream.get_protocol(), error)
            with trio.move_on_after(RESET_TIMEOUT_S, shield=True):
                await stream.reset()
        finally:
            self._tally.give_back(peer)

    async def _turn(self, connection: Any) -> None:
        """Wait until a stream of this connection may begin."""
        number, address = next(self._numbers), address_of(connection)
        come = self._waiting[number] = trio.Event()
        self._turns.waiting.add(address, number, trio.current_time())
        self._give_turns()
        try:
            await come.wait()
        finally:
            del self._waiting[number]
            self._turns.waiting.remove(address, number)

    def _give_turns(self) -> None:
        for _, number in self._turns.due(trio.current_time()):
            self._waiting[number].set()
        if self._turns.next_at is not None:
            self._wanted.unpark_all()
