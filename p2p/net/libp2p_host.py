"""`p2p.host.Host` over libp2p: TCP, our Noise and Yamux, identify, ping, Kademlia and GossipSub."""

from __future__ import annotations

import logging
import socket
import weakref
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStoreError
from libp2p.utils.address_validation import expand_wildcard_address
from multiaddr import Multiaddr

from p2p import keys
from p2p.errors import Error, LocalError, RemoteError, Unavailable
from p2p.host import HANDLER_TIMEOUT_S, Handler, Host, PeerAddress, PeerState, Stream, Validator
from p2p.net import guards, noise
from p2p.net.arrivals import Limits
from p2p.net.dht import Dht
from p2p.net.gate import Gate
from p2p.net.gossip import Gossip
from p2p.net.muxer import PROTOCOL_ID, MuxedConn
from p2p.net.peers import peer_states
from p2p.net.stream import Libp2pStream
from p2p.protocol.kad_messages import MAX_ADDRESSES

OPEN_TIMEOUT_S = 10.0  # for a stream, with the look-up and the dial if they are needed
LOOK_UP_TIMEOUT_S = 20.0  # for one walk through the DHT
CLOSE_TIMEOUT_S = 1.5
DRAIN_TIMEOUT_S = 10.0
_ADDRESS_LIFE_S = 3600

_log = logging.getLogger(__name__)


@asynccontextmanager
async def open_host(
    seed: bytes, listen: Sequence[str], *, dht_server: bool, network: str, peers_file: Path | None = None
) -> AsyncIterator[Host]:
    """A running peer with the identity of `seed` (32 bytes, Ed25519), until the context is left.

    `listen` has multiaddrs such as `/ip4/127.0.0.1/tcp/0`, none for a peer that only dials. A DHT client keeps no
    records for others. Peers of another `network` share neither DHT nor gossip with us. The servers that we got to know
    are kept in `peers_file` for the next start.

    Raises `LocalError` for a bad or taken address, and `Unavailable` if the network's own tasks fail meanwhile. What
    the body raises leaves as it is, never in a group.
    """
    addresses = [_listen_address(text) for text in listen]
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            host: Host = await nursery.start(_run, seed, addresses, dht_server, network, peers_file)
            try:
                yield host
            except (Exception, KeyboardInterrupt, SystemExit) as error:
                failure = error  # carried around the nursery, which would wrap it
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if group.subgroup(trio.Cancelled):
            raise  # Trio takes it apart where the cancellation began
        raise _bare(group) from group
    if failure is not None:
        raise failure


async def _run(
    seed: bytes,
    addresses: Sequence[Multiaddr],
    dht_server: bool,
    network: str,
    peers_file: Path | None,
    *,
    task_status: trio.TaskStatus[Host],
) -> None:
    """Everything of libp2p that runs, until cancelled."""
    guards.guard_process()
    key_pair = create_new_key_pair(seed)
    host = new_host(
        key_pair=key_pair,
        sec_opt={noise.PROTOCOL_ID: noise.NoiseTransport(key_pair)},  # its default list accepts plain text
        muxer_opt={PROTOCOL_ID: MuxedConn},
        listen_addrs=addresses or None,
        connection_config=guards.connection_config(),
        resource_manager=guards.resource_manager(),
        addrs_factory=_announced,
        disable_identify_address_discovery=True,  # what strangers say of our address is not to be announced
    )
    guards.guard(host)
    gate = Gate(host.get_network(), Limits())
    gossip = Gossip(host, network, gate.blame)
    dht = Dht(host, network, server=dht_server, reach=lambda peer: ours.reach(peer), blame=gate.blame, saved=peers_file)
    ours = Libp2pHost(host, gate, dht, gossip)
    async with host.run(addresses), gossip.running(), dht.running(), trio.open_nursery() as nursery:
        nursery.start_soon(gate.run)
        if len(host.get_network().listeners) != len(addresses):
            raise LocalError(f"cannot listen on all of {', '.join(map(str, addresses))}")
        task_status.started(ours)
        try:
            await trio.sleep_forever()
        finally:
            await _shut_down(host)


async def _shut_down(host: Any) -> None:
    """Close what would otherwise outlive us as a system task, and let connections say goodbye, all at once."""
    network = host.get_network()
    for identifying in list(host._identify_tasks):
        identifying.cancel()
    with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
        async with trio.open_nursery() as nursery:
            for part in [*network.listeners.values(), *network.get_connections()]:
                nursery.start_soon(part.close)


