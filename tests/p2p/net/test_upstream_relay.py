"""What libp2p 0.8.1 gets wrong about relays and about where a host is: each check fails once a fault is gone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from libp2p.identity.identify.identify import _mk_identify_protobuf
from libp2p.network.exceptions import SwarmException
from libp2p.peer.peerinfo import PeerInfo
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, PeerId
from libp2p.relay.circuit_v2.protocol import CircuitV2Protocol
from libp2p.transport.tcp.tcp import TCP
from loopback import LISTEN, stock_host
from multiaddr import Multiaddr
from test_upstream_faults import pair, still

OUR_RELAY = "p2p.net.relay, if the other faults of the stock one are gone, too"
PLACE = Multiaddr("/ip4/127.0.0.1/tcp/1/p2p/12D3KooWBviqU27DnTcAzg98rdBe3oFHYTxFv2q3qsDFttszHrxW/p2p-circuit")


@asynccontextmanager
async def a_stock_host() -> AsyncIterator[Any]:
    host = stock_host("a")
    async with host.run([Multiaddr(LISTEN[0])]):
        yield host


class Stream:
    """What a stock relay reads from one end, and what it does to that end."""

    def __init__(self, *said: bytes) -> None:
        self.muxed_conn = self
        self.peer_id = stock_host("somebody").get_id()
        self.heard = b""
        self.is_closed = False
        self._said = list(said)

    async def read(self, _max_bytes: int) -> bytes:
        return self._said.pop(0) if self._said else b""

    async def write(self, data: bytes) -> None:
        self.heard += data

    async def close(self) -> None:
        self.is_closed = True

    async def reset(self) -> None: ...


async def test_an_address_at_a_relay_is_taken_for_the_relays_own() -> None:
    async with a_stock_host() as host:
        host._addrs_factory = lambda _listening: [PLACE]
        still("p2p-circuit" not in str(host.get_addrs()), "get_addrs of p2p.net.reachable")


async def test_who_has_nothing_to_announce_announces_what_it_listens_on() -> None:
    async with a_stock_host() as host:
        host._addrs_factory = lambda _listening: []
        still(_mk_identify_protobuf(host, None).listen_addrs, "get_transport_addrs of p2p.net.reachable")


def test_tcp_dials_a_relay_for_the_peer_behind_it() -> None:
    still(TCP().can_dial(PLACE), "listen_order of p2p.net.circuits")


async def test_no_address_at_a_relay_is_dialled() -> None:
    async with a_stock_host() as host:
        target = stock_host("b").get_id()
        host.get_peerstore().add_addrs(target, [PLACE], 60)
        try:
            await host.get_network().dial_peer(target)
        except SwarmException as error:
            still("relay" in str(error), "relays from p2p.net.dialling")


async def test_a_place_is_reserved_in_anybodys_name() -> None:
    async with pair() as (host, stranger):
        await host.connect(PeerInfo(stranger.get_id(), stranger.get_addrs()))
        relay = CircuitV2Protocol(host, allow_hop=True)
        asked = HopMessage(type=HopMessage.RESERVE, peer=PeerId(id=stranger.get_id().to_bytes()))
        await relay._handle_reserve(Stream(), asked)
        still(relay.resource_manager.has_reservation(stranger.get_id()), OUR_RELAY)


async def test_a_circuit_that_is_cut_has_a_message_in_it() -> None:
    relay, near, far = CircuitV2Protocol(stock_host("relay")), Stream(b"too much"), Stream()
    await relay._relay_data(near, far, near.peer_id, circuit_data_limit=[1])
    still(near.heard, OUR_RELAY)


async def test_the_end_of_one_circuit_ends_another_of_that_peer() -> None:
    relay, ended = CircuitV2Protocol(stock_host("relay")), (Stream(), Stream())
    other = Stream(), Stream()
    relay._active_relays[ended[0].peer_id] = other
    await relay._relay_data(*ended, ended[0].peer_id)
    still(other[0].is_closed and other[1].is_closed, OUR_RELAY)
