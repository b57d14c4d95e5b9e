"""Sees to it that others can reach us, and says where: the shell of `p2p.protocol.reachability`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext, suppress
from typing import Any

import trio
from libp2p.rcmgr import Direction
from libp2p.utils.address_validation import expand_wildcard_address
from multiaddr import Multiaddr

from p2p.errors import LocalError
from p2p.host import Reached
from p2p.net.autonat import DialBack
from p2p.net.checks import Checks
from p2p.net.circuits import Circuits
from p2p.net.dialling import Dialler
from p2p.net.punch import Punch
from p2p.net.reservations import Reservations
from p2p.net.stream import Blame, is_relayed, local_port
from p2p.net.tcp import Tcp, reserved_port
from p2p.net.upnp import keep_mapped
from p2p.protocol.addresses import Address, parse
from p2p.protocol.reachability import Reachability


class Reachable:
    """One host's. libp2p takes it for its manager of observed addresses, and so tells it whom `identify` has finished
    with, what that peer says of our address, and whose connection has ended."""

    def __init__(
        self,
        host: Any,
        core: Reachability,
        dialler: Dialler,
        tcp: Tcp,
        blame: Blame,
        can_be_dialled: Callable[[bool], None],
    ) -> None:
        self.core = core
        self.punch = Punch(host, blame, dialler, tcp, core)
        self._tcp = tcp
        self._reservations = Reservations(host, dialler, core)
        self._checks = Checks(host, dialler, core, DialBack(host, blame))
        self._can_be_dialled = can_be_dialled
        self._host = host
        self._news = trio.Event()
        self._changed = trio.Event()
        self._said: tuple[Address, ...] = ()
        Circuits(host, blame, dialler, self._reservations.at)
        host._observed_addr_manager = self
        # Faults: the stock one takes an address at a relay for the relay's own, and where there is nothing to announce,
        # `identify` announces what we listen on.
        host.get_addrs, host.get_transport_addrs = self._announced, list

    async def run(self, upnp: bool, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """For ever, once the host listens. With `upnp` the router is asked for a port."""
        listening = self.listening()
        self.core.listens(listening)
        await self._tell()
        async with trio.open_nursery() as nursery:
            with nullcontext(listening[0].port) if listening else reserved_port() as self._tcp.own_port:
                nursery.start_soon(self.punch.run)
                nursery.start_soon(self._see_to, self._reservations.see_to)
                nursery.start_soon(self._see_to, self._checks.see_to)
                if upnp and listening:
                    nursery.start_soon(keep_mapped, listening[0].port, self._mapped)
                task_status.started()
                await trio.sleep_forever()

    async def _see_to(self, what: Callable[[], Awaitable[float]]) -> None:
        """Whenever it is due, and whenever something has happened."""
        while True:
            news = self._news
            due = await what()
            await self._tell()
            with trio.move_on_at(due):
                await news.wait()

    def _mapped(self, address: Address | None) -> None:
        self.core.mapped(address)
        self.wake()

    def listening(self) -> list[Address]:
        """Our sockets' addresses; a wildcard stands for the addresses of all interfaces."""
        wild = ("/ip4/0.0.0.0/", "/ip6/::/")
        return [
            parse(str(each))
            for listener in self._host.get_network().listeners.values()
            for address in listener.get_addrs()
            for each in (expand_wildcard_address(address) if str(address).startswith(wild) else [address])
        ]

    def reached(self) -> Reached:
        """What others found."""
        return Reached(self.core.status, self.core.keeps_port(self._tcp.own_port))

    def wake(self) -> None:
        """Something may have changed."""
        self._news.set()
        self._news = trio.Event()

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
        if connection.direction is Direction.OUTBOUND and not is_relayed(connection):
            with suppress(LocalError):
                peer, address = str(connection.muxed_conn.peer_id), parse(str(observed))
                self.core.observed(peer, address, local_port(connection))
        self.wake()

    def remove_conn(self, connection: Any) -> None:
        """A connection is over."""
        self.wake()

    def addrs(self) -> Sequence[Multiaddr]:
        """What strangers say of our address is not to be announced."""
        return ()