class Libp2pHost:
    """See `p2p.host.Host`. Made by `open_host`."""

    def __init__(self, host: Any, gate: Gate, dht: Dht, gossip: Gossip) -> None:
        self._host = host
        self._gate = gate
        self._network = host.get_network()
        self._dht = dht
        self._gossip = gossip
        self._reaching: weakref.WeakValueDictionary[Any, trio.Lock] = weakref.WeakValueDictionary()

    @property
    def peer(self) -> str:
        return str(self._host.get_id())

    def addresses(self) -> Sequence[str]:
        return tuple(str(address) for address in self._host.get_addrs())

    def serve(self, protocol: str, handler: Handler, *, timeout_s: float = HANDLER_TIMEOUT_S) -> None:
        async def serve_one(net_stream: Any) -> None:
            stream = Libp2pStream(net_stream)
            try:
                with trio.fail_after(timeout_s):
                    await handler(stream)
            except trio.TooSlowError:
                _log.debug("a stream of %s from %s took too long", protocol, stream.peer)
                await stream.reset()
            except Error as error:
                _log.debug("a stream of %s from %s: %s", protocol, stream.peer, error)
                await stream.reset()
                if isinstance(error, RemoteError):
                    self._gate.blame(stream.peer, str(error))
            except Exception:
                _log.exception("the handler of %s failed", protocol)
                await stream.reset()
            else:
                await stream.drain(DRAIN_TIMEOUT_S)

        self._host.set_stream_handler(TProtocol(protocol), serve_one)

    def peers(self) -> Sequence[PeerState]:
        return peer_states(self._network, self._gate.bans())

    def learn(self, peer: PeerAddress) -> None:
        peer_id = _peer_id(peer.peer)
        addresses = []
        for text in peer.addresses[:MAX_ADDRESSES]:
            try:
                addresses.append(_dial_address(text, peer_id))
            except LocalError as error:
                _log.debug("an address of %s: %s", peer.peer, error)
        self._learn(peer_id, addresses)

    async def connect(self, address: str) -> str:
        peer_id = _peer_id(address.rpartition("/p2p/")[2])
        if peer_id == self._host.get_id():
            raise LocalError(f"{address} is our own address")
        self._learn(peer_id, [_dial_address(address, peer_id)])
        with _translated(f"cannot connect to {address}"):
            with trio.fail_after(OPEN_TIMEOUT_S):
                await self._reach(peer_id)
            with trio.move_on_after(LOOK_UP_TIMEOUT_S):
                await self._dht.join(peer_id)
        return str(peer_id)

    async def rejoin(self) -> int:
        with _translated("cannot join again"), trio.move_on_after(LOOK_UP_TIMEOUT_S):
            return await self._dht.join()
        return 0

    async def open(self, peer: str, protocol: str) -> Stream:
        peer_id = _peer_id(peer)
        with _translated(f"cannot open {protocol} to {peer}"), trio.fail_after(OPEN_TIMEOUT_S):
            await self._reach(peer_id)
            return Libp2pStream(await self._host.new_stream(peer_id, [TProtocol(protocol)]))

    async def provide(self, key: str) -> None:
        with _translated(f"cannot provide {key}"), trio.fail_after(LOOK_UP_TIMEOUT_S):
            await self._dht.provide(key)

    async def withdraw(self, key: str) -> None:
        with _translated(f"cannot withdraw {key}"), trio.fail_after(OPEN_TIMEOUT_S):
            await self._dht.withdraw(key)

    async def find_providers(self, key: str, limit: int) -> Sequence[PeerAddress]:
        with _translated(f"cannot look for providers of {key}"), trio.fail_after(LOOK_UP_TIMEOUT_S):
            found = await self._dht.find_providers(key, limit)
        for provider in found:
            self.learn(provider)
        return found

    async def publish(self, topic: str, payload: bytes) -> None:
        with _translated(f"cannot publish on {topic}"):
            await self._gossip.publish(topic, payload)

    def subscribe(self, topic: str, validator: Validator) -> AbstractAsyncContextManager[None]:
        return self._gossip.subscribed(topic, validator)

    def _learn(self, peer_id: ID, addresses: Sequence[Multiaddr]) -> None:
        """A peer that was just heard of is worth a dial, whatever the library's 60 s memory of failures says."""
        self._host.get_peerstore().add_addrs(peer_id, addresses, _ADDRESS_LIFE_S)
        self._network._negative_peer_cache.evict(str(peer_id))

    async def _reach(self, peer_id: ID) -> None:
        """Have a connection to the peer, dialling once however many ask."""
        async with self._reaching.setdefault(peer_id, trio.Lock()):
            if self._connected(peer_id):
                return
            tried = self._known_addresses(peer_id)
            failures = await self._dial(peer_id, tried)
            if self._connected(peer_id):
                return
            self.learn(await self._dht.look_up(peer_id))
            fresh = [address for address in self._known_addresses(peer_id) if address not in tried]
            failures += await self._dial(peer_id, fresh)
            if not self._connected(peer_id):
                raise Unavailable("; ".join(failures) or "no address is known")

    async def reach(self, peer: PeerAddress) -> None:
        """Have a connection to the peer, at these addresses or others that are known, without asking the DHT."""
        peer_id = _peer_id(peer.peer)
        if self._connected(peer_id):
            return
        self.learn(peer)
        async with self._reaching.setdefault(peer_id, trio.Lock()):
            failures = [] if self._connected(peer_id) else await self._dial(peer_id, self._known_addresses(peer_id))
        if not self._connected(peer_id):
            raise Unavailable("; ".join(failures) or "no address is known")

    async def _dial(self, peer_id: ID, addresses: Sequence[Multiaddr]) -> list[str]:
        """Dial all addresses side by side until one answers, and return why others failed.

        Fault: `host.connect` tries one TCP address per peer, and refuses to try for a minute after a failure.
        """
        failures = []

        async def attempt(address: Multiaddr, scope: trio.CancelScope) -> None:
            try:
                await self._network.dial_addr(address, peer_id)
            except Exception as error:
                failures.append(f"{address}: {error.__cause__ or error}")
            else:
                scope.cancel()

        async with trio.open_nursery() as nursery:
            for address in addresses[:MAX_ADDRESSES]:
                nursery.start_soon(attempt, address, nursery.cancel_scope)
        return failures

    def _connected(self, peer_id: ID) -> bool:
        return any(not connection.muxed_conn.is_closed for connection in self._network.get_connections(peer_id))

    def _known_addresses(self, peer_id: ID) -> list[Multiaddr]:
        try:
            return list(self._host.get_peerstore().addrs(peer_id))
        except PeerStoreError:
            return []


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Whatever the library raises is, to a caller, a peer or a network that did not do its part."""
    try:
        yield
    except Error:
        raise
    except trio.TooSlowError as error:
        raise Unavailable(f"{what}: it took too long") from error
    except Exception as error:
        raise Unavailable(f"{what}: {error}") from error


def _bare(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error that stands for what ended the network's tasks."""
    if group.subgroup(KeyboardInterrupt):  # Ctrl-C strikes whichever task runs
        return KeyboardInterrupt()
    leaf: BaseException = group
    while isinstance(leaf, BaseExceptionGroup):
        leaf = leaf.exceptions[0]
    return leaf if isinstance(leaf, Error) else Unavailable(f"the network failed: {leaf!r}")


