"""`p2p.host.Host` over libp2p: TCP and relays, our Noise and Yamux, identify, ping, Kademlia and GossipSub."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from p2p import keys
from p2p.errors import Error, LocalError, RemoteError, Unavailable
from p2p.host import HANDLER_TIMEOUT_S, Handler, Host, PeerAddress, PeerState, Reached, Stream, Validator
from p2p.net import guards, noise
from p2p.net.dht import Dht
from p2p.net.dialling import Dialler
from p2p.net.gate import Gate
from p2p.net.gossip import Gossip
from p2p.net.intake import Intake
from p2p.net.limits import USUAL, InboundLimits
from p2p.net.muxer import PROTOCOL_ID, MuxedConn
from p2p.net.peers import peer_states
from p2p.net.private_network import make_private
from p2p.net.reachable import Reachable
from p2p.net.relay import RelayServer
from p2p.net.stream import Libp2pStream, serve
from p2p.net.tcp import Tcp
from p2p.protocol.addresses import Reach, parse, parse_full, reach_of, socket_address
from p2p.protocol.reachability import Reachability
from p2p.protocol.relaying import Limits

OPEN_TIMEOUT_S = 10.0  # for a stream, with the look-up and the dial if they are needed
LOOK_UP_TIMEOUT_S = 20.0  # for one walk through the DHT
CLOSE_TIMEOUT_S = 1.5


@asynccontextmanager
async def open_host(
    seed: bytes,
    listen: Sequence[str],
    *,
    dht_server: bool,
    network: str,
    peers_file: Path | None = None,
    relay: Limits | None = None,
    upnp: bool = False,
    inbound: InboundLimits = USUAL,
    swarm_key: bytes | None = None,
) -> AsyncIterator[Host]:
    """A running peer with the identity of `seed` (32 bytes, Ed25519), until the context is left.

    `listen` has multiaddrs such as `/ip4/127.0.0.1/tcp/0`, none for a peer that only dials. A DHT server keeps records
    for others while it can be dialled. Peers of another `network` share neither DHT nor gossip with us. The servers
    that we got to know are kept in `peers_file` for the next start. With `relay`, others may be reached through us,
    within these limits; `inbound` are the limits for whatever others open here. With `upnp` the router is asked to
    forward a port to the first that we listen on. With a `swarm_key` (32 bytes) the network is private: who has no such
    key is not talked to.

    Raises `LocalError` for a bad or taken address, and `Unavailable` if the network's own tasks fail meanwhile. What
    the body raises leaves as it is, never in a group.
    """
    addresses = [_listen_address(text) for text in listen]
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            host: Host = await nursery.start(
                _run, seed, addresses, dht_server, network, peers_file, relay, upnp, inbound, swarm_key
            )
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
    relay: Limits | None,
    upnp: bool,
    inbound: InboundLimits,
    swarm_key: bytes | None,
    *,
    task_status: trio.TaskStatus[Host],
) -> None:
    """Everything of libp2p that runs, until cancelled."""
    inbound = inbound.within(guards.guard_process())
    key_pair = create_new_key_pair(seed)
    core = Reachability(believed=relay is not None)
    tcp = Tcp(may_dial=core.holds)
    host = new_host(
        key_pair=key_pair,
        sec_opt={noise.PROTOCOL_ID: noise.NoiseTransport(key_pair)},  # its default list accepts plain text
        muxer_opt={PROTOCOL_ID: MuxedConn},
        transports=[tcp],
        connection_config=guards.connection_config(),
        resource_manager=guards.resource_manager(),
        disable_identify_address_discovery=True,  # `Reachable` takes its place
    )
    guards.guard(host)
    if swarm_key is not None:
        make_private(host.get_network(), swarm_key)
    gate, intake = Gate(host.get_network(), inbound), Intake(host, inbound)
    gossip = Gossip(host, network, gate.blame)
    dialler = Dialler(host, core.holds)
    dht = Dht(host, network, server=dht_server, reach=dialler.reach_at, blame=gate.blame, saved=peers_file)
    reachable = Reachable(host, core, dialler, tcp, gate.blame, dht.can_be_dialled)
    ours = Libp2pHost(host, gate, dht, gossip, dialler, reachable)
    if relay is not None:
        gate.keep(RelayServer(host, gate.blame, relay).holds_place)
    async with host.run(addresses), gossip.running(), dht.running(), trio.open_nursery() as nursery:
        nursery.start_soon(gate.run)
        nursery.start_soon(intake.run)
        if len(host.get_network().listeners) != len(addresses):
            raise LocalError(f"cannot listen on all of {', '.join(map(str, addresses))}")
        await nursery.start(reachable.run, upnp)
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

    def __init__(self, host: Any, gate: Gate, dht: Dht, gossip: Gossip, dialler: Dialler, reachable: Reachable) -> None:
        self._host = host
        self._gate = gate
        self._dht = dht
        self._gossip = gossip
        self._dialler = dialler
        self._reachable = reachable

    @property
    def peer(self) -> str:
        return str(self._host.get_id())

    def addresses(self) -> Sequence[str]:
        return tuple(address.of(self.peer) for address in self._reachable.core.announced())

    def reached(self) -> Reached:
        return self._reachable.reached()

    def listening(self) -> Sequence[str]:
        return tuple(address.of(self.peer) for address in self._reachable.listening())

    async def moved(self, since: Sequence[str]) -> None:
        await self._reachable.moved([parse_full(address, self.peer) for address in since])

    def serve(self, protocol: str, handler: Handler, *, timeout_s: float = HANDLER_TIMEOUT_S) -> None:
        serve(self._host, protocol, handler, self._gate.blame, timeout_s=timeout_s)

    def peers(self) -> Sequence[PeerState]:
        return peer_states(self._host.get_network(), self._gate.bans(), self._reachable.punch.punched)

    def learn(self, peer: PeerAddress) -> None:
        self._dialler.learn(peer)

    async def connect(self, address: str) -> str:
        peer = address.rpartition("/p2p/")[2]
        peer_id, where = _peer_id(peer), parse_full(address, peer)
        if peer_id == self._host.get_id():
            raise LocalError(f"{address} is our own address")
        self._dialler.name(peer_id, where)
        if where.kind.startswith("ip"):
            self._join(reach_of(where))
        with _translated(f"cannot connect to {address}"):
            with trio.fail_after(OPEN_TIMEOUT_S):
                await (self._dialler.reach(peer_id) if where.relay else self._dialler.reach_directly(peer_id, where))
            for connection in self._dialler.connections(peer_id):
                if remote := connection.muxed_conn.get_remote_address():  # what a name stood for
                    self._join(reach_of(socket_address(*remote)))
            with trio.move_on_after(LOOK_UP_TIMEOUT_S):
                await self._dht.join(peer_id)
        return peer

    async def rejoin(self) -> int:
        with _translated("cannot join again"), trio.move_on_after(LOOK_UP_TIMEOUT_S):
            return await self._dht.join()
        return 0

    async def open(self, peer: str, protocol: str) -> Stream:
        peer_id = _peer_id(peer)
        with _translated(f"cannot open {protocol} to {peer}"), trio.fail_after(OPEN_TIMEOUT_S):
            await self._dialler.reach(peer_id, self._dht.look_up)
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

    def _join(self, reach: Reach | None) -> None:
        """Somebody that we were told of is so far away, and so is the network."""
        if reach is not None:
            self._reachable.core.joined(reach)
            self._reachable.wake()


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


def _peer_id(text: str) -> ID:
    try:
        keys.public_key_of(text)
    except RemoteError as error:
        raise LocalError(f"{text!r} is not a peer id") from error
    return ID.from_base58(text)


def _listen_address(text: str) -> Multiaddr:
    """Raises `LocalError` if we cannot listen there.

    Fault: libp2p listens with SO_REUSEPORT, so two programs share a port and each gets half of the connections.
    Binding once without that option finds out.
    """
    address = parse(text)
    if address.relay or not address.kind.startswith("ip"):
        raise LocalError(f"{text!r} is not a place to listen; give an address such as /ip4/127.0.0.1/tcp/0")
    ip, port = address.host, address.port
    version = address.kind
    with socket.socket(socket.AF_INET6 if version == "ip6" else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # an old connection's remains are no obstacle
        try:
            probe.bind((ip, port))
            probe.listen()
        except OSError as error:
            raise LocalError(
                f"cannot listen on {ip} port {port} ({error.strerror}): stop the program that uses it or choose another"
            ) from error
    return Multiaddr(text)
