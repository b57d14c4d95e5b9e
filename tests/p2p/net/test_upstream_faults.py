"""What libp2p 0.8.1 gets wrong, as it is installed: each check fails once a fault is gone, and says what to remove.

The cures stand in `p2p/net/`. What is tried here is the stock part, or the untouched original where ours has put a
cure in its place for the whole process.
"""

from __future__ import annotations

import gc
import importlib.util
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any

import libp2p.network.connection.swarm_connection as swarm_connection
import libp2p.network.swarm as swarm
import pytest
import trio
import trio.testing
from cancelling import instrument
from libp2p import new_host
from libp2p.custom_types import TProtocol
from libp2p.io.exceptions import IncompleteReadError
from libp2p.io.trio import TrioTCPStream
from libp2p.network.config import ConnectionConfig
from libp2p.network.exceptions import SwarmException
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.network.swarm import SwarmDialAllFailedError
from libp2p.peer.peerinfo import PeerInfo
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.validators import signature_validator
from libp2p.rcmgr.manager import ResourceLimits, ResourceManager
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID
from libp2p.security.pnet.psk_conn import PskConn
from libp2p.stream_muxer.exceptions import MuxedStreamError
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.stream_muxer.yamux.yamux import Yamux as StockYamux
from libp2p.tools.anyio_service import TooManyChildrenException, background_trio_service
from libp2p.tools.anyio_service.trio_manager import TrioManager
from libp2p.utils.varint import encode_varint_prefixed, read_delim
from library_tasks import MANY, Tasks, fail
from loopback import LISTEN, OURS, STOCK, muxed_pair, raw_pair, read_exactly, secure, stock_host, until
from multiaddr import Multiaddr

from p2p.net import guards
from p2p.net.muxer import PROTOCOL_ID, MuxedConn
from p2p.net.yamux_stream import WINDOW_BYTES

ANY = Multiaddr(LISTEN[0])
OURS_FOR_THE_PAIR = "p2p.net.noise, p2p.net.muxer and the Yamux cores, if the stock pair is fast enough too"
TRIED = TProtocol("/tried/1")

# On a slow machine stock dials that are given up leave their socket to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Here, so that no other file is blamed for it."""
    yield
    gc.collect()


def still(fault: object, cure: str) -> None:
    """The fault is there, so `cure` is needed."""
    assert fault, f"fixed upstream: remove {cure}"


# The session and the muxer


async def test_a_cancelled_write_spoils_the_session() -> None:
    a, b = await secure(*raw_pair(), (STOCK, STOCK))
    with trio.CancelScope() as scope:
        scope.cancel()
        await a.write(b"cut off")
    spoilt = False
    try:
        with trio.fail_after(5):
            await a.write(b"whole")
            await read_exactly(b, 5)
    except Exception:
        spoilt = True
    still(scope.cancelled_caught and spoilt, OURS_FOR_THE_PAIR)
    await a.close()
    await b.close()


async def test_a_private_networks_nonce_is_too_short() -> None:
    a, b = raw_pair()
    await PskConn(a, "00" * 32).write(b"x")
    still(
        len(await b.read(100)) == 8 + 1, "p2p.net.private_network, if its nonce has 24 bytes and its cipher is XSalsa20"
    )
    await a.close()
    await b.close()


async def test_a_cancelled_read_loses_bytes() -> None:
    async with muxed_pair((STOCK, STOCK)) as (a, b):
        here = await a.open_stream()
        await here.write(b"0")
        there = await b.accept_stream()
        got = []
        with instrument() as at_await, trio.move_on_after(5), suppress(MuxedStreamError):
            for number in range(10):
                await trio.testing.wait_all_tasks_blocked(0.01)
                with at_await.scope("read", number):
                    got.append(await there.read(1))
                await here.write(str(number + 1).encode())
            await here.close()
            while True:
                got.append(await there.read(1))
        still(b"".join(got) != b"012345678910", OURS_FOR_THE_PAIR)


async def test_a_peer_may_ignore_flow_control() -> None:
    async with muxed_pair((OURS, STOCK)) as (a, b):
        here = await a.open_stream()
        here.state.send_window = 1 << 30
        with trio.fail_after(20):
            await here.write(bytes(8 * WINDOW_BYTES))
        there = await b.accept_stream()
        await until(lambda: len(b.stream_buffers[there.stream_id]) > 2 * WINDOW_BYTES or b.is_closed)
        still(not b.is_closed, OURS_FOR_THE_PAIR)


async def test_a_silent_peer_is_never_given_up(autojump_clock: trio.testing.MockClock) -> None:
    async with muxed_pair((STOCK, OURS)) as (a, b):
        b.core.receive = lambda data, now: []
        b.core.deadline = lambda: float("inf")
        await trio.sleep(600)
        still(not a.is_closed, OURS_FOR_THE_PAIR)


