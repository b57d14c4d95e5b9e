"""Kademlia by libp2p 0.8.1, under our own protocol id and with the faults of its servers cured.

Record keys are the SHA-256 multihash of any text. What the library still does: at most 20 providers per key, first
come, kept for 48 hours alive or dead; at most 10 new records per peer in 10 s, the rest dropped without a word.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
from libp2p.custom_types import TProtocol
from libp2p.kad_dht.common import BUCKET_SIZE
from libp2p.kad_dht.common import PROTOCOL_ID as STOCK_PROTOCOL
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.peer.peerstore import PeerStoreError
from libp2p.tools.anyio_service import background_trio_service

from p2p import keys
from p2p.errors import RemoteError, Unavailable
from p2p.host import PeerAddress

QUERY_TIMEOUT_S = 5.0  # for one server's answer
SERVED_STREAM_TIMEOUT_S = 10.0
MAX_SERVED_STREAMS = 128
MAX_SERVED_STREAMS_PER_PEER = 8
IDENTIFY_TIMEOUT_S = 5.0
_IDENTIFY_POLL_S = 0.02
MAX_ADDRESSES_PER_PEER = 8

_SHA2_256_MULTIHASH = b"\x12\x20"  # function code, digest length

_log = logging.getLogger(__name__)


def protocol_id(network: str) -> TProtocol:
    """Ours, one per network, so that two networks, or ours and IPFS, can never merge."""
    return TProtocol(f"/bombyx/{network}/kad/1.0.0")


class _Renamed:
    """A host as the library's DHT sees it: the protocol id that it has built in stands for ours."""

    def __init__(self, host: Any, protocol: TProtocol) -> None:
        self._host = host
        self._names = {STOCK_PROTOCOL: protocol}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)

    async def new_stream(self, peer_id: Any, protocol_ids: Sequence[TProtocol]) -> Any:
        return await self._host.new_stream(peer_id, [self._names[protocol] for protocol in protocol_ids])

    def set_stream_handler(self, protocol_id: TProtocol, handler: Any) -> None:
        self._host.set_stream_handler(self._names[protocol_id], handler)

    def get_peerstore(self) -> _RenamedPeerstore:
        return _RenamedPeerstore(self._host.get_peerstore(), self._names)


class _RenamedPeerstore:
    """The peerstore for the same eyes: a peer that serves our protocol seems to serve the built-in one."""

    def __init__(self, peerstore: Any, names: dict[TProtocol, TProtocol]) -> None:
        self._peerstore = peerstore
        self._names = {ours: stock for stock, ours in names.items()}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._peerstore, name)

    def get_protocols(self, peer_id: Any) -> list[str]:
        return [self._names.get(protocol, f"not {protocol}") for protocol in self._peerstore.get_protocols(peer_id)]


class _GuardedDht(KadDHT):
    """The library's server and client."""

    def __init__(self, host: Any, mode: DHTMode) -> None:
        super().__init__(host, mode, strict_validation=True)
        self._inbound_limiter = trio.CapacityLimiter(MAX_SERVED_STREAMS)
        self._served: Counter[Any] = Counter()

    async def handle_stream(self, stream: Any) -> None:
        """Fault: 12 streams on which a peer says nothing disable the server for good."""
        peer = stream.muxed_conn.peer_id
        if self._served[peer] >= MAX_SERVED_STREAMS_PER_PEER:
            await stream.reset()
            return
        self._served[peer] += 1
        try:
            with trio.move_on_after(SERVED_STREAM_TIMEOUT_S) as scope:
                await super().handle_stream(stream)
        finally:
            self._served -= Counter([peer])  # drops the entry when it reaches zero
        if scope.cancelled_caught:
            await stream.reset()
        await self.add_identified(peer)

    async def add_peer(self, peer_id: Any, *, skip_server_mode_check: bool = False) -> bool:
        """Fault: whoever asks is taken for a server, so tables fill with clients; `handle_stream` adds servers."""
        return False if skip_server_mode_check else bool(await super().add_peer(peer_id))

    async def add_identified(self, peer_id: Any) -> None:
        """Add a connected peer, if it is a server, once `identify` has said so."""
        with trio.move_on_after(IDENTIFY_TIMEOUT_S):
            while not self._protocols_of(peer_id):  # noqa: ASYNC110  # identify tells nobody that it is done
                await trio.sleep(_IDENTIFY_POLL_S)
            await self.add_peer(peer_id)

    def _protocols_of(self, peer_id: Any) -> list[str]:
        try:
            return list(self.host.get_peerstore().get_protocols(peer_id))
        except PeerStoreError:
            return []


