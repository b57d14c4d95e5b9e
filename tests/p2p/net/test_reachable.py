"""Finding out where others can reach us, and punching holes: whole hosts on loopback.

127.2.0.0/16 stands for what is private, the rest of 127.0.0.0/8 for the world, which sees everybody at 127.0.0.1. So
one who listens at 127.0.0.1 is in the open, and one who listens at 127.2.0.1 is seen from outside and not reached.
Routers, and sockets that dial each other at the same moment, are in `tests/whole/test_nat.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from libp2p.host.autonat.autonat import AutoNATService, AutoNATStatus
from libp2p.host.autonat.pb.autonat_pb2 import Message
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.relay.circuit_v2.pb.dcutr_pb2 import HolePunch
from loopback import ECHO, LISTEN, a_host, echo, raw, read_to_end, seed, stock_host, until
from multiaddr import Multiaddr

from chain.keys import Ed25519Signer
from p2p.errors import Unavailable
from p2p.host import Host, PeerAddress, PeerState, Stream
from p2p.keys import peer_id_of
from p2p.net import autonat, checks, guards, punch
from p2p.net.autonat import AUTONAT
from p2p.net.delimited import receive, send
from p2p.net.punch import DCUTR
from p2p.protocol import addresses
from p2p.protocol.addresses import Reach, parse
from p2p.protocol.reachability import Status
from p2p.protocol.relaying import Limits

HIDDEN = ("/ip4/127.2.0.1/tcp/0",)
LIMITS = Limits(
    reservations=8,
    reservations_per_address=8,
    reservation_s=3600,
    circuits=8,
    circuits_per_peer=8,
    circuit_s=3600,
    circuit_bytes=1 << 24,
)


@pytest.fixture(autouse=True)
def a_world_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "reach_of_ip", lambda ip: Reach.SITE if ip.startswith("127.2.") else Reach.WORLD)


def status(host: Host) -> Status:
    core: Any = host._reachable.core  # type: ignore[attr-defined]
    found: Status = core.status
    return found


def state(host: Host, peer: Host) -> PeerState | None:
    return next((each for each in host.peers() if each.peer == peer.peer), None)


@asynccontextmanager
async def a_relay(name: str = "relay") -> AsyncIterator[Host]:
    async with a_host(name, relay=LIMITS) as relay:
        yield relay


@asynccontextmanager
async def a_hidden_provider(relay: Host, listen: tuple[str, ...] = HIDDEN) -> AsyncIterator[Host]:
    async with a_host("provider", listen=listen) as provider:
        provider.serve(ECHO, echo)
        await provider.connect(relay.addresses()[0])
        await until(provider.addresses)
        yield provider


async def test_an_address_is_announced_once_it_was_dialled() -> None:
    async with a_relay() as relay, a_host("open") as host:
        assert host.addresses() == ()
        await host.connect(relay.addresses()[0])
        await until(lambda: status(host) is Status.PUBLIC)
        assert host.addresses() == host.listening()


async def test_nothing_is_announced_while_nobody_dials_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def shrug(*_: object) -> None:
        return None

    monkeypatch.setattr(autonat.DialBack, "ask", shrug)
    async with a_relay() as relay, a_host("open") as host:
        await host.connect(relay.addresses()[0])
        await until(host.addresses)
        assert status(host) is Status.UNKNOWN
        assert [parse(address.rpartition("/p2p/")[0]).relay for address in host.addresses()] == [relay.peer]


async def test_who_cannot_be_dialled_takes_a_place() -> None:
    async with a_relay() as relay, a_hidden_provider(relay) as provider:
        await until(lambda: status(provider) is Status.PRIVATE)
        assert provider.addresses() == (f"{relay.addresses()[0]}/p2p-circuit/p2p/{provider.peer}",)


async def test_a_place_is_given_up_by_one_who_can_be_dialled_after_all(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [False]
    ask = autonat.DialBack.ask

    async def at_first_no(self: autonat.DialBack, *asked: Any) -> bool | None:
        return answers.pop() if answers else await ask(self, *asked)

    monkeypatch.setattr(autonat.DialBack, "ask", at_first_no)
    monkeypatch.setattr(checks, "CHECK_EVERY_S", 0.1)
    async with a_relay() as relay, a_host("open") as host:
        await host.connect(relay.addresses()[0])
        await until(lambda: any("p2p-circuit" in address for address in host.addresses()))
        await until(lambda: host.addresses() == host.listening())


@pytest.mark.parametrize("liars", [1, 2])
async def test_one_that_lies_is_outvoted(liars: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    ask = autonat.DialBack.ask

    async def lie(self: autonat.DialBack, checker: Any, address: Any) -> bool | None:
        asked.append(checker)
        return False if len(asked) <= liars else await ask(self, checker, address)

    monkeypatch.setattr(autonat.DialBack, "ask", lie)
    async with a_relay("a") as a, a_relay("b") as b, a_relay("c") as c, a_host("open") as host:
        for relay in (a, b, c):
            await host.connect(relay.addresses()[0])
        await until(lambda: len(asked) >= 3)
        expected = Status.PUBLIC if liars == 1 else Status.PRIVATE
        await until(lambda: status(host) is expected)


async def ask_to_dial(client: Host, checker: Host, *where: str) -> Any:
    stream = await client.open(checker.peer, AUTONAT)
    info = Message.PeerInfo(id=raw(client).get_id().to_bytes(), addrs=[Multiaddr(each).to_bytes() for each in where])
    await send(stream, Message(type=Message.DIAL, dial=Message.Dial(peer=info)))
    return (await receive(stream, Message)).dialResponse


async def test_nobody_else_is_dialled() -> None:
    knocks = []
    (listener,) = await trio.open_tcp_listeners(0, host="127.3.0.1")
    port = listener.socket.getsockname()[1]

    async def count() -> None:
        while True:
            knocks.append(await listener.accept())

    async with (
        a_relay() as relay,
        a_host("other") as other,
        a_host("client") as client,
        listener,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(count)
        await client.connect(relay.addresses()[0])
        elsewhere = f"/ip4/127.3.0.1/tcp/{port}"
        assert (await ask_to_dial(client, relay, elsewhere)).status == Message.E_DIAL_REFUSED
        assert (await ask_to_dial(client, relay)).status == Message.E_DIAL_REFUSED
        theirs = other.listening()[0].rpartition("/p2p/")[0]  # the same machine, another peer
        assert (await ask_to_dial(client, relay, theirs)).status == Message.E_DIAL_ERROR
        ours = client.listening()[0].rpartition("/p2p/")[0]
        answer = await ask_to_dial(client, relay, elsewhere, theirs, ours)
        assert (answer.status, str(Multiaddr(answer.addr))) == (Message.OK, ours)
        nursery.cancel_scope.cancel()
    assert knocks == []


async def test_nobody_is_dialled_who_asks_through_a_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(punch, "ATTEMPTS", 0)
    async with a_relay() as relay, a_hidden_provider(relay) as provider, a_host("client") as client:
        await client.connect(relay.addresses()[0])
        client.learn(PeerAddress(provider.peer, tuple(provider.addresses())))
        ours = client.listening()[0].rpartition("/p2p/")[0]
        assert (await ask_to_dial(client, provider, ours)).status == Message.E_DIAL_REFUSED


async def test_the_librarys_own_client_and_server_of_dialling_back_work_with_ours() -> None:
    async with a_relay() as relay, a_host("open") as host:
        stock = stock_host("stock")
        network = stock.get_network()
        network.auto_connector = guards._NoAutoConnector(swarm=network)
        service = AutoNATService(stock, confirmations=1)
        async with stock.run([Multiaddr(LISTEN[0])]):
            there = info_from_p2p_addr(Multiaddr(relay.addresses()[0]))
            await stock.connect(there)
            await until(lambda: AUTONAT in stock.get_peerstore().get_protocols(there.peer_id))
            await service.check_reachability([there.peer_id])
            assert service.status == AutoNATStatus.PUBLIC
            (address,) = stock.get_addrs()
            await host.connect(str(address))
            await until(lambda: status(host) is Status.PUBLIC)
            for connection in network.get_connections():
                await connection.close()


@asynccontextmanager
async def a_client_through(relay: Host, provider: Host) -> AsyncIterator[Host]:
    async with a_host("client", listen=()) as client:
        await client.connect(relay.addresses()[0])
        client.learn(PeerAddress(provider.peer, tuple(provider.addresses())))
        yield client


def path(host: Host, peer: Host) -> str | None:
    found = state(host, peer)
    return found.path if found else None


async def test_a_hole_is_punched_and_the_relay_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the provider is in the open and nobody knows, so that whoever dials it in the course of this comes in."""
    unlucky = peer_id_of(Ed25519Signer(seed("provider")).public_key)
    ask = autonat.DialBack.ask

    async def say_no(self: autonat.DialBack, *asked: Any) -> bool | None:
        return False if str(self._host.get_id()) == unlucky else await ask(self, *asked)

    monkeypatch.setattr(punch, "GRACE_S", 0.1)
    monkeypatch.setattr(autonat.DialBack, "ask", say_no)
    async with (
        a_relay() as relay,
        a_hidden_provider(relay, LISTEN) as provider,
        a_client_through(relay, provider) as client,
    ):
        early = await client.open(provider.peer, ECHO)
        assert path(client, provider) == "relayed"
        await until(lambda: path(client, provider) == path(provider, client) == "punched")
        await early.write(b"what began before goes on")
        assert await early.read(100) == b"what began before goes on"
        late = await client.open(provider.peer, ECHO)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_say, late, bytes(1_000_000))
            assert await read_to_end(late) == bytes(1_000_000)
        assert len(_connections(client, provider)) == 2
        await _say(early, b"")
        await read_to_end(early)
        await until(lambda: len(_connections(client, provider)) == 1)
        assert path(client, provider) == "punched"


