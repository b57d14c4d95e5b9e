"""Typed messages over a stream that is cut anywhere, ends anywhere, or says nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from memory_host import MemoryHost, open_memory_network
from trio.testing import MockClock

from p2p.errors import RemoteError, Unavailable
from p2p.host import Stream
from p2p.protocol.advert import Pull
from p2p.protocol.negotiate import Accept, Accepted, Refusal
from p2p.protocol.wire import frame
from p2p.stream import MessageStream, open_messages

PROTOCOL = "/bombyx/test/1"
Inbound = Accepted | Refusal


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[MessageStream[Inbound], Stream]]:
    """Our messages, and the other side's bytes."""
    async with open_memory_network() as network:
        us, them = await network.join("us"), await network.join("them")
        theirs: list[Stream] = []

        async def keep(stream: Stream) -> None:
            theirs.append(stream)
            await trio.sleep_forever()

        them.serve(PROTOCOL, keep)
        stream = await us.open("them", PROTOCOL)
        await trio.testing.wait_all_tasks_blocked()
        yield MessageStream(stream, Inbound), theirs[0]


async def test_messages_survive_any_cutting() -> None:
    said = [Refusal(reason="busy", retry_after_s=5), Accepted(quote_id=bytes(32), hold_until=7), Refusal(reason="no")]
    data = b"".join(frame(message) for message in said)
    async with opened() as (ours, theirs):
        for byte in data:
            await theirs.write(bytes([byte]))
        await theirs.write(data)
        await theirs.close()
        heard = []
        while (message := await ours.receive()) is not None:
            heard.append(message)
        assert heard == said * 2
        assert ours.peer == "them"


@pytest.mark.parametrize(
    "garbage",
    [
        frame(Refusal(reason="busy"))[:-1],
        b"\x80",
        b"\x00",
        b"\x05hello",
        b"\xff\xff\xff",
        frame(Accept(quote_id=bytes(32))),
        frame(Refusal(reason="x" * 257)),
    ],
)
async def test_what_is_not_a_message_is_the_peers_fault(garbage: bytes) -> None:
    async with opened() as (ours, theirs):
        await theirs.write(garbage)
        await theirs.close()
        with pytest.raises(RemoteError, match="malformed"):
            await ours.receive()


async def test_an_answer_is_owed_within_its_time(autojump_clock: MockClock) -> None:
    async with opened() as (ours, theirs):
        await theirs.write(b"\x20")  # a frame that never ends
        with pytest.raises(Unavailable, match="within 3 s"):
            await ours.answer(3)
        assert trio.current_time() == 3
    async with opened() as (ours, theirs):
        await theirs.close()
        with pytest.raises(Unavailable, match="without an answer"):
            await ours.answer()
    async with opened() as (ours, theirs):
        await theirs.reset()
        with pytest.raises(Unavailable):
            await ours.answer()


async def test_finishing_lets_the_peer_hear_all_and_waits_only_so_long(autojump_clock: MockClock) -> None:
    async with opened() as (ours, theirs):
        await ours.send(Pull(), Pull())
        await theirs.write(b"anything")
        await theirs.close()
        await ours.finish(5)
        assert trio.current_time() == 0
        assert await theirs.read(1000) == frame(Pull()) * 2
    async with opened() as (ours, theirs):
        await ours.finish(5)
        assert trio.current_time() == 5
        await theirs.reset()
        await ours.finish(5)
        assert trio.current_time() == 5


async def left_behind(host: MemoryHost, error: Exception | None) -> tuple[bool, bytes]:
    """Open, say something, leave; whether the stream was reset, and what the peer read."""
    heard = bytearray()
    reset = False

    async def read(stream: Stream) -> None:
        nonlocal reset
        await trio.sleep(1)
        try:
            while data := await stream.read(100):
                heard.extend(data)
        except Unavailable:
            reset = True

    host._network.hosts["them"].serve(PROTOCOL, read)
    async with open_messages(host, "them", PROTOCOL, Inbound) as messages:
        await messages.send(Pull())
        if error is not None:
            raise error
    await trio.sleep(2)
    return reset, bytes(heard)


async def test_leaving_closes_and_failing_resets(autojump_clock: MockClock) -> None:
    async with open_memory_network() as network:
        us, _ = await network.join("us"), await network.join("them")
        assert await left_behind(us, None) == (False, frame(Pull()))
        with pytest.raises(ZeroDivisionError):
            await left_behind(us, ZeroDivisionError())
        assert all(stream.over for stream in us.streams)
        with trio.move_on_after(1):
            async with open_messages(us, "them", PROTOCOL, Inbound):
                await trio.sleep_forever()
        assert all(stream.over for stream in us.streams)
        with pytest.raises(Unavailable, match="nobody"):
            async with open_messages(us, "nobody", PROTOCOL, Inbound):
                pytest.fail("nobody is there")
