"""Discovery through our Kademlia between whole hosts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from libp2p.custom_types import TProtocol
from libp2p.host.exceptions import StreamFailure
from libp2p.kad_dht.pb import kademlia_pb2 as pb
from libp2p.peer.id import ID
from libp2p.utils.varint import encode_varint_prefixed
from loopback import ECHO, LISTEN, a_host, echo, raw, seed, until
from trio.testing import MockClock

from chain.keys import Ed25519Signer
from p2p.errors import Unavailable
from p2p.host import Handler, Host, Stream
from p2p.keys import peer_id_of
from p2p.net import kad_driver
from p2p.net.dht import protocol_id
from p2p.net.libp2p_host import open_host
from p2p.protocol import provider_records


@asynccontextmanager
async def joined(*names: str, clients: Sequence[str] = ()) -> AsyncIterator[list[Host]]:
    """A bootstrap, then hosts that know only it, and that it knows of; those in `clients` keep no records."""
    async with AsyncExitStack() as stack:
        bootstrap = await stack.enter_async_context(a_host("bootstrap"))
        hosts = [bootstrap]
        for name in names:
            host = await stack.enter_async_context(a_host(name, dht_server=name not in clients))
            await host.connect(bootstrap.addresses()[0])
            if name not in clients:
                await until(partial(lambda peer: peer in table(bootstrap), host.peer))
            hosts.append(host)
        yield hosts


def dht(host: Host) -> Any:
    return host._dht  # type: ignore[attr-defined]


def table(host: Host) -> set[str]:
    return {str(ID(entry.contact.peer)) for entry in dht(host)._core.table}


async def found(host: Host, key: str, limit: int = 20) -> set[str]:
    return {provider.peer for provider in await host.find_providers(key, limit)}


async def test_provide_and_find_over_a_bootstrap() -> None:
    async with joined("provider", "client", clients=["provider", "client"]) as (_, provider, client):
        provider.serve(ECHO, echo)
        await provider.provide("model:Qwen/Qwen3-8B")
        (address,) = await client.find_providers("model:Qwen/Qwen3-8B", 5)
        assert address == (provider.peer, tuple(provider.addresses()))
        assert await client.find_providers("model:another", 5) == []
        stream = await client.open(provider.peer, ECHO)  # at the address that the DHT gave
        await stream.write(b"found you")
        assert await stream.read(100) == b"found you"


async def test_a_look_up_asks_the_network_every_time_and_never_names_us_or_anyone_twice() -> None:
    async with joined("one", "two", "three", clients=["three"]) as (bootstrap, one, two, three):
        await one.provide("key")
        assert await found(three, "key") == {one.peer}
        await two.provide("key")
        assert await found(three, "key") == {one.peer, two.peer}
        assert await found(one, "key") == {two.peer}
        assert await found(bootstrap, "key") == {one.peer, two.peer}
        assert len(await three.find_providers("key", 1)) == 1
        await one.provide("key")
        assert len(await three.find_providers("key", 20)) == 2


async def test_a_record_that_is_withdrawn_is_found_no_more() -> None:
    async with joined("one", "two", "client", clients=["two", "client"]) as (_, one, two, client):
        for provider in (one, two):
            await provider.provide("key")
        assert await found(client, "key") == {one.peer, two.peer}
        await one.withdraw("key")
        assert await found(client, "key") == {two.peer}
        await two.withdraw("key")
        assert await found(client, "key") == set()
        await two.withdraw("never announced")


async def test_a_record_that_is_not_renewed_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_records, "RECORD_LIFE_S", 1.0)
    async with joined("client", clients=["client"]) as (bootstrap, client):
        async with a_host("dead") as dead:
            await dead.connect(bootstrap.addresses()[0])
            await dead.provide("key")
            assert await found(client, "key") == {dead.peer}
        await until(lambda: dead.peer not in table(bootstrap))
        with trio.fail_after(5):
            while await found(client, "key"):  # noqa: ASYNC110
                await trio.sleep(0.05)


@pytest.mark.slow
async def test_more_providers_than_a_bucket_holds_are_all_found() -> None:
    names = [f"provider {number}" for number in range(24)]
    async with joined(*names, "client", clients=[*names, "client"]) as (_, *providers, client):
        for provider in providers:
            await provider.provide("key")
        assert await found(client, "key", 100) == {provider.peer for provider in providers}


async def test_a_crowded_key_is_parted_into_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"provider {number}" for number in range(3)]
    async with joined(*names, "client", clients=[*names, "client"]) as (bootstrap, *providers, client):
        monkeypatch.setattr("p2p.protocol.kad_tasks.PROVIDERS_PER_ANSWER", 2)
        dht(bootstrap)._core.records._limit_per_key = 2
        for provider in providers:
            await provider.provide("key")
        assert len(dht(bootstrap)._core.records) == 4, "two of the name, and two who found it crowded of their shards"
        assert await found(client, "key") == {provider.peer for provider in providers}
        for provider in providers:
            await provider.withdraw("key")
        assert len(dht(bootstrap)._core.records) == 0


async def test_clients_are_not_taken_for_servers() -> None:
    async with joined("server", "client", clients=["client"]) as (bootstrap, server, client):
        await client.provide("key")
        await until(lambda: table(bootstrap) == {server.peer})
        await server.connect(client.addresses()[0])
        assert client.peer not in table(server)
        assert protocol_id("test") not in raw(client).get_mux().get_protocols()
        await until(lambda: not dht(bootstrap)._driver._noticing)
        assert table(bootstrap) == {server.peer}


async def test_a_server_that_leaves_is_handed_out_no_more() -> None:
    async with joined("one") as (bootstrap, one):
        async with a_host("gone") as gone:
            await gone.connect(bootstrap.addresses()[0])
            await until(lambda: table(bootstrap) == {one.peer, gone.peer})
        await until(lambda: table(bootstrap) == {one.peer})


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
    async with a_host("nowhere", listen=()) as dialler:
        with pytest.raises(Unavailable, match="no address"):
            await dialler.provide("key")


async def test_networks_never_merge() -> None:
    async with a_host("a") as a, a_host("b", network="other") as b:
        await a.connect(b.addresses()[0])
        await b.provide("key")
        assert table(a) == set()
        assert await a.find_providers("key", 5) == []
        assert TProtocol("/ipfs/kad/1.0.0") not in raw(a).get_mux().get_protocols()


async def test_a_host_starts_again_from_the_peers_that_it_knew(tmp_path: Path) -> None:
    peers_file = tmp_path / "peers.json"
    async with joined("one", "two") as (bootstrap, one, two):
        async with open_host(seed("a"), LISTEN, dht_server=True, network="test", peers_file=peers_file) as a:
            assert await a.rejoin() == 0
            await a.connect(bootstrap.addresses()[0])
            await until(lambda: len(table(a)) == 3)
        assert {peer for peer, _ in json.loads(peers_file.read_text())} == {bootstrap.peer, one.peer, two.peer}
        await one.provide("key")
        async with open_host(seed("a"), LISTEN, dht_server=True, network="test", peers_file=peers_file) as a:
            assert await a.rejoin() == 3
            assert await found(a, "key") == {one.peer}


@pytest.mark.parametrize("content", [b"", b"\xff", b'[{"peer":1}]', b'[["junk",["/ip4/1.2.3.4/tcp/1","junk"]]]', b"[]"])
async def test_a_broken_file_of_peers_is_no_obstacle(tmp_path: Path, content: bytes) -> None:
    peers_file = tmp_path / "peers.json"
    peers_file.write_bytes(content)
    async with open_host(seed("a"), LISTEN, dht_server=True, network="test", peers_file=peers_file) as a:
        assert await a.rejoin() == 0
    assert peers_file.read_bytes() == content, "nobody was known, so nothing is better than what was there"


async def test_idle_streams_do_not_disable_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kad_driver, "SERVED_STREAM_TIMEOUT_S", 0.5)
    async with joined("one", "two", "evil") as (bootstrap, one, two, evil):
        for _ in range(kad_driver.MAX_SERVED_STREAMS_PER_PEER + 20):
            with suppress(StreamFailure):
                await raw(evil).new_stream(raw(bootstrap).get_id(), [protocol_id("test")])
        await one.provide("key")
        assert await found(two, "key") == {one.peer}
        served = dht(bootstrap)._driver._served
        assert served[evil.peer] <= kad_driver.MAX_SERVED_STREAMS_PER_PEER
        await until(lambda: not served)


def message(**fields: Any) -> bytes:
    return bytes(encode_varint_prefixed(pb.Message(**fields).SerializeToString()))


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        (message(type=pb.Message.PUT_VALUE, key=b"key", record=pb.Record(key=b"key", value=b"value")), b""),
        (message(type=pb.Message.FIND_NODE), b""),
        (b"\x03\xff\xff\xff", b""),
        (b"\xff\xff\xff\xff", b""),
        (message(type=pb.Message.FIND_NODE, key=bytes(70_000)), b""),
        (message(type=pb.Message.PING), message(type=pb.Message.PING)),
        (message(type=pb.Message.GET_VALUE, key=b"key"), message(type=pb.Message.GET_VALUE, key=b"key")),
    ],
)
async def test_a_server_answers_what_it_serves_and_resets_the_rest(sent: bytes, answered: bytes) -> None:
    async with a_host("server") as server, a_host("client", dht_server=False) as client:
        await client.connect(server.addresses()[0])
        stream = await client.open(server.peer, protocol_id("test"))
        await stream.write(sent)
        if answered:
            assert await stream.read(1000) == answered
            await stream.write(sent)
            assert await stream.read(1000) == answered, "one stream may ask often"
        else:
            with pytest.raises(Unavailable), trio.fail_after(5):
                await stream.read(1000)
        await server.provide("key")
        assert await found(client, "key") == {server.peer}


async def say_nothing(stream: Stream) -> None:
    await trio.sleep_forever()


async def rave(stream: Stream) -> None:
    await stream.write(b"\x05rave!")


@pytest.mark.parametrize("handler", [say_nothing, rave])
async def test_a_server_that_gives_no_answer_is_done_without(autojump_clock: MockClock, handler: Handler) -> None:
    async with joined("good", "client", "bad", clients=["client"]) as (bootstrap, good, client, bad):
        await until(lambda: bad.peer in table(bootstrap))
        bad.serve(protocol_id("test"), handler)
        await good.provide("key")
        assert await found(client, "key") == {good.peer}
        assert table(client) == {bootstrap.peer, good.peer}