def _connections(host: Host, peer: Host) -> list[Any]:
    found: list[Any] = raw(host).get_network().get_connections(raw(peer).get_id())
    return found


async def test_what_cannot_be_punched_stays_relayed(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    async def refused(port: int, address: Any) -> Any:
        tried.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(punch, "ATTEMPT_TIMEOUT_S", 0.3)
    monkeypatch.setattr(punch, "connect_from", refused)
    async with a_relay() as relay, a_hidden_provider(relay) as provider, a_client_through(relay, provider) as client:
        stream = await client.open(provider.peer, ECHO)
        await until(lambda: len(tried) >= 2 * punch.ATTEMPTS)
        assert len(tried) <= 2 * punch.ATTEMPTS * 4
        await _say(stream, b"still here")
        assert await read_to_end(stream) == b"still here"
        assert path(client, provider) == "relayed"


async def test_a_peer_in_the_middle_of_punching_names_no_private_address(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    async def remember(port: int, address: Any) -> Any:
        tried.append(str(address))
        raise ConnectionRefusedError

    monkeypatch.setattr(punch, "ATTEMPT_TIMEOUT_S", 0.1)
    async with a_relay() as relay, a_hidden_provider(relay) as provider, a_host("client", listen=()) as client:
        raw(client).remove_stream_handler(DCUTR)
        await client.connect(relay.addresses()[0])
        client.learn(PeerAddress(provider.peer, tuple(provider.addresses())))
        stream = await client.open(provider.peer, DCUTR)
        monkeypatch.setattr(punch, "connect_from", remember)
        wanted = ["/ip4/127.2.0.1/tcp/22", "/ip4/127.3.0.1/tcp/80", relay.addresses()[0]]
        named = [Multiaddr(each).to_bytes() for each in wanted]
        await send(stream, HolePunch(type=HolePunch.CONNECT, ObsAddrs=[b"\xff\xff", *named]))
        assert (await receive(stream, HolePunch)).type == HolePunch.CONNECT
        await send(stream, HolePunch(type=HolePunch.SYNC))
        await until(lambda: tried)
        assert set(tried) == {"/ip4/127.3.0.1/tcp/80"}


async def test_there_is_nothing_to_punch_between_peers_that_are_connected() -> None:
    async with a_relay() as relay, a_host("client", listen=()) as client:
        await client.connect(relay.addresses()[0])
        with pytest.raises(Unavailable):
            await _ask_to_punch(client, relay)


async def _ask_to_punch(client: Host, peer: Host) -> None:
    stream = await client.open(peer.peer, DCUTR)
    await receive(stream, HolePunch)


async def _say(stream: Stream, data: bytes) -> None:
    await stream.write(data)
    await stream.close()
