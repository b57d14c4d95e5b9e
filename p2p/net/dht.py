"""Our place in the DHT of one network: who provides a name, over our own Kademlia."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID

from p2p.errors import Unavailable
from p2p.host import PeerAddress
from p2p.net.contacts import binary_addresses, contact_of, is_ed25519, peer_address
from p2p.net.kad_driver import KadDriver, Reach
from p2p.net.saved_peers import load_peers, save_peers
from p2p.protocol.kad_tasks import Announced, Found, Located, Sought, Withdrawn
from p2p.protocol.shards import Announcing, CrowdedKeys, Searching, announced_keys

SAVE_EVERY_S = 600.0


def protocol_id(network: str) -> TProtocol:
    """Ours, one per network, so that two networks, or ours and IPFS, can never merge."""
    return TProtocol(f"/bombyx/{network}/kad/1.0.0")


class Dht:
    """A server as long as it `can_be_dialled`, or a client only, which keeps no records for others.

    `saved` is where the known servers are kept.
    """

    def __init__(
        self,
        host: Any,
        network: str,
        *,
        server: bool,
        reach: Reach,
        blame: Callable[[str, str], None],
        saved: Path | None,
    ) -> None:
        self._host = host
        self._would_serve = server
        self._saved = saved
        self._driver = KadDriver(host, protocol_id(network), reach=reach, blame=blame)
        self._core = self._driver.core
        self._crowded = CrowdedKeys()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Take part while the context lasts."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._driver.run)
            if self._saved is not None:
                self._restore(self._saved)
                nursery.start_soon(self._save_at_times)
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()
                self._save()

    def can_be_dialled(self, is_true: bool) -> None:
        """Only then we are a server, if at all: asking one through a relay costs more than it is worth."""
        self._driver.be_server(self._would_serve and is_true)

    async def join(self, *peers: ID) -> int:
        """Look for ourselves, through these and all that we know, which also makes us known if we are a server.

        Returns how many servers answered.
        """
        contacts = [self._driver.contact(peer) for peer in peers]
        result = await self._driver.perform(Located, lambda now: self._core.join(contacts, now))
        return len(result.closest)

    async def provide(self, name: str) -> None:
        """Announce that we provide `name`. Raises `Unavailable` if nobody holds the record now."""
        addresses = binary_addresses(self._host.get_addrs(), self._host.get_id())
        if not addresses:
            raise Unavailable("there is no address to announce")
        announcing = Announcing(name, self._core.me, self._crowded)
        is_held = self._core.is_server
        while (key := announcing.next(trio.current_time())) is not None:
            result = await self._driver.perform(Announced, partial(self._core.announce, key, addresses))
            is_held |= bool(result.servers)
            announcing.heard(is_held=bool(result.servers), is_crowded=result.is_crowded, now=trio.current_time())
        if not is_held:
            raise Unavailable(f"no DHT server took the record of {name}")

    async def withdraw(self, name: str) -> None:
        """Tell those who hold our records of `name` to forget them."""
        async with trio.open_nursery() as nursery:
            for key in announced_keys(name, self._core.me):
                nursery.start_soon(self._driver.perform, Withdrawn, partial(self._core.withdraw, key))

    async def find_providers(self, name: str, limit: int) -> list[PeerAddress]:
        """Up to `limit` distinct peers other than us that announced `name`."""
        search = Searching(name, limit, secrets.randbelow)
        while (key := search.next()) is not None:
            result = await self._driver.perform(Found, partial(self._core.find, key, limit))
            usable = [contact for contact in result.providers if is_ed25519(contact.peer)]
            search.heard(usable, is_crowded=result.is_crowded)
        return [peer_address(found) for found in search.found()]

    async def look_up(self, peer: ID) -> PeerAddress:
        """Ask the network where `peer` is, without asking itself."""
        result = await self._driver.perform(Sought, partial(self._core.seek, peer.to_bytes()))
        return peer_address(result.contact)

    def _restore(self, path: Path) -> None:
        contacts = [contact for peer in load_peers(path) if (contact := contact_of(peer)) is not None]
        self._driver.carry_out(self._core.restore(contacts, trio.current_time()))

    async def _save_at_times(self) -> None:
        while True:
            await trio.sleep(SAVE_EVERY_S)
            self._save()

    def _save(self) -> None:
        """Some hundred lines at most, so that it need not leave the event loop."""
        known = self._core.snapshot()
        if self._saved is not None and known:
            save_peers(self._saved, [peer_address(each) for each in known])
