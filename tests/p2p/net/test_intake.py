"""Very many streams, and whoever else wants one."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
from loopback import ECHO, a_host, echo, raw, read_to_end, until
from test_guards import assert_serves
from trio.testing import wait_all_tasks_blocked

from p2p.errors import Unavailable
from p2p.host import Host, PeerAddress, Stream
from p2p.net import intake, yamux
from p2p.net.intake import Intake
from p2p.net.limits import InboundLimits


async def linger(stream: Stream) -> None:
    await read_to_end(stream)


async def crowd(peer: Host, host: str, streams: int) -> None:
    """Open so many and keep them."""
    with suppress(Unavailable):
        for _ in range(streams):
            await peer.open(host, "/linger/1")


async def test_a_host_at_rest_waits() -> None:
    async with a_host("a") as a:
        await assert_serves(a)
        with trio.fail_after(5):
            await wait_all_tasks_blocked()


async def test_a_flood_of_streams_waits_for_its_turn_and_others_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both come from one address here, so turns go round the peers for once."""
    monkeypatch.setattr(intake, "address_of", lambda connection: str(connection.peer_id))
    few = InboundLimits(streams_per_s=4, burst_s=5)
    async with a_host("a", inbound=few) as a, a_host("flood", listen=()) as flood, a_host("b", listen=()) as b:
        a.serve("/linger/1", linger)
        a.serve(ECHO, echo)
        for peer in (flood, b):
            peer.learn(PeerAddress(a.peer, tuple(a.addresses())))
            await peer.open(a.peer, ECHO)
        async with trio.open_nursery() as nursery:
            for _ in range(60):
                nursery.start_soon(crowd, flood, a.peer, 1)
            await until(lambda: taken(a)._turns.waiting.total > 20)
            with trio.fail_after(3):
                stream = await b.open(a.peer, ECHO)
                await stream.write(b"me too")
                assert await stream.read(100) == b"me too"
            assert taken(a)._turns.waiting.total > 10
            nursery.cancel_scope.cancel()


async def test_a_peer_has_so_many_streams_and_leaves_none_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yamux, "MAX_INBOUND_STREAMS", 30)
    async with a_host("a") as a:
        a.serve("/linger/1", linger)
        async with a_host("b", listen=()) as b:
            await b.connect(a.addresses()[0])
            await crowd(b, a.peer, 40)
            assert 20 < taken(a)._tally.total <= 30
            await assert_serves(a)
        await until(lambda: taken(a)._tally.total == 0)
        assert not taken(a)._waiting


def taken(host: Host) -> Intake:
    """What stands before the handlers of a host."""
    before: Intake = raw(host).get_network().common_stream_handler.__self__
    return before
