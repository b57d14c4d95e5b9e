"""Peers that cannot be dialled, reached through a relay: whole hosts on loopback.

The machine's own network stands for the world: what is at 127.1.0.0/16 counts as public, the rest of 127.0.0.0/8 as
private. `tests/whole/test_nat.py` has the same with real routers between.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from libp2p.network.exceptions import SwarmException
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, PeerId, Status, StopMessage
from loopback import ECHO, a_host, echo, raw, read_to_end, until
from multiaddr import Multiaddr

from p2p.errors import Unavailable
from p2p.host import Host, PeerAddress, Stream
from p2p.net import reservations
from p2p.net.delimited import receive, send
from p2p.net.relay import HOP, STOP, RelayServer
from p2p.net.reservations import Reservations
from p2p.protocol import addresses
from p2p.protocol.addresses import Reach
from p2p.protocol.relaying import Limits

PUBLIC = ("/ip4/127.1.0.1/tcp/0",)
LIMITS = Limits(
    reservations=4,
    reservations_per_address=4,
    reservation_s=3600,
    circuits=8,
    circuits_per_peer=4,
    circuit_s=60,
    circuit_bytes=1 << 24,
)


@pytest.fixture(autouse=True)
def a_world_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "reach_of_ip", lambda ip: Reach.WORLD if ip.startswith("127.1.") else Reach.SITE)


def path(host: Host, peer: Host) -> str | None:
    """How the peer is reached, if it is connected."""
    return {state.peer: state.path for state in host.peers()}.get(peer.peer)


@asynccontextmanager
async def a_relay(name: str = "relay", limits: Limits = LIMITS) -> AsyncIterator[Host]:
    async with a_host(name, listen=PUBLIC, relay=limits) as relay:
        yield relay


@asynccontextmanager
async def a_hidden_provider(relay: Host, name: str = "provider") -> AsyncIterator[Host]:
    """One whose own address is private, once it has a place at the relay."""
    async with a_host(name) as provider:
        provider.serve(ECHO, echo)
        await provider.connect(relay.addresses()[0])
        await until(provider.addresses)
        yield provider


@asynccontextmanager
async def a_client(relay: Host, provider: Host, name: str = "client") -> AsyncIterator[Host]:
    async with a_host(name, listen=()) as client:
        await client.connect(relay.addresses()[0])
        client.learn(PeerAddress(provider.peer, tuple(provider.addresses())))
        yield client


async def test_a_provider_that_cannot_be_dialled_is_reached_through_the_relay() -> None:
    async with a_relay() as relay, a_hidden_provider(relay) as provider, a_client(relay, provider) as client:
        assert provider.addresses() == (f"{relay.addresses()[0]}/p2p-circuit/p2p/{provider.peer}",)
        assert provider.listening()[0].startswith("/ip4/127.0.0.1/tcp/")
        callers = []

        async def handler(stream: Stream) -> None:
            callers.append((stream.peer, stream.source))
            await echo(stream)

        provider.serve(ECHO, handler)
        stream = await client.open(provider.peer, ECHO)
        data = random.Random(1).randbytes(1_000_000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_say, stream, data)
            assert await read_to_end(stream) == data
        assert (stream.peer, stream.source) == (provider.peer, relay.peer), (
            "all whom a relay brings count as one address"
        )
        assert callers == [(client.peer, relay.peer)]
        assert (path(client, provider), path(provider, client)) == ("relayed", "relayed")
        assert path(client, relay) == "direct"


async def test_the_relay_sees_nothing_of_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    carried = bytearray()
    pour = RelayServer._pour

    async def listen_in(self: RelayServer, source: Any, sink: Any, scope: trio.CancelScope) -> None:
        read = source.read

        async def overheard(max_bytes: int) -> bytes:
            data: bytes = await read(max_bytes)
            carried.extend(data)
            return data

        source.read = overheard
        await pour(self, source, sink, scope)

    monkeypatch.setattr(RelayServer, "_pour", listen_in)
    async with a_relay() as relay, a_hidden_provider(relay) as provider, a_client(relay, provider) as client:
        stream = await client.open(provider.peer, ECHO)
        secret = b"nobody on the way reads this " * 100
        await _say(stream, secret)
        assert await read_to_end(stream) == secret
        assert len(carried) > 2 * len(secret)
        assert b"nobody on" not in carried
        assert b"/noise" in carried  # what is said before there is a key


async def test_it_is_dialled_straight_where_that_works() -> None:
    async with a_relay() as relay, a_host("open", listen=PUBLIC) as provider, a_client(relay, provider) as client:
        provider.serve(ECHO, echo)
        straight, round_ = provider.listening()[0], f"{relay.addresses()[0]}/p2p-circuit/p2p/{provider.peer}"
        client.learn(PeerAddress(provider.peer, (round_, straight)))
        await client.open(provider.peer, ECHO)
        assert path(client, provider) == "direct"


async def test_a_private_address_from_a_stranger_is_not_dialled() -> None:
    """Neither one that is learnt, nor one that the library has from elsewhere; but one that the operator names is."""
    async with a_relay() as relay, a_host("victim", listen=()) as victim, a_host("hidden") as hidden:
        knocks = []
        network = raw(hidden).get_network()
        handle = network._handle_inbound_connection

        async def count(*args: Any) -> None:
            knocks.append(args)
            await handle(*args)

        network._handle_inbound_connection = count
        target = PeerAddress(hidden.peer, tuple(hidden.listening()))
        victim.learn(target)  # before there is a network, anything may be meant
        await victim.connect(relay.addresses()[0])
        victim.learn(target)
        heard = [Multiaddr(address) for address in hidden.listening()]
        raw(victim).get_peerstore().add_addrs(raw(hidden).get_id(), heard, 60)
        for dial in (
            raw(victim).get_network().dial_peer(raw(hidden).get_id()),
            victim.open(hidden.peer, ECHO),
        ):
            with pytest.raises((SwarmException, Unavailable)):
                await dial
        assert knocks == []
        await victim.connect(hidden.listening()[0])
        assert path(victim, hidden) == "direct"
        assert len(knocks) == 1


async def test_a_circuit_that_carries_too_much_is_cut_and_others_go_on() -> None:
    limits = LIMITS._replace(circuit_bytes=300_000)
    async with (
        a_relay(limits=limits) as relay,
        a_hidden_provider(relay) as provider,
        a_client(relay, provider) as client,
        a_client(relay, provider, "other") as other,
    ):
        witness = await other.open(provider.peer, ECHO)
        stream = await client.open(provider.peer, ECHO)
        with pytest.raises(Unavailable):
            await _say(stream, bytes(1_000_000))
        await witness.write(b"still here")
        assert await witness.read(100) == b"still here"
        stream = await client.open(provider.peer, ECHO)  # over a new circuit
        await _say(stream, b"again")
        assert await read_to_end(stream) == b"again"


async def test_a_circuit_that_lasts_too_long_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    scopes = []
    pour = RelayServer._pour

    async def remember(self: RelayServer, source: Any, sink: Any, scope: trio.CancelScope) -> None:
        scopes.append(scope)
        await pour(self, source, sink, scope)

    monkeypatch.setattr(RelayServer, "_pour", remember)
    async with a_relay() as relay, a_hidden_provider(relay) as provider, a_client(relay, provider) as client:
        stream = await client.open(provider.peer, ECHO)
        assert 0 < scopes[0].deadline - trio.current_time() <= LIMITS.circuit_s
        scopes[0].deadline = trio.current_time()  # it is late
        with pytest.raises(Unavailable), trio.fail_after(10):
            await stream.read(1)
        await until(lambda: path(client, provider) is None)


async def test_circuits_of_one_peer_are_limited_and_given_back() -> None:
    async with (
        a_relay(limits=LIMITS._replace(circuits_per_peer=1)) as relay,
        a_hidden_provider(relay) as provider,
        a_client(relay, provider) as client,
        a_client(relay, provider, "other") as other,
    ):
        await client.open(provider.peer, ECHO)
        with pytest.raises(Unavailable, match="RESOURCE_LIMIT_EXCEEDED"):
            await other.open(provider.peer, ECHO)
        await raw(client).get_network().close_peer(raw(provider).get_id())
        await until(lambda: path(provider, client) is None)
        await other.open(provider.peer, ECHO)


async def test_a_place_that_is_lost_is_withdrawn_and_taken_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reservations, "RETRY_S", 0.05)
    async with a_relay() as relay, a_hidden_provider(relay) as provider:
        async with a_relay("short-lived") as second:
            await provider.connect(second.addresses()[0])
            await until(lambda: len(provider.addresses()) == 2)
            at_both = provider.addresses()
        with trio.fail_after(5):
            await provider.moved(at_both)
        (left,) = provider.addresses()
        assert relay.peer in left
        async with a_relay("next") as third:
            await provider.connect(third.addresses()[0])
            await until(lambda: len(provider.addresses()) == 2)


async def test_a_relay_that_comes_back_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reservations, "RETRY_S", 0.05)
    async with a_host("provider") as provider:
        async with a_relay() as relay:
            (where,) = relay.addresses()
            await provider.connect(where)
            await until(provider.addresses)
        await until(lambda: not provider.addresses())
        async with a_host("relay", listen=(where.partition("/p2p/")[0],), relay=LIMITS):
            await until(provider.addresses)


async def test_a_place_is_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reservations, "RENEW_S", 0.05)
    asked = 0
    reserve = RelayServer._reserve

    async def count(self: RelayServer, stream: Any, ip: str) -> None:
        nonlocal asked
        asked += 1
        await reserve(self, stream, ip)

    monkeypatch.setattr(RelayServer, "_reserve", count)
    async with a_relay() as relay, a_hidden_provider(relay) as provider:
        await until(lambda: asked >= 4)
        assert len(provider.addresses()) == 1


async def test_a_full_relay_says_so_and_is_asked_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reservations, "RETRY_S", 0.05)
    asked = []
    ask = Reservations._ask

    async def count(self: Reservations, relay: Any) -> None:
        asked.append(relay)
        await ask(self, relay)

    async with a_relay(limits=LIMITS._replace(reservations_per_address=1)) as relay, a_host("late") as late:
        async with a_hidden_provider(relay):
            monkeypatch.setattr(Reservations, "_ask", count)
            await late.connect(relay.addresses()[0])
            await until(lambda: len(asked) == 3)
            assert late.addresses() == ()
        await until(late.addresses)


async def test_a_provider_at_a_relay_is_found_in_the_dht() -> None:
    async with a_relay() as relay, a_hidden_provider(relay) as provider, a_host("client", listen=()) as client:
        await provider.provide("model:m")
        await client.connect(relay.addresses()[0])
        (found,) = await client.find_providers("model:m", 4)
        assert found == PeerAddress(provider.peer, tuple(provider.addresses()))
        await client.open(provider.peer, ECHO)
        assert path(client, provider) == "relayed"


async def _ask_hop(client: Host, relay: Host, message: Any) -> Any:
    stream = await client.open(relay.peer, HOP)
    await send(stream, message)
    return await receive(stream, HopMessage)


async def test_what_the_relay_refuses() -> None:
    async with a_relay() as relay, a_hidden_provider(relay) as provider, a_client(relay, provider) as client:
        nobody = HopMessage(type=HopMessage.CONNECT, peer=PeerId(id=raw(client).get_id().to_bytes()))
        assert (await _ask_hop(client, relay, nobody)).status == Status.NO_RESERVATION
        backwards = HopMessage(type=HopMessage.STATUS, status=Status.OK)
        assert (await _ask_hop(client, relay, backwards)).status == Status.UNEXPECTED_MESSAGE
        for junk in (b"\xff\xff\xff", b"\x05hello", b"\x00", b"\x02\x08\x01"):  # the last: CONNECT to nobody
            stream = await client.open(relay.peer, HOP)
            await stream.write(junk)
            with pytest.raises(Unavailable):
                await receive(stream, HopMessage)
        await client.open(provider.peer, ECHO)


async def test_nothing_is_relayed_that_is_relayed_already() -> None:
    async with a_relay() as relay, a_hidden_provider(relay, "inner") as inner, a_client(relay, inner) as client:
        RelayServer(raw(inner), lambda _peer, _why: None, LIMITS)
        await client.open(inner.peer, ECHO)
        assert path(client, inner) == "relayed"
        assert (await _ask_hop(client, inner, HopMessage(type=HopMessage.RESERVE))).status == Status.PERMISSION_DENIED


async def test_a_circuit_comes_from_our_relays_only() -> None:
    async with a_relay() as relay, a_hidden_provider(relay) as provider, a_client(relay, provider) as client:
        await relay.open(provider.peer, STOP)
        await client.connect(provider.listening()[0])
        assert path(client, provider) == "direct"
        stream = await client.open(provider.peer, STOP)
        await send(stream, StopMessage(type=StopMessage.CONNECT, peer=PeerId(id=raw(relay).get_id().to_bytes())))
        assert (await receive(stream, StopMessage)).status == Status.PERMISSION_DENIED


async def _say(stream: Stream, data: bytes) -> None:
    await stream.write(data)
    await stream.close()