async def test_the_muxer_that_is_given_is_not_used() -> None:
    sessions = await secure(*raw_pair())
    made: list[Any] = []

    async def negotiate(session: Any) -> None:
        made.append(await MuxerMultistream({PROTOCOL_ID: MuxedConn}).new_conn(session, session.get_remote_peer()))

    async with trio.open_nursery() as nursery:
        for session in sessions:
            nursery.start_soon(negotiate, session)
    still(all(isinstance(each, StockYamux) for each in made), "p2p.net.muxer.YamuxNegotiation: give muxer_opt")
    for session in sessions:
        await session.close()


# The host and its swarm


@asynccontextmanager
async def pair(**options: Any) -> AsyncIterator[tuple[Any, Any]]:
    """Two stock hosts; the first knows where the second is."""
    a, b = stock_host("a", **options), stock_host("b", **options)
    async with a.run([ANY]), b.run([ANY]):
        a.get_peerstore().add_addrs(b.get_id(), b.get_addrs(), 1000)
        try:
            yield a, b
        finally:
            for host in (a, b):
                await host.get_network().close()


def test_plain_text_is_offered_unasked() -> None:
    offered = new_host().get_network().upgrader.security_multistream.transports
    still(PLAINTEXT_PROTOCOL_ID in offered, "nothing, but `sec_opt` is not vital any more")


async def test_a_dial_waits_for_a_failure_that_never_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swarm, "_HAPPY_EYEBALLS_DELAY", 0.5)
    async with pair() as (a, b):
        began_at = trio.current_time()
        await a.get_network().dial_peer(b.get_id())
        still(trio.current_time() - began_at >= 0.5, "_HAPPY_EYEBALLS_DELAY from p2p.net.guards")


async def test_an_inbound_connection_keeps_its_place_for_ever() -> None:
    async with pair() as (a, b):
        for _ in range(3):
            (connection,) = await a.get_network().dial_peer(b.get_id())
            await connection.close()
        await until(lambda: not b.get_network().get_connections())
        still(b.get_network()._inbound_limiter.borrowed_tokens == 3, "what p2p.net.gate does for a connection's place")


async def test_one_address_may_shake_hands_any_number_of_times_at_once() -> None:
    async with pair() as (_, b):
        port = int(b.get_addrs()[0].value_for_protocol("tcp"))
        silent = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(100)]
        await trio.sleep(0.1)
        still(b.get_network()._inbound_limiter.borrowed_tokens == 100, "p2p.net.gate and p2p.net.arrivals")
        for stream in silent:
            await stream.aclose()


async def test_how_many_connections_may_come_in_is_a_difference() -> None:
    config = ConnectionConfig(max_connections=100, high_watermark=95, low_watermark=92, min_connections=90)
    host = stock_host("a", connection_config=config)
    still(host.get_network()._inbound_limiter.total_tokens == 10, "min_connections from p2p.net.guards")


async def test_the_remote_address_is_unknown_over_ipv6() -> None:
    try:
        (listener,) = await trio.open_tcp_listeners(0, host="::1")
    except OSError:
        pytest.skip("there is no IPv6 here")
    async with listener, await trio.open_tcp_stream("::1", listener.socket.getsockname()[1]) as stream:
        still(guards._stock_remote_address(TrioTCPStream(stream)) is None, "p2p.net.guards._remote_address")


async def test_a_task_that_fails_ends_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrioManager, "run_task", guards._stock_run_task)
    with pytest.RaisesGroup(KeyError, flatten_subgroups=True) as caught:
        async with background_trio_service(Tasks(1, fail)):
            await trio.sleep_forever()
    still(caught, "p2p.net.guards._run_task")


async def test_a_task_may_not_start_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrioManager, "run_task", guards._stock_run_task)
    with pytest.RaisesGroup(TooManyChildrenException, flatten_subgroups=True) as caught:
        async with background_trio_service(Tasks(MANY, trio.sleep_forever)):
            await trio.sleep_forever()
    still(caught, "p2p.net.guards._run_task")


async def test_as_much_is_asked_of_the_socket_as_a_peer_claims_to_send() -> None:
    asked = []

    class Claims:
        """A peer that names a length, and then sends little at a time."""

        async def read(self, n: int) -> bytes:
            asked.append(n)
            await trio.lowlevel.checkpoint()
            return b"\xff\xff\xff\xff\xff\x7f"[len(asked) - 1 : len(asked)] or b"!"

    with suppress(IncompleteReadError):
        await read_delim(Claims())
    still(max(asked) > 1 << 40, "p2p.net.guards._read_line")


