"""Many connections whose streams nobody reads."""

from __future__ import annotations

from typing import Any

import trio
from loopback import muxed_pair, read_exactly, until

from p2p.net.unread import Account, Unread

LIMIT, FREE = 300_000, 50_000


async def fill(conn: Any, streams: int) -> None:
    """As much as the windows of so many streams take."""
    async with trio.open_nursery() as nursery:
        for _ in range(streams):
            nursery.start_soon((await conn.open_stream()).write, bytes(250_000))


async def test_who_is_not_read_waits_once_there_is_too_much_and_others_do_not() -> None:
    unread = Unread(LIMIT, FREE)
    async with muxed_pair() as one, muxed_pair() as two, muxed_pair() as three, trio.open_nursery() as nursery:
        for _, ours in (one, two, three):
            ours._unread = Account(unread)
        for theirs, _ in (one, two):
            nursery.start_soon(fill, theirs, 4)
        await until(lambda: unread.total_bytes > LIMIT)
        sender, receiver = await three[0].open_stream(), await three[1].accept_stream()
        for _ in range(20):
            nursery.start_soon(sender.write, bytes(100_000))
            assert len(await read_exactly(receiver, 100_000)) == 100_000
        # When it was too much, each of the two had a receive, a message and a frame under way, of 64 KiB each.
        assert LIMIT < unread.total_bytes < LIMIT + 2 * 3 * 65_536
        async with trio.open_nursery() as readers:
            for _, ours in (one, two):
                for _ in range(4):
                    readers.start_soon(read_exactly, await ours.accept_stream(), 250_000)
        assert unread.total_bytes == 0


async def test_what_a_dead_connection_held_counts_no_more() -> None:
    unread = Unread(LIMIT, FREE)
    async with muxed_pair() as (theirs, ours):
        ours._unread = Account(unread)
        await fill(theirs, 1)
        await until(lambda: unread.total_bytes == 250_000)
        stream = await ours.accept_stream()
        await theirs.close()
        await until(lambda: unread.total_bytes == 0)
        assert len(await read_exactly(stream, 250_000)) == 250_000
        assert unread.total_bytes == 0
