"""Our relay with libp2p's own client of relays at either end, and our client with libp2p's own relay."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from libp2p.custom_types import TProtocol
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.relay.circuit_v2.config import RelayConfig
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, Status
from libp2p.relay.circuit_v2.protocol import PROTOCOL_ID, CircuitV2Protocol
from libp2p.relay.circuit_v2.transport import CircuitV2Transport
from libp2p.relay.circuit_v2.utils import read_delimited_msg, write_delimited_msg
from libp2p.tools.anyio_service import background_trio_service
from loopback import ECHO, LISTEN, a_host, echo, stock_host, until
from multiaddr import Multiaddr
from test_relay import LIMITS, a_hidden_provider, a_relay, a_world_on_loopback

from p2p.host import Host, PeerAddress
from p2p.net import guards
from p2p.net.stream import serve

__all__ = ["a_world_on_loopback"]  # the fixture


@asynccontextmanager
async def a_stock_host(name: str, *, hop: bool = False) -> AsyncIterator[tuple[Any, CircuitV2Protocol]]:
    host = stock_host(name)
    network = host.get_network()
    network.auto_connector = guards._NoAutoConnector(swarm=network)  # it drops sockets that it has not got to yet
    protocol = CircuitV2Protocol(host, allow_hop=hop)
    listen = Multiaddr("/ip4/127.1.0.1/tcp/0" if hop else LISTEN[0])
    async with host.run([listen]), background_trio_service(protocol):
        await protocol.event_started.wait()
        yield host, protocol
        for connection in network.get_connections():  # which it would leave to the garbage collector
            await connection.close()


async def test_its_client_reaches_our_provider_through_our_relay() -> None:
    async with (
        a_relay() as relay,
        a_hidden_provider(relay) as provider,
        a_stock_host("stock") as (client, protocol),
    ):
        transport = CircuitV2Transport(client, protocol, RelayConfig())
        await client.connect(info_from_p2p_addr(Multiaddr(relay.addresses()[0])))
        await transport.dial(Multiaddr(provider.addresses()[0]))
        target = info_from_p2p_addr(Multiaddr(provider.listening()[0])).peer_id
        stream = await client.new_stream(target, [TProtocol(ECHO)])
        await stream.write(b"from another implementation")
        assert await stream.read(100) == b"from another implementation"


async def test_our_client_reaches_its_provider_through_our_relay() -> None:
    async with a_relay() as relay, a_stock_host("stock") as (provider, _), a_host("client", listen=()) as client:
        serve(provider, ECHO, echo, lambda _peer, _why: None)
        there = info_from_p2p_addr(Multiaddr(relay.addresses()[0]))
        await provider.connect(there)
        stream = await provider.new_stream(there.peer_id, [PROTOCOL_ID])
        await write_delimited_msg(stream, HopMessage(type=HopMessage.RESERVE))
        answer = await read_delimited_msg(stream, HopMessage)
        assert answer.status == Status.OK
        assert [str(Multiaddr(address)) for address in answer.reservation.addrs] == list(relay.addresses())
        assert (answer.limit.duration, answer.limit.data) == (LIMITS.circuit_s, LIMITS.circuit_bytes)
        await _reach(client, relay.addresses()[0], str(provider.get_id()))


async def test_our_client_reaches_our_provider_through_its_relay() -> None:
    async with (
        a_stock_host("stock", hop=True) as (relay, _),
        a_host("provider") as provider,
        a_host("client", listen=()) as client,
    ):
        provider.serve(ECHO, echo)
        (where,) = map(str, relay.get_addrs())
        await provider.connect(where)
        await until(provider.addresses)
        await _reach(client, where, provider.peer)


async def _reach(client: Host, relay: str, provider: str) -> None:
    await client.connect(relay)
    client.learn(PeerAddress(provider, (f"{relay}/p2p-circuit/p2p/{provider}",)))
    stream = await client.open(provider, ECHO)
    await stream.write(b"to another implementation")
    assert await stream.read(100) == b"to another implementation"
    assert {state.peer: state.path for state in client.peers()}[provider] == "relayed"
