"""Private networks: the cipher against published figures and another library, and hosts with a key and without."""

from __future__ import annotations

import random
import secrets
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.network.connection.raw_connection import RawConnection
from loopback import ECHO, a_host, echo, memory_pair, raw_pair, read_exactly, read_to_end, until
from nacl.bindings import crypto_secretbox

from p2p.errors import Unavailable
from p2p.host import Host, PeerAddress
from p2p.keys import peer_id_of
from p2p.net.private_network import NONCE_BYTES, ProtectedConnection, xsalsa20
from p2p.protocol import addresses
from p2p.protocol.addresses import Reach, parse_full
from p2p.protocol.relaying import Limits

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
HELLO = b"\x13/multistream/1.0.0\n"
LIMITS = Limits(4, 4, 3600, 8, 4, 60, 1 << 24)
bytes_of = st.binary


# The cipher


def test_the_published_figures() -> None:
    """Of the paper "Cryptography in NaCl", sections 8 and 10."""
    key = bytes.fromhex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389")
    nonce = bytes.fromhex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37")
    expected = "eea6a7251c1e72916d11c2cb214d3c252539121d8e234e652d651fa4c8cff880"
    assert xsalsa20(key, nonce).encrypt(bytes(32)).hex() == expected


@settings(max_examples=30)
@given(bytes_of(min_size=32, max_size=32), bytes_of(min_size=24, max_size=24), bytes_of(max_size=300))
def test_libsodium_agrees(key: bytes, nonce: bytes, text: bytes) -> None:
    """Whose `secretbox` uses the first 32 bytes of the stream for its tag, and shows that before the text."""
    assert xsalsa20(key, nonce).encrypt(bytes(32) + text)[32:] == crypto_secretbox(text, nonce, key)[16:]


@settings(max_examples=30)
@given(st.lists(bytes_of(max_size=200), max_size=8))
def test_pieces_make_one_stream(pieces: list[bytes]) -> None:
    cipher = xsalsa20(KEY, bytes(24))
    assert b"".join(map(cipher.encrypt, pieces)) == xsalsa20(KEY, bytes(24)).encrypt(b"".join(pieces))


# One connection


def protected(raws: tuple[RawConnection, RawConnection]) -> tuple[ProtectedConnection, ProtectedConnection]:
    one, two = raws
    return ProtectedConnection(one, KEY), ProtectedConnection(two, KEY)


async def test_what_one_says_the_other_reads_in_whatever_pieces(autojump_clock: trio.testing.MockClock) -> None:
    dice = random.Random(3)
    data = HELLO + dice.randbytes(200_000)
    one, two = protected(memory_pair(dice))
    async with trio.open_nursery() as nursery:
        for ours, theirs in ((one, two), (two, one)):
            nursery.start_soon(_say, ours, data)
            nursery.start_soon(_hear, theirs, data)


async def _say(connection: ProtectedConnection, data: bytes) -> None:
    await connection.begin()
    for start in range(0, len(data), 7919):
        await connection.write(data[start : start + 7919])


async def _hear(connection: ProtectedConnection, data: bytes) -> None:
    assert await read_exactly(connection, len(data)) == data


async def test_a_cancelled_read_loses_nothing_not_even_of_the_nonce() -> None:
    below, other = raw_pair()
    ours = ProtectedConnection(other, KEY)
    nonce = secrets.token_bytes(NONCE_BYTES)
    sealed = nonce + xsalsa20(KEY, nonce).encrypt(HELLO)
    heard = b""
    for byte in sealed:
        with trio.move_on_after(0):
            await ours.read()
        await below.write(bytes([byte]))
        with trio.move_on_after(0.001):
            heard += await ours.read()
    while len(heard) < len(HELLO):
        heard += await ours.read()
    assert heard == HELLO
    await below.close()
    await ours.close()


@pytest.mark.parametrize(
    "said",
    [HELLO, HELLO + b"\x07/noise\n", bytes(NONCE_BYTES) + HELLO, bytes(NONCE_BYTES) + bytes(1)],
    ids=["no key", "no key, in a hurry", "a nonce and no cipher", "junk"],
)
async def test_a_stranger_is_recognised_by_the_first_words(said: bytes) -> None:
    below, other = raw_pair()
    ours = ProtectedConnection(other, KEY)
    await below.write(said)
    with pytest.raises(ConnectionClosedError, match="not a member"):
        await ours.read()
    assert ours.has_other_key
    await below.close()
    await ours.close()


