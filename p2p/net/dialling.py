"""Getting a connection to a peer: straight if that works, through a relay if not."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import trio
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStoreError
from multiaddr import Multiaddr

from p2p.errors import LocalError, Unavailable
from p2p.host import PeerAddress
from p2p.net.stream import is_relayed
from p2p.net.tcp import told_to_dial
from p2p.protocol.addresses import Address, parse, parse_full
from p2p.protocol.kad_messages import MAX_ADDRESSES

HEAD_START_S = 2.0  # for the direct addresses, before relays are asked
ADDRESS_LIFE_S = 3600

LookUp = Callable[[ID], Awaitable[PeerAddress]]

_log = logging.getLogger(__name__)


class Dialler:
    """Knows where peers may be, and connects to them."""

    def __init__(self, host: Any, holds: Callable[[Address], bool]) -> None:
        self._host = host
        self._network = host.get_network()
        self._holds = holds
        self._named: dict[ID, Address] = {}  # by our operator; what peers say changes nothing here
        self._reaching: weakref.WeakValueDictionary[Any, trio.Lock] = weakref.WeakValueDictionary()

    def name(self, peer_id: ID, address: Address) -> None:
        """Our operator says where a peer is, anywhere. It is dialled whatever the network."""
        self._named[peer_id] = address
        self._network._negative_peer_cache.evict(str(peer_id))

    def named(self) -> Iterable[ID]:
        """Whom our operator told us to dial."""
        return self._named.keys()

    def learn(self, peer: PeerAddress) -> None:
        """Others say where a peer is; what this network cannot use is dropped.

        A peer that was just heard of is worth a dial, whatever the library's 60 s memory of failures says.
        """
        usable = []
        for text in peer.addresses[:MAX_ADDRESSES]:
            try:
                address = parse_full(text, peer.peer)
            except LocalError as error:
                _log.debug("an address of %s: %s", peer.peer, error)
                continue
            if self._holds(address):
                usable.append(Multiaddr(str(address)))
        peer_id = ID.from_base58(peer.peer)
        self._host.get_peerstore().add_addrs(peer_id, usable, ADDRESS_LIFE_S)
        self._network._negative_peer_cache.evict(peer.peer)

    async def reach(self, peer_id: ID, look_up: LookUp | None = None) -> None:
        """Have a connection to the peer, dialling once however many ask. Raises `Unavailable`.

        `look_up` is asked for more addresses when those that are known have failed.
        """
        async with self._reaching.setdefault(peer_id, trio.Lock()):
            if self.connections(peer_id):
                return
            tried = self._known(peer_id)
            failures = await self._dial(peer_id, tried)
            if look_up is not None and not self.connections(peer_id):
                self.learn(await look_up(peer_id))
                failures += await self._dial(peer_id, [one for one in self._known(peer_id) if one not in tried])
            if not self.connections(peer_id):
                raise Unavailable("; ".join(failures) or "no address is known")

    async def reach_at(self, peer: PeerAddress) -> None:
        """As `reach`, at these addresses or those that are known already."""
        self.learn(peer)
        await self.reach(ID.from_base58(peer.peer))

    async def reach_directly(self, peer_id: ID, address: Address) -> None:
        """Have a connection of our own to the peer, if need be at this very address. Raises `Unavailable`."""
        async with self._reaching.setdefault(peer_id, trio.Lock()):
            if self.is_reached_directly(peer_id):
                return
            known = [known for known in self._known(peer_id) if not known.relay]
            failures = await self._dial(peer_id, list(dict.fromkeys([*known, address._replace(relay="")])))
            if not self.is_reached_directly(peer_id):
                raise Unavailable("; ".join(failures))

    def connections(self, peer_id: ID) -> list[Any]:
        """Those that work."""
        return [one for one in self._network.get_connections(peer_id) if not one.muxed_conn.is_closed]

    def is_reached_directly(self, peer_id: ID) -> bool:
        """Whether there is a connection that runs through no relay."""
        return not all(map(is_relayed, self.connections(peer_id)))

    def _known(self, peer_id: ID) -> list[Address]:
        """What we were told and what was heard, in this order."""
        known = [self._named[peer_id]] if peer_id in self._named else []
        try:
            stored = self._host.get_peerstore().addrs(peer_id)
        except PeerStoreError:
            return known
        for multiaddr in stored:
            try:
                address = parse(str(multiaddr).removesuffix(f"/p2p/{peer_id}"))
            except Exception as error:  # the library's printer raises what it likes on bytes from a peer
                _log.debug("an address of %s: %r", peer_id, error)
                continue
            if self._holds(address) and address not in known:
                known.append(address)
        return known[:MAX_ADDRESSES]

    async def _dial(self, peer_id: ID, addresses: Sequence[Address]) -> list[str]:
        """Dial side by side until one answers, and return why others failed.

        Relays are asked once all else has failed, or is slow. Fault: `host.connect` tries one TCP address per peer and
        none at a relay, and refuses to try for a minute after a failure.
        """
        straight = [address for address in addresses if not address.relay]
        relayed = [address for address in addresses if address.relay]
        failures: list[str] = []
        straight_failed = trio.Event()

        async def attempt(address: Address, scope: trio.CancelScope) -> None:
            try:
                await self._dial_one(peer_id, address)
            except Exception as error:
                failures.append(f"{address}: {error.__cause__ or error}")
                if len(failures) == len(straight):
                    straight_failed.set()
            else:
                scope.cancel()

        async with trio.open_nursery() as nursery:
            for address in straight:
                nursery.start_soon(attempt, address, nursery.cancel_scope)
            if straight and relayed:
                with trio.move_on_after(HEAD_START_S):
                    await straight_failed.wait()
            for address in relayed:
                nursery.start_soon(attempt, address, nursery.cancel_scope)
        return failures

    async def _dial_one(self, peer_id: ID, address: Address) -> None:
        with told_to_dial() if address == self._named.get(peer_id) else nullcontext():
            await self._network.dial_addr(Multiaddr(address.of(str(peer_id))), peer_id)