def _announced(listening: Sequence[Multiaddr]) -> list[Multiaddr]:
    """What to tell others: a wildcard stands for the addresses of all interfaces."""
    wild = ("/ip4/0.0.0.0/", "/ip6/::/")
    return [
        each
        for address in listening
        for each in (expand_wildcard_address(address) if str(address).startswith(wild) else [address])
    ]


def _peer_id(text: str) -> ID:
    try:
        keys.public_key_of(text)
    except RemoteError as error:
        raise LocalError(f"{text!r} is not a peer id") from error
    return ID.from_base58(text)


def _dial_address(text: str, peer_id: ID) -> Multiaddr:
    """The transport part of a full address. Raises `LocalError`."""
    transport, _, peer = text.rpartition("/p2p/")
    if peer != str(peer_id):
        raise LocalError(f"{text!r} does not end in /p2p/{peer_id}")
    return _tcp_address(transport)


def _listen_address(text: str) -> Multiaddr:
    """Raises `LocalError` if we cannot listen there.

    Fault: libp2p listens with SO_REUSEPORT, so two programs share a port and each gets half of the connections.
    Binding once without that option finds out.
    """
    address = _tcp_address(text)
    version = address.protocols()[0].name
    if version not in {"ip4", "ip6"}:
        raise LocalError(f"{text!r} is a name; give the address to listen on")
    ip, port = str(address.value_for_protocol(version)), int(address.value_for_protocol("tcp"))
    with socket.socket(socket.AF_INET6 if version == "ip6" else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # an old connection's remains are no obstacle
        try:
            probe.bind((ip, port))
            probe.listen()
        except OSError as error:
            raise LocalError(
                f"cannot listen on {ip} port {port} ({error.strerror}): stop the program that uses it or choose another"
            ) from error
    return address


def _tcp_address(text: str) -> Multiaddr:
    try:
        address = Multiaddr(text)
        names = [protocol.name for protocol in address.protocols()]
    except Exception as error:  # the library's parser raises a dozen types
        raise LocalError(f"{text!r} is not a multiaddr") from error
    if len(names) != 2 or names[0] not in {"ip4", "ip6", "dns", "dns4", "dns6"} or names[1] != "tcp":
        raise LocalError(f"{text!r} is not of the form /ip4/<address>/tcp/<port>")
    return address
