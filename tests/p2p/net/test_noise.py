"""Our Noise session over a real socket, against itself and against libp2p's own."""

from __future__ import annotations

import pytest
import trio
from libp2p.io.exceptions import ConnectionClosedError, IOException
from loopback import OURS, STOCK, raw_pair, read_exactly, secure


@pytest.mark.parametrize("kinds", [(OURS, OURS), (OURS, STOCK), (STOCK, OURS)])
async def test_both_ways_at_any_size(kinds: tuple[str, str]) -> None:
    a, b = await secure(*raw_pair(), kinds)
    for size in (1, 100, 65_519, 65_520, 300_000):
        data = bytes(range(256)) * (size // 256 + 1)
        for source, target in ((a, b), (b, a)):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(source.write, data[:size])
                assert await read_exactly(target, size) == data[:size]
    await a.close()
    with pytest.raises(IOException):  # the stock session raises another of this family
        await read_exactly(b, 1)
    await b.close()


async def test_each_end_knows_the_other() -> None:
    a, b = await secure(*raw_pair())
    assert a.get_remote_peer() == b.get_local_peer()
    assert b.get_remote_peer() == a.get_local_peer()
    await a.close()
    await b.close()


async def test_a_read_gives_what_is_there() -> None:
    a, b = await secure(*raw_pair())
    await a.write(b"one")
    await a.write(b"two")
    assert await b.read(2) == b"on"
    assert await b.read(0) == b""
    rest = await b.read()
    assert b"etwo".startswith(rest)
    await a.close()
    await b.close()


async def test_a_bad_tag_ends_the_connection() -> None:
    a, b = raw_pair()
    ours, _ = await secure(a, b)
    await b.write((20).to_bytes(2, "big") + bytes(20))
    with pytest.raises(ConnectionClosedError, match="bad tag"):
        await ours.read()
    with pytest.raises(ConnectionClosedError):
        await ours.read()
    assert await b.read(1) == b""
    await b.close()


async def test_a_cancelled_read_loses_nothing() -> None:
    a, b = await secure(*raw_pair())
    for number in range(100):
        with trio.move_on_after(0):
            await b.read()
        data = f"message {number}".encode()
        await a.write(data)
        assert await read_exactly(b, len(data)) == data
    await a.close()
    await b.close()


async def test_a_write_that_was_cut_off_ends_the_writing() -> None:
    a, b = await secure(*raw_pair())
    with trio.move_on_after(0.05) as scope:
        await a.write(bytes(50_000_000))
    assert scope.cancelled_caught
    with pytest.raises(ConnectionClosedError, match="cut off"):
        await a.write(b"more")
    await a.close()
    await b.close()