async def test_a_handler_that_fails_ends_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrioManager, "run_task", guards._stock_run_task)

    async def fail(stream: Any) -> None:
        raise KeyError("a handler's own fault")

    with pytest.RaisesGroup(KeyError, flatten_subgroups=True, allow_unwrapped=True) as caught:
        async with pair() as (a, b):
            b.set_stream_handler(TRIED, fail)
            await a.new_stream(b.get_id(), [TRIED])
            await trio.sleep(1)
    still(caught, "what p2p.net.intake catches")


async def test_a_stream_whose_opening_is_cancelled_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swarm_connection.SwarmConn, "_add_stream", guards._add_stream)
    async with pair() as (a, b):
        (connection,) = await a.get_network().dial_peer(b.get_id())
        await trio.testing.wait_all_tasks_blocked(0.05)
        before = len(connection.muxed_conn.streams)
        with instrument() as at_await:
            for number in range(1, 6):
                with at_await.scope("open", number):
                    await (await connection.new_stream()).reset()
        still(len(connection.muxed_conn.streams) > before, "p2p.net.guards._add_stream_whole")


async def test_whoever_is_known_is_dialled_unasked() -> None:
    nobody = ConnectionConfig(low_watermark=0, high_watermark=10, min_connections=0)
    async with pair(connection_config=nobody) as (a, b):
        connector = a.get_network().auto_connector
        await connector.start()
        await connector.maybe_connect()
        with trio.move_on_after(2):
            await until(lambda: a.get_network().get_connections())
        still(a.get_network().get_connections(), "p2p.net.guards._NoAutoConnector")
        assert b.get_id() in a.get_connected_peers()


async def test_one_peer_may_take_all_streams() -> None:
    manager = ResourceManager(limits=ResourceLimits(max_streams=10))
    taken = [manager.acquire_stream("greedy", swarm.Direction.INBOUND) for _ in range(10)]
    still(all(taken) and not manager.acquire_stream("modest", swarm.Direction.INBOUND), "guards.MAX_STREAMS's tally")


async def test_a_dial_that_is_cut_off_is_counted_for_ever() -> None:
    manager = ResourceManager()
    host = stock_host("a", resource_manager=manager)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener, host.run([ANY]):
        silent = Multiaddr(f"/ip4/127.0.0.1/tcp/{listener.socket.getsockname()[1]}")
        with trio.move_on_after(0.2):
            await host.get_network().dial_addr(silent, stock_host("b").get_id())
        still(manager._current_connections == 1, "the missing limits of guards.resource_manager")
        await host.get_network().close()


async def test_one_address_of_a_peer_is_tried_and_then_none_for_a_minute() -> None:
    a, b = stock_host("a"), stock_host("b")
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        dead = Multiaddr(f"/ip4/127.0.0.1/tcp/{placeholder.getsockname()[1]}")
        async with a.run([ANY]), b.run([ANY]):
            a.get_peerstore().add_addrs(b.get_id(), [dead, *b.get_addrs()], 1000)
            with pytest.raises(SwarmDialAllFailedError) as first:
                await a.get_network().dial_peer(b.get_id())
            still(first.value.num_addrs_tried == 1, "p2p.net.libp2p_host.Libp2pHost._dial: all addresses are tried")
            with pytest.raises(SwarmException) as second:
                await a.connect(PeerInfo(b.get_id(), b.get_addrs()))
            still("negative cache" in str(second.value), "the eviction in p2p.net.libp2p_host.Libp2pHost._learn")
            for host in (a, b):
                await host.get_network().close()


async def test_two_hosts_listen_on_one_port() -> None:
    a, b = stock_host("a"), stock_host("b")
    async with a.run([ANY]):
        taken = Multiaddr(f"/ip4/127.0.0.1/tcp/{a.get_addrs()[0].value_for_protocol('tcp')}")
        async with b.run([taken]):
            still(b.get_network().listeners, "the probe in p2p.net.libp2p_host._listen_address")
            for host in (a, b):
                await host.get_network().close()


def test_a_module_logs_to_the_root_logger() -> None:
    assert swarm_connection.__spec__ is not None
    assert swarm_connection.__spec__.origin is not None
    spec = importlib.util.spec_from_file_location("untouched", swarm_connection.__spec__.origin)
    assert spec is not None
    assert spec.loader is not None
    untouched = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(untouched)
    still(getattr(untouched, "logging", None) is logging, "swarm_connection.logging from p2p.net.guards")


# GossipSub


def router() -> tuple[Any, list[Any]]:
    """The stock router as it comes, and what it would send: (what, to whom) in turn."""
    gossip = GossipSub([TProtocol("/meshsub/1.1.0")], degree=6, degree_low=4, degree_high=12)
    gossip.attach(Pubsub(stock_host("a"), gossip))
    said: list[Any] = []

    async def say(*words: Any) -> None:
        said.append(words)

    gossip.emit_control_message = say
    gossip.emit_iwant = say
    gossip.emit_prune = say
    gossip._do_px = say
    return gossip, said


