"""The muxer over real sockets: back-pressure, cancellation, the ends of things, and the stock muxer opposite."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing
from libp2p.stream_muxer.exceptions import (
    MuxedConnUnavailable,
    MuxedStreamClosed,
    MuxedStreamEOF,
    MuxedStreamError,
    MuxedStreamReset,
)
from loopback import OURS, STOCK, muxed_pair, read_exactly

from p2p.net import muxer, yamux
from p2p.net.yamux_stream import WINDOW_BYTES

MEGABYTE = 1_000_000


async def stream_pair(a: Any, b: Any) -> tuple[Any, Any]:
    here = await a.open_stream()
    return here, await b.accept_stream()


async def read_to_end(stream: Any) -> bytes:
    data = bytearray()
    try:
        while True:
            data += await stream.read(65536)
    except MuxedStreamEOF:
        return bytes(data)


async def echo(stream: Any) -> None:
    try:
        while True:
            await stream.write(await stream.read(65536))
    except MuxedStreamEOF:
        await stream.close()


@pytest.mark.parametrize("kinds", [(OURS, OURS), (OURS, STOCK), (STOCK, OURS)])
async def test_echo_and_half_close(kinds: tuple[str, str]) -> None:
    async with muxed_pair(kinds) as (a, b), trio.open_nursery() as nursery:
        here = await a.open_stream()
        await here.write(b"first")
        nursery.start_soon(echo, await b.accept_stream())
        assert await read_exactly(here, 5) == b"first"
        data = random.Random(1).randbytes(5 * MEGABYTE)  # several windows, so both sides must grant more

        async def send() -> None:
            for start in range(0, len(data), 50_000):
                await here.write(data[start : start + 50_000])
            await here.close()

        nursery.start_soon(send)
        with trio.fail_after(20):
            assert await read_to_end(here) == data


@pytest.mark.parametrize("kinds", [(OURS, STOCK), (STOCK, OURS)])
async def test_a_reset_crosses_between_the_stacks(kinds: tuple[str, str]) -> None:
    async with muxed_pair(kinds) as (a, b):
        for opener, taker in ((a, b), (b, a)):
            here = await opener.open_stream()
            await here.write(b"x")
            there = await taker.accept_stream()
            assert await read_exactly(there, 1) == b"x"
            await there.reset()
            with pytest.raises(MuxedStreamError), trio.fail_after(5):  # to the stock end it is an end like another
                await here.read(1)


@pytest.mark.parametrize("us_per_byte", [0, 10])
async def test_who_makes_work_for_us_waits_for_the_others_in_between(
    monkeypatch: pytest.MonkeyPatch, us_per_byte: int
) -> None:
    worked_s, turns = 0.0, 0
    taken: list[tuple[int, int]] = []  # bytes, and at whose turn
    monkeypatch.setattr(muxer, "time", SimpleNamespace(thread_time=lambda: worked_s))

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    def working(receive: Callable[[bytes, float], list[yamux.Event]]) -> Callable[[bytes, float], list[yamux.Event]]:
        def receive_slowly(data: bytes, now: float) -> list[yamux.Event]:
            nonlocal worked_s
            worked_s += len(data) * us_per_byte / 1_000_000
            taken.append((len(data), turns))
            return receive(data, now)

        return receive_slowly

    async with muxed_pair() as (a, b), trio.open_nursery() as nursery:
        here, there = await stream_pair(a, b)
        monkeypatch.setattr(b.core, "receive", working(b.core.receive))
        nursery.start_soon(others)
        for _ in range(4):
            taken.clear()
            await here.write(bytes(20_000))
            assert await read_exactly(there, 20_000) == bytes(20_000)
        nursery.cancel_scope.cancel()
    longest = max(size for size, _ in taken)
    assert longest <= 8192 if us_per_byte else longest > 8192
    # Trio takes those who are ready in any order, so somebody may be the last of one round and the first of the next.
    assert max(Counter(turn for _, turn in taken).values()) <= 2


async def test_streams_opened_from_both_ends_do_not_mix() -> None:
    async with muxed_pair() as (a, b), trio.open_nursery() as nursery:
        for opener, taker in ((a, b), (b, a)) * 10:
            here, there = await stream_pair(opener, taker)
            nursery.start_soon(echo, there)
            await here.write(str(here.state.id).encode())
            await here.close()
            assert await read_to_end(here) == str(here.state.id).encode()
        assert not a.core._streams


async def test_a_slow_reader_makes_the_writer_wait_and_nothing_times_out(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with muxed_pair() as (a, b), trio.open_nursery() as nursery:
        here, there = await stream_pair(a, b)
        nursery.start_soon(here.write, bytes(MEGABYTE))
        for _ in range(60):
            await trio.sleep(1)  # well beyond the keep-alive, which both ends must answer meanwhile
        assert len(there.state.received) == WINDOW_BYTES
        assert await read_exactly(there, MEGABYTE) == bytes(MEGABYTE)


async def test_a_stalled_stream_does_not_stall_the_others() -> None:
    async with muxed_pair() as (a, b), trio.open_nursery() as nursery:
        stalled, _ = await stream_pair(a, b)
        nursery.start_soon(stalled.write, bytes(MEGABYTE))
        here, there = await stream_pair(a, b)
        nursery.start_soon(here.write, bytes(2 * MEGABYTE))
        with trio.fail_after(10):
            assert len(await read_exactly(there, 2 * MEGABYTE)) == 2 * MEGABYTE
        nursery.cancel_scope.cancel()


async def test_many_writers_do_not_overshoot_the_write_ahead() -> None:
    async with muxed_pair() as (a, b), trio.open_nursery() as nursery:
        streams = [await stream_pair(a, b) for _ in range(40)]
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, a.core.bytes_queued)
                await trio.lowlevel.checkpoint()

        nursery.start_soon(watch)
        for here, _ in streams:
            nursery.start_soon(here.write, bytes(200_000))
        for _, there in streams:
            await read_exactly(there, 200_000)
        nursery.cancel_scope.cancel()
    assert 0 < most < muxer.WRITE_AHEAD_BYTES + 2 * yamux.MAX_BODY_BYTES


async def test_a_write_after_close_and_a_read_after_the_end() -> None:
    async with muxed_pair() as (a, b):
        here, there = await stream_pair(a, b)
        await here.close()
        await here.close()
        with pytest.raises(MuxedStreamClosed):
            await here.write(b"x")
        for _ in range(2):
            with pytest.raises(MuxedStreamEOF):
                await there.read(1)


async def test_a_reset_wakes_whoever_waits_at_either_end() -> None:
    async with muxed_pair() as (a, b):
        here, there = await stream_pair(a, b)
        woken = []

        async def read(stream: Any) -> None:
            with pytest.raises(MuxedStreamReset):
                await read_to_end(stream)
            woken.append(stream)

        async def write(stream: Any) -> None:
            with pytest.raises(MuxedStreamReset):
                await stream.write(bytes(MEGABYTE))
            woken.append(stream)

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, here)
                nursery.start_soon(write, here)
                nursery.start_soon(write, here)
                await trio.testing.wait_all_tasks_blocked(0.05)
                await here.reset()
        assert len(woken) == 3
        with pytest.raises(MuxedStreamReset), trio.fail_after(5):
            await read_to_end(there)


async def test_close_lets_the_last_words_out_first() -> None:
    async with muxed_pair() as (a, b):
        here, there = await stream_pair(a, b)
        waiting = await b.open_stream()
        await here.write(bytes(200_000))
        await here.close()
        await a.close()
        assert a.is_closed
        assert await read_to_end(there) == bytes(200_000)
        with pytest.raises(MuxedStreamReset):
            await waiting.read(1)
        with pytest.raises(MuxedConnUnavailable):
            await b.accept_stream()
        with pytest.raises(MuxedConnUnavailable):
            await b.open_stream()


async def test_close_does_not_wait_for_a_peer_that_does_not_read(autojump_clock: trio.testing.MockClock) -> None:
    async with muxed_pair() as (a, b), trio.open_nursery() as nursery:
        b.core.receive = lambda data, now: []  # deaf, but its socket still takes bytes
        streams = [await a.open_stream() for _ in range(3)]
        for stream in streams:
            nursery.start_soon(stream.write, bytes(200_000))
        await trio.testing.wait_all_tasks_blocked()
        before = trio.current_time()
        await a.close()
        assert trio.current_time() - before <= muxer.CLOSE_TIMEOUT_S


async def test_a_silent_peer_is_noticed(autojump_clock: trio.testing.MockClock) -> None:
    async with muxed_pair() as (a, b):
        here, _ = await stream_pair(a, b)
        b.core.receive = lambda data, now: []
        b.core.deadline = lambda: float("inf")
        before = trio.current_time()
        with pytest.raises(MuxedStreamReset, match="silent"):
            await here.read(1)
        assert 24 <= trio.current_time() - before <= 26


async def test_a_peer_that_ignores_the_window_is_cut() -> None:
    async with muxed_pair() as (a, b):
        here, there = await stream_pair(a, b)

        async def violate() -> None:
            while True:
                here.state.send_window = MEGABYTE
                await here.write(bytes(60_000))

        with pytest.raises(MuxedStreamReset), trio.fail_after(5):
            await violate()
        assert "exceed the window" in str(b.core.closed)
        assert len(there.state.received) <= WINDOW_BYTES


async def test_a_fault_of_ours_ends_one_connection_only(caplog: pytest.LogCaptureFixture) -> None:
    async with muxed_pair() as (a, b), muxed_pair() as (c, d):
        here, _ = await stream_pair(a, b)
        b.core.receive = lambda data, now: 1 // 0
        await here.write(b"x")
        with pytest.raises(MuxedStreamReset), trio.fail_after(5):
            await here.read(1)
        assert "ZeroDivisionError" in caplog.text
        ours, theirs = await stream_pair(c, d)
        await ours.write(b"fine")
        assert await theirs.read(10) == b"fine"


async def test_streams_that_nobody_takes_are_bounded() -> None:
    async with muxed_pair() as (a, b):
        for _ in range(3):
            for _ in range(muxer.ACCEPT_BACKLOG):
                await (await a.open_stream()).reset()  # frees its place at once, so that only the backlog counts
            await trio.sleep(0.05)
        assert b._backlog[1].statistics().current_buffer_used == muxer.ACCEPT_BACKLOG
        assert b.core.closed is None


async def test_a_forgotten_stream_leaves_nothing_behind() -> None:
    async with muxed_pair() as (a, b):
        for _ in range(100):
            here, there = await stream_pair(a, b)
            await here.reset()
            with pytest.raises(MuxedStreamReset):
                await there.read(1)
        del here, there
        assert (len(a._streams), len(b._streams)) == (0, 0)
        assert (len(a.core._streams), len(b.core._streams)) == (0, 0)


async def test_no_task_outlives_a_connection() -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    async with muxed_pair() as (a, b):
        await stream_pair(a, b)
        assert trio.lowlevel.current_statistics().tasks_living > before
    assert trio.lowlevel.current_statistics().tasks_living == before


async def test_streams_wait_while_the_peer_is_behind_with_taking_others() -> None:
    async with muxed_pair() as (a, b), trio.open_nursery() as nursery:
        b.core.receive = lambda data, now: []  # deaf
        streams = [await a.open_stream() for _ in range(yamux.MAX_UNACKNOWLEDGED_STREAMS)]
        opened: list[Any] = []
        refused: list[Any] = []

        async def open_one() -> None:
            try:
                opened.append(await a.open_stream())
            except MuxedConnUnavailable as error:
                refused.append(error)

        nursery.start_soon(open_one)
        nursery.start_soon(open_one)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert not opened
        await streams[0].reset()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert len(opened) == 1
        await a.close()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert len(refused) == 1


async def test_a_peer_that_takes_nothing_from_its_socket_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    async with muxed_pair() as (a, b), trio.open_nursery() as nursery:
        here, _ = await stream_pair(a, b)
        b.core.deadline = lambda: float("inf")
        started_at = trio.current_time()

        async def chatter() -> None:
            """It talks all the while, so it is alive."""
            while True:
                await trio.sleep(5)
                a.core.receive(b"", trio.current_time())

        async def stall(data: bytes) -> None:
            await trio.sleep_forever()

        a._conn._socket.send_all = stall
        nursery.start_soon(chatter)
        nursery.start_soon(here.write, b"x")
        with pytest.raises(MuxedStreamReset, match="does not read"):
            await here.read(1)
        assert trio.current_time() - started_at < muxer.WRITE_TIMEOUT_S + yamux.KEEP_ALIVE_INTERVAL_S
        nursery.cancel_scope.cancel()


async def test_a_peer_that_leaves_in_good_order_lets_streams_finish(autojump_clock: trio.testing.MockClock) -> None:
    async with muxed_pair() as (a, b):
        here, there = await stream_pair(a, b)
        b.core._send(yamux._Type.GO_AWAY, 0, 0, yamux.GoAway.NORMAL)
        await there.write(b"last words")
        await there.close()
        assert await read_to_end(here) == b"last words"
        assert a.is_closed
        with pytest.raises(MuxedConnUnavailable):
            await a.open_stream()
        await here.close()
        with pytest.raises(MuxedConnUnavailable):
            await b.accept_stream()