class Dht:
    """Our place in the DHT of one network, as a server or as a client only."""

    def __init__(self, host: Any, network: str, *, server: bool) -> None:
        self._host = host
        self._server = server
        renamed = _Renamed(host, protocol_id(network))
        self._dht = _GuardedDht(renamed, DHTMode.SERVER if server else DHTMode.CLIENT)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Take part while the context lasts."""
        async with background_trio_service(self._dht):
            yield

    async def join(self, peer_id: Any) -> None:
        """Join through a connected peer: looking for ourselves also makes us known, if we are a server."""
        await self._dht.add_identified(peer_id)
        await self.look_up(self._host.get_id())

    async def provide(self, key: str) -> None:
        """Announce that we provide `key`. Raises `Unavailable` if nobody holds the record now."""
        if not await self._dht.provider_store.provide(_record_key(key)) and not self._server:
            raise Unavailable(f"no DHT server took the record of {key}")

    async def find_providers(self, key: str, limit: int) -> list[PeerAddress]:
        """Up to `limit` distinct peers other than us that announced `key`.

        Fault: the library's own search answers from what it saw in the last 48 hours, counts duplicates against the
        limit, and returns only ourselves if we provide the key. This one always asks the servers closest to it.
        """
        record = _record_key(key)
        store = self._dht.provider_store
        found: dict[Any, dict[str, None]] = {}
        self._merge(found, store.get_providers(record))  # what was announced to us

        async def ask(server: Any, scope: trio.CancelScope) -> None:
            with trio.move_on_after(QUERY_TIMEOUT_S):
                providers, _ = await store._get_providers_from_peer_with_closers(server, record)
                self._merge(found, providers)
                if len(found) >= limit:
                    scope.cancel()

        closest = await self._dht.peer_routing.find_closest_peers_network(record)
        async with trio.open_nursery() as nursery:
            for server in closest[:BUCKET_SIZE]:
                nursery.start_soon(ask, server, nursery.cancel_scope)
        return [PeerAddress(str(peer), tuple(addresses)) for peer, addresses in found.items()][:limit]

    async def look_up(self, peer_id: Any) -> None:
        """Ask the network where `peer_id` is; what it says is in the peerstore afterwards."""
        await self._dht.peer_routing.find_closest_peers_network(peer_id.to_bytes())

    def _merge(self, found: dict[Any, dict[str, None]], providers: Iterable[Any]) -> None:
        """Add providers, with their addresses in the order in which they were heard of."""
        for provider in providers:
            if provider.peer_id == self._host.get_id() or not _is_ed25519(provider.peer_id):
                continue
            addresses = found.setdefault(provider.peer_id, {})
            for address in provider.addrs[:MAX_ADDRESSES_PER_PEER]:
                if len(addresses) < MAX_ADDRESSES_PER_PEER and (text := _full_address(address, provider.peer_id)):
                    addresses[text] = None


def _is_ed25519(peer_id: Any) -> bool:
    """Whether it is a kind of id that our peers have; a record may name anything."""
    try:
        keys.public_key_of(str(peer_id))
    except RemoteError:
        return False
    return True


def _record_key(text: str) -> bytes:
    return _SHA2_256_MULTIHASH + hashlib.sha256(text.encode()).digest()


def _full_address(address: Any, peer_id: Any) -> str | None:
    """As text that ends in the peer's id; `None` for what a peer made up."""
    try:
        text = str(address)
    except Exception:  # the library's parser raises what it likes on bytes from a peer
        _log.debug("a provider's address cannot be read")
        return None
    suffix = f"/p2p/{peer_id}"
    return text if text.endswith(suffix) else text.partition("/p2p/")[0] + suffix