PEER, OTHER = (stock_host(name).get_id() for name in ("b", "c"))


async def test_one_peers_control_messages_go_to_the_next_as_well() -> None:
    gossip, said = router()
    await gossip._emit_control_msgs({PEER: ["ours"], OTHER: ["theirs"]}, {}, {})
    topics = [[graft.topicID for graft in message.graft] for message, _ in said]
    still(topics == [["ours"], ["ours", "theirs"]], "p2p.net.mesh.Mesh._emit_control_msgs")


async def test_the_pause_asked_of_a_pruned_peer_is_not_kept() -> None:
    gossip, said = router()
    await gossip._emit_control_msgs({}, {PEER: ["topic"]}, {})
    still(said and not gossip._check_back_off(PEER, "topic"), "p2p.net.mesh.Mesh._emit_control_msgs")


async def test_a_healthy_mesh_is_regrafted_by_its_scores() -> None:
    gossip, _ = router()
    gossip.mesh["topic"] = {PEER}
    median = gossip.scorer.score(PEER, ["topic"])
    still(median == 0 < 0.5, "scorer = None from p2p.net.mesh.Mesh")


async def test_any_text_is_a_topic_to_keep_records_of() -> None:
    gossip, _ = router()
    await gossip.handle_graft(rpc_pb2.ControlGraft(topicID="any text"), PEER)
    await gossip.handle_prune(rpc_pb2.ControlPrune(topicID="any other"), PEER)
    kept = {*gossip.back_off, *gossip.graft_flood_tracking[PEER]}
    still("any other" in kept, "p2p.net.mesh.Mesh.handle_graft and handle_prune")
    gossip.remove_peer(PEER)
    still(PEER in gossip.back_off["any other"], "p2p.net.mesh.Mesh.remove_peer")


async def test_whoever_a_peer_names_is_dialled() -> None:
    gossip, said = router()
    strangers = [rpc_pb2.PeerInfo(peerID=OTHER.to_bytes())]
    await gossip.handle_prune(rpc_pb2.ControlPrune(topicID="topic", peers=strangers), PEER)
    still(said == [(strangers,)], "p2p.net.mesh.Mesh.handle_prune")


async def test_whatever_a_peer_claims_to_have_is_asked_for() -> None:
    gossip, said = router()
    claimed = [number.to_bytes(8, "big").hex().encode() for number in range(5000)]
    await gossip.handle_ihave(rpc_pb2.ControlIHave(topicID="not ours", messageIDs=claimed), PEER)
    still(said and len(said[0][0]) == 5000, "p2p.net.mesh.Mesh.handle_ihave")


async def test_a_malformed_author_raises_what_it_likes() -> None:
    hashed_id = b"\x12\x20" + bytes(32)  # holds no key, so that the message must bring one
    message = rpc_pb2.Message(data=b"x", topicIDs=["topic"], from_id=hashed_id, signature=b"s", key=b"\xff" * 10)
    verdict = None
    with suppress(Exception):
        verdict = signature_validator(message)
    still(verdict is None, "the try in p2p.net.gossip_reader._signed")


async def test_a_message_is_sent_again_as_often_as_it_is_named() -> None:
    gossip, said = router()
    message = rpc_pb2.Message(data=b"x", topicIDs=["topic"], from_id=PEER.to_bytes(), seqno=b"1")
    gossip.mcache.put(message)
    gossip.send_rpc = lambda peer, packet: said.append(packet)
    (name,) = [each.hex().encode() for each in gossip.mcache.msgs]
    await gossip.handle_iwant(rpc_pb2.ControlIWant(messageIDs=[name] * 100), PEER)
    still(said and len(said[0].publish) == 100, "p2p.net.mesh.Mesh.handle_iwant")


async def test_every_message_that_is_read_is_a_task() -> None:
    gossip, _ = router()
    reader, tasks = gossip.pubsub, []
    message = rpc_pb2.Message(data=b"x", topicIDs=["topic"])
    wire: bytes = encode_varint_prefixed(rpc_pb2.RPC(publish=[message] * 100).SerializeToString())

    class Peer:
        muxed_conn = SimpleNamespace(peer_id=PEER)

        async def read(self, n: int) -> bytes:
            nonlocal wire
            piece, wire = wire[:n], wire[n:]
            if not piece:
                raise StreamEOF
            return piece

    reader._manager = SimpleNamespace(is_running=True, run_task=lambda *task: tasks.append(task))
    reader.subscribed_topics_receive["topic"] = None
    with suppress(Exception):
        await reader.continuously_read_stream(Peer())
    still(len(tasks) == 100, "p2p.net.gossip_reader")
