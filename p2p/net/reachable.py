"""Sees to it that others can reach us, and says where: the shell of `p2p.protocol.reachability`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import trio
from libp2p.utils.address_validation import expand_wildcard_address
from multiaddr import Multiaddr

from p2p.net.dialling import Dialler
from p2p.net.reservations import Reservations
from p2p.protocol.addresses import Address, parse
from p2p.protocol.reachability import Reachability

_log = logging.getLogger(__name__)


class Reachable:
    """One host's. libp2p takes it for its manager of observed addresses, and so tells it whom `identify` has finished
    with, what that peer says of our address, and whose connection has ended."""

    def __init__(self, host: Any, dialler: Dialler, core: Reachability, can_be_dialled: Callable[[bool], None]) -> None:
        self.core = core
        self._can_be_dialled = can_be_dialled
        self.reservations = Reservations(host, dialler, core)
        self._host = host
        self._woken = trio.Event()
        self._changed = trio.Event()
        self._said: tuple[Address, ...] = ()
        host._observed_addr_manager = self
        # Faults: the stock one takes an address at a relay for the relay's own, and where there is nothing to announce,
        # `identify` announces what we listen on.
        host.get_addrs, host.get_transport_addrs = self._announced, list

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """For ever, once the host listens."""
        self.core.listens(self.listening())
        await self._tell()
        task_status.started()
        while True:
            self._woken = trio.Event()
            due = await self.reservations.see_to()
            await self._tell()
            with trio.move_on_at(due):
                await self._woken.wait()

    def listening(self) -> list[Address]:
        """Our sockets' addresses; a wildcard stands for the addresses of all interfaces."""
        wild = ("/ip4/0.0.0.0/", "/ip6/::/")
        return [
            parse(str(each))
            for listener in self._host.get_network().listeners.values()
            for address in listener.get_addrs()
            for each in (expand_wildcard_address(address) if str(address).startswith(wild) else [address])
        ]

    def wake(self) -> None:
        """Something may have changed."""
        self._woken.set()

    async def moved(self, since: Sequence[Address]) -> None:
        """Return once others are to be told something else than `since`."""
        while self.core.announced() == tuple(since):
            await self._changed.wait()

    def _announced(self) -> list[Multiaddr]:
        peer = str(self._host.get_id())
        return [Multiaddr(address.of(peer)) for address in self.core.announced()]

    async def _tell(self) -> None:
        """Let everybody know if our addresses have changed."""
        announced = self.core.announced()
        if announced != self._said:
            self._said = announced
            self._can_be_dialled(any(not address.relay for address in announced))
            self._changed.set()
            self._changed = trio.Event()
            await self._host._push_identify_to_all_peers()

    # What libp2p calls

    def record_observation(self, connection: Any, observed: Multiaddr, listening: Sequence[Multiaddr]) -> None:
        """A peer has identified itself; `observed` is how it sees us."""
        self.wake()

    def remove_conn(self, connection: Any) -> None:
        """A connection is over."""
        self.wake()

    def addrs(self) -> Sequence[Multiaddr]:
        """What strangers say of our address is not to be announced."""
        return ()
