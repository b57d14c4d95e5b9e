"""Discovery through Kademlia between whole hosts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest
import trio
from libp2p.custom_types import TProtocol
from libp2p.host.exceptions import StreamFailure
from loopback import ECHO, a_host, echo, raw, seed, until

from chain.keys import Ed25519Signer
from p2p.errors import Unavailable
from p2p.host import Host
from p2p.keys import peer_id_of
from p2p.net import dht
from p2p.net.dht import protocol_id


@asynccontextmanager
async def joined(*names: str, clients: Sequence[str] = ()) -> AsyncIterator[list[Host]]:
    """A bootstrap, then hosts that know only it; those in `clients` keep no records."""
    async with AsyncExitStack() as stack:
        bootstrap = await stack.enter_async_context(a_host("bootstrap"))
        hosts = [bootstrap]
        for name in names:
            host = await stack.enter_async_context(a_host(name, dht_server=name not in clients))
            await host.connect(bootstrap.addresses()[0])
            hosts.append(host)
        yield hosts


def table(host: Host) -> set[str]:
    return {str(peer) for peer in host._dht._dht.routing_table.get_peer_ids()}  # type: ignore[attr-defined]


async def found(host: Host, key: str, expected: set[str], limit: int = 20) -> None:
    """The library acknowledges no record, so a look-up may have to be repeated."""
    with trio.fail_after(10):
        while {provider.peer for provider in await host.find_providers(key, limit)} != expected:  # noqa: ASYNC110
            await trio.sleep(0.05)


async def test_provide_and_find_over_a_bootstrap() -> None:
    async with joined("provider", "client", clients=["provider", "client"]) as (_, provider, client):
        provider.serve(ECHO, echo)
        await provider.provide("model:Qwen/Qwen3-8B")
        await found(client, "model:Qwen/Qwen3-8B", {provider.peer})
        (address,) = await client.find_providers("model:Qwen/Qwen3-8B", 5)
        assert address.addresses == tuple(provider.addresses())
        assert await client.find_providers("model:another", 5) == []
        stream = await client.open(provider.peer, ECHO)  # at the address that the DHT gave
        await stream.write(b"found you")
        assert await stream.read(100) == b"found you"


async def test_a_look_up_asks_the_network_every_time_and_never_names_us_or_anyone_twice() -> None:
    async with joined("one", "two", "three", clients=["three"]) as (bootstrap, one, two, three):
        await one.provide("key")
        await found(three, "key", {one.peer})
        await two.provide("key")
        await found(three, "key", {one.peer, two.peer})
        await found(one, "key", {two.peer})
        await found(bootstrap, "key", {one.peer, two.peer})
        assert len(await three.find_providers("key", 1)) == 1
        await one.provide("key")
        assert len(await three.find_providers("key", 20)) == 2


async def test_clients_are_not_taken_for_servers() -> None:
    async with joined("server", "client", clients=["client"]) as (bootstrap, server, client):
        await client.provide("key")  # asks the servers, and the stock server would keep whoever asks
        await until(lambda: table(bootstrap) == {server.peer})
        await server.connect(client.addresses()[0])
        assert client.peer not in table(server)
        assert protocol_id("test") not in raw(client).get_mux().get_protocols()


async def test_a_peer_is_found_by_its_id_alone() -> None:
    async with joined("one", "two") as (_, one, two):
        two.serve(ECHO, echo)
        stream = await one.open(two.peer, ECHO)
        assert stream.peer == two.peer


async def test_nobody_to_tell_is_unavailable_to_a_client() -> None:
    async with a_host("alone", dht_server=False) as client, a_host("server alone") as server:
        with pytest.raises(Unavailable, match="no DHT server"):
            await client.provide("key")
        assert await client.find_providers("key", 5) == []
        await server.provide("key")
        assert await server.find_providers("key", 5) == []
        with pytest.raises(Unavailable, match="no address"):
            await server.open(peer_id_of(Ed25519Signer(seed("nobody")).public_key), ECHO)


async def test_networks_never_merge() -> None:
    async with a_host("a") as a, a_host("b", network="other") as b:
        await a.connect(b.addresses()[0])
        await b.provide("key")
        assert table(a) == set()
        assert await a.find_providers("key", 5) == []
        assert TProtocol("/ipfs/kad/1.0.0") not in raw(a).get_mux().get_protocols()


async def test_idle_streams_do_not_disable_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dht, "SERVED_STREAM_TIMEOUT_S", 0.5)
    async with joined("one", "two", "evil") as (bootstrap, one, two, evil):
        for _ in range(30):  # stock: 12 of these, and the server is gone for good
            with suppress(StreamFailure):
                await raw(evil).new_stream(raw(bootstrap).get_id(), [protocol_id("test")])
        await one.provide("key")
        await found(two, "key", {one.peer})
        served = bootstrap._dht._dht._served  # type: ignore[attr-defined]
        assert served[raw(evil).get_id()] <= dht.MAX_SERVED_STREAMS_PER_PEER
        await until(lambda: not served)
