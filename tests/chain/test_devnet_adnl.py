"""ADNL's server side over a stream in memory: the handshake, the packets, and every way to get them wrong.

The client's half of the cipher is pytoniq's own.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from nacl.signing import SigningKey
from pytoniq import LiteClient

from chain.devnet import adnl, tl

KEY = SigningKey(b"\x05" * 32)


class Caller:
    """A client's end, with pytoniq's ciphers and packets and without its asyncio."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.ciphers: Any = LiteClient("127.0.0.1", 0, base64.b64encode(bytes(KEY.verify_key)).decode())

    async def say_hello(self) -> None:
        await self.stream.send_all(self.ciphers.handshake())
        assert await self.receive() == b""

    async def send(self, payload: bytes) -> None:
        await self.stream.send_all(self.ciphers.encrypt(self.ciphers.serialize_packet(payload)))

    async def query(self, number: int, query: bytes) -> None:
        await self.send(tl.encode("adnl.message.query", query_id=f"{number:064x}", query=query))

    async def receive(self) -> bytes:
        length = int.from_bytes(self.ciphers.decrypt(await self._exactly(4)), "little")
        body: bytes = self.ciphers.decrypt(await self._exactly(length))
        return body[32:-32]

    async def answer(self) -> tuple[int, bytes]:
        name, fields, _ = tl.decode(await self.receive())
        assert name == "adnl.message.answer"
        return int(fields["query_id"], 16), fields["answer"]

    async def is_hung_up_on(self) -> None:
        with pytest.raises(EOFError):
            await self._exactly(1)

    async def _exactly(self, count: int) -> bytes:
        received = b""
        while len(received) < count:
            some = await self.stream.receive_some(count - len(received))
            if not some:
                raise EOFError
            received += some
        return received


async def echo(query: bytes) -> bytes:
    return query


@asynccontextmanager
async def served(
    answer: Callable[[bytes], Awaitable[bytes]] = echo, *, lockstep: bool = False
) -> AsyncIterator[Caller]:
    """A caller whose server must have ended by itself once the caller has left. In lockstep nothing is buffered."""
    ours, theirs = trio.testing.lockstep_stream_pair() if lockstep else trio.testing.memory_stream_pair()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(adnl.serve, theirs, KEY, answer)
            yield Caller(ours)
            await ours.aclose()


async def test_a_query_is_answered_under_its_id(autojump_clock: trio.testing.MockClock) -> None:
    async with served() as caller:
        await caller.say_hello()
        await caller.query(7, b"question")
        assert await caller.answer() == (7, b"question")


async def test_a_ping_is_answered(autojump_clock: trio.testing.MockClock) -> None:
    async with served() as caller:
        await caller.say_hello()
        await caller.send(tl.encode("tcp.ping", random_id=-5))
        assert tl.decode(await caller.receive())[:2] == ("tcp.pong", {"random_id": -5})


async def test_a_slow_query_does_not_hold_up_a_quick_one(autojump_clock: trio.testing.MockClock) -> None:
    async def slow_for_1(query: bytes) -> bytes:
        await trio.sleep(5 if query == b"1" else 0)
        return query

    async with served(slow_for_1) as caller:
        await caller.say_hello()
        await caller.query(1, b"1")
        await caller.query(2, b"2")
        assert [await caller.answer(), await caller.answer()] == [(2, b"2"), (1, b"1")]


async def test_one_client_has_only_so_many_queries_in_hand(autojump_clock: trio.testing.MockClock) -> None:
    running, most = 0, 0

    async def count(query: bytes) -> bytes:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(1)
        running -= 1
        return query

    async with served(count) as caller:
        await caller.say_hello()
        for number in range(100):
            await caller.query(number, b"?")
        assert {(await caller.answer())[0] for _ in range(100)} == set(range(100))
    assert most == adnl.MAX_QUERIES_AT_ONCE


@pytest.mark.parametrize("sent", [0, 1, 255])
async def test_a_silent_client_is_left_after_a_while(autojump_clock: trio.testing.MockClock, sent: int) -> None:
    async with served() as caller:
        await caller.stream.send_all(caller.ciphers.handshake()[:sent])
        start = trio.current_time()
        await caller.is_hung_up_on()
        assert trio.current_time() - start == adnl.HELLO_TIMEOUT_S


@pytest.mark.parametrize("at", [0, 32, 64, 96, 255])
async def test_a_hello_damaged_anywhere_is_refused(autojump_clock: trio.testing.MockClock, at: int) -> None:
    async with served() as caller:
        hello = bytearray(caller.ciphers.handshake())
        hello[at] ^= 1
        await caller.stream.send_all(bytes(hello))
        await caller.is_hung_up_on()


@pytest.mark.parametrize("length", [0, 63, adnl.MAX_PACKET_BYTES + 1, 2**32 - 1])
async def test_a_packet_of_an_impossible_length_is_refused_before_it_is_read(
    autojump_clock: trio.testing.MockClock, length: int
) -> None:
    async with served() as caller:
        await caller.say_hello()
        await caller.stream.send_all(caller.ciphers.encrypt(length.to_bytes(4, "little")))
        await caller.is_hung_up_on()


async def test_a_damaged_packet_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    async with served() as caller:
        await caller.say_hello()
        packet = bytearray(caller.ciphers.encrypt(caller.ciphers.serialize_packet(b"question")))
        packet[40] ^= 1
        await caller.stream.send_all(bytes(packet))
        await caller.is_hung_up_on()


@pytest.mark.parametrize(
    "payload", [b"", b"\x00" * 4, b"\xff" * 100, tl.encode("tcp.pong", random_id=1), b"\x7a\xf9\x8b\xb4" + b"\xfe"]
)
async def test_a_packet_that_means_nothing_is_refused(autojump_clock: trio.testing.MockClock, payload: bytes) -> None:
    async with served() as caller:
        await caller.say_hello()
        await caller.send(payload)
        await caller.is_hung_up_on()


async def test_a_client_that_leaves_in_mid_packet_ends_its_connection(autojump_clock: trio.testing.MockClock) -> None:
    async with served() as caller:
        await caller.say_hello()
        await caller.stream.send_all(caller.ciphers.encrypt((1000).to_bytes(4, "little")) + b"half")


async def test_a_hello_that_trickles_in_is_not_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    async with served() as caller:
        start = trio.current_time()
        with pytest.raises(trio.BrokenResourceError):  # noqa: PT012 - which byte is the last is not ours to say
            for byte in caller.ciphers.handshake():
                await caller.stream.send_all(bytes([byte]))
                await trio.sleep(0.1)
        assert trio.current_time() - start < adnl.HELLO_TIMEOUT_S + 1


async def test_a_client_that_asks_and_does_not_read_is_left_after_a_while(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with served(lockstep=True) as caller:
        await caller.say_hello()
        await caller.query(1, b"?")
        start = trio.current_time()
        with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):  # noqa: PT012 - as above
            for number in range(2, 200):
                await caller.query(number, b"?")
        assert trio.current_time() - start <= adnl.SEND_TIMEOUT_S