async def test_one_that_goes_before_its_nonce_is_whole() -> None:
    below, other = raw_pair()
    ours = ProtectedConnection(other, KEY)
    await below.write(bytes(NONCE_BYTES - 1))
    await below.close()
    with pytest.raises(ConnectionClosedError, match="before its nonce"):
        await ours.read()
    assert not ours.has_other_key
    await ours.close()


# Whole hosts


async def hears_echo(host: Host, peer: Host) -> None:
    stream = await host.open(peer.peer, ECHO)
    data = random.Random(1).randbytes(300_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_say_all, stream, data)
        assert await read_to_end(stream) == data


async def _say_all(stream: Any, data: bytes) -> None:
    await stream.write(data)
    await stream.close()


async def test_members_deal_with_each_other() -> None:
    async with a_host("one", swarm_key=KEY) as one, a_host("two", swarm_key=KEY) as two:
        two.serve(ECHO, echo)
        await one.connect(two.addresses()[0])
        await hears_echo(one, two)


@pytest.mark.parametrize(
    ("mine", "theirs"), [(KEY, None), (None, KEY), (KEY, OTHER_KEY)], ids=["I have a key", "they have", "another key"]
)
async def test_nobody_talks_across(mine: bytes | None, theirs: bytes | None) -> None:
    """It fails at once, not by a timeout. Which side notices first, and so what the other hears, is chance."""
    async with a_host("one", swarm_key=mine) as one, a_host("two", swarm_key=theirs) as two:
        with trio.fail_after(5), pytest.raises(Unavailable):
            await one.connect(two.addresses()[0])
        assert not one.peers()
        assert not two.peers()
        async with a_host("three", swarm_key=theirs) as three:
            assert await three.connect(two.addresses()[0]) == two.peer


async def test_it_is_said_who_is_no_member() -> None:
    async def stranger(stream: trio.SocketStream) -> None:
        await stream.send_all(HELLO)
        async for _ in stream:
            pass

    async with a_host("one", swarm_key=KEY) as one, trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, stranger, 0, host="127.0.0.1"))
        peer = peer_id_of(bytes(32))
        with pytest.raises(Unavailable, match="it is not a member of this private network"):
            await one.connect(f"/ip4/127.0.0.1/tcp/{listener.socket.getsockname()[1]}/p2p/{peer}")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("said", [HELLO + b"\x07/noise\n", bytes(NONCE_BYTES) + HELLO], ids=["no key", "no cipher"])
async def test_a_stranger_hears_nothing_that_makes_sense(said: bytes) -> None:
    """A nonce, what our side says first, in cipher, and the end."""
    async with a_host("one", swarm_key=KEY) as one:
        address = parse_full(one.addresses()[0], one.peer)
        async with await trio.open_tcp_stream(address.host, address.port) as stranger:
            heard = bytearray()
            while len(heard) < NONCE_BYTES + len(HELLO):
                heard += await stranger.receive_some()
            assert xsalsa20(KEY, bytes(heard[:NONCE_BYTES])).decrypt(bytes(heard[NONCE_BYTES:])) == HELLO
            assert b"multistream" not in heard
            await stranger.send_all(said)
            with suppress(trio.BrokenResourceError):
                assert await stranger.receive_some() == b""


# Among routers, on a loopback that stands for the world: see test_reachable.py


@pytest.fixture
def a_world_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "reach_of_ip", lambda ip: Reach.SITE if ip.startswith("127.2.") else Reach.WORLD)


@pytest.mark.usefixtures("a_world_on_loopback")
async def test_members_reach_each_other_through_a_relay() -> None:
    async with (
        a_host("relay", relay=LIMITS, swarm_key=KEY) as relay,
        a_host("hidden", listen=("/ip4/127.2.0.1/tcp/0",), swarm_key=KEY) as hidden,
        a_host("client", listen=(), swarm_key=KEY) as client,
    ):
        hidden.serve(ECHO, echo)
        await hidden.connect(relay.addresses()[0])
        await until(hidden.addresses)
        await client.connect(relay.addresses()[0])
        client.learn(PeerAddress(hidden.peer, tuple(hidden.addresses())))
        await hears_echo(client, hidden)
        assert {one.peer: one.path for one in client.peers()}[hidden.peer] == "relayed"


@pytest.mark.usefixtures("a_world_on_loopback")
async def test_members_dial_each_other_back() -> None:
    async with a_host("relay", relay=LIMITS, swarm_key=KEY) as relay, a_host("open", swarm_key=KEY) as host:
        assert host.addresses() == ()
        await host.connect(relay.addresses()[0])
        await until(lambda: host.addresses() == host.listening())
