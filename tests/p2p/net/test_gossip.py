"""Gossip between whole hosts, and what a hostile peer's messages may do."""

from __future__ import annotations

import functools
import itertools
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio
from google.protobuf.message import DecodeError
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.utils.varint import encode_varint_prefixed
from loopback import a_host, raw, seed, until

from p2p.errors import LocalError, Unavailable
from p2p.host import Host, Verdict
from p2p.net.conduct import FAULTS_FORGIVEN
from p2p.net.gossip_reader import MAX_PAYLOAD_BYTES, PER_PEER_BURST, PER_PEER_S
from p2p.net.mesh import MAX_IDS, MAX_PENDING, MAX_RESENT_BYTES, Mesh


def reader(host: Host) -> Any:
    return host._gossip._reader  # type: ignore[attr-defined]


def accept(payload: bytes, peer: str) -> Verdict:
    return Verdict.ACCEPT


class Inbox:
    """A validator that keeps what it accepts: all that begins with `ok`; what begins with `bad` is held against."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.forwarders: list[str] = []

    def __call__(self, payload: bytes, peer: str) -> Verdict:
        self.forwarders.append(peer)
        if payload.startswith(b"bad"):
            return Verdict.REJECT
        if not payload.startswith(b"ok"):
            return Verdict.IGNORE
        self.payloads.append(payload)
        return Verdict.ACCEPT

    async def has(self, *payloads: bytes) -> None:
        await until(lambda: len(self.payloads) >= len(payloads))
        assert self.payloads == list(payloads)


async def in_mesh(*line: Host) -> None:
    """Wait until each has the next of the line in its mesh, and the other way round."""
    for one, other in itertools.pairwise(line):
        for host, neighbour in ((one, other), (other, one)):
            mesh = reader(host).router.mesh["/bombyx/test/adverts"]
            await until(functools.partial(mesh.__contains__, raw(neighbour).get_id()))


async def visit(visitor: Host, host: Host) -> None:
    """Whoever is not wanted is told so after the handshake."""
    await visitor.connect(host.addresses()[0])
    await visitor.open(host.peer, "/ipfs/ping/1.0.0")


async def test_what_is_valid_goes_on_and_what_is_not_does_not() -> None:
    """a - b - c: c hears a only through b, whose validator decides."""
    async with AsyncExitStack() as stack:
        a, b, c = [await stack.enter_async_context(a_host(name)) for name in "abc"]
        await a.connect(b.addresses()[0])
        await b.connect(c.addresses()[0])
        inboxes = [Inbox(), Inbox(), Inbox()]
        for host, inbox in zip((a, b, c), inboxes, strict=True):
            await stack.enter_async_context(host.subscribe("adverts", inbox))
        await in_mesh(a, b, c)
        for payload in (b"ok 1", b"bad", b"old", b"ok 2"):
            await a.publish("adverts", payload)
        await inboxes[1].has(b"ok 1", b"ok 2")
        await inboxes[2].has(b"ok 1", b"ok 2")
        assert set(inboxes[1].forwarders) == {a.peer}
        assert inboxes[2].forwarders == [b.peer] * 2
        assert inboxes[0].forwarders == [], "nothing of our own comes back"


async def test_whoever_passes_on_what_is_not_valid_is_banned_in_the_end() -> None:
    async with a_host("a") as a, a_host("b") as b, a_host("evil") as evil:
        inbox = Inbox()
        await b.connect(a.addresses()[0])
        await evil.connect(a.addresses()[0])
        async with a.subscribe("adverts", inbox), b.subscribe("adverts", accept), evil.subscribe("adverts", accept):
            await in_mesh(b, a, evil)
            for number in range(FAULTS_FORGIVEN):
                await evil.publish("adverts", b"bad %d" % number)
                await evil.publish("adverts", b"late %d" % number)
                await until(lambda n=number: len(inbox.forwarders) == 2 * n + 2)  # type: ignore[misc]
            assert raw(a).get_network().get_connections(raw(evil).get_id())
            await evil.publish("adverts", b"bad, once too often")
            await until(lambda: not raw(a).get_network().get_connections(raw(evil).get_id()))
            with pytest.raises(Unavailable):
                await visit(evil, a)
            await b.publish("adverts", b"ok")
            await inbox.has(b"ok")


async def test_a_flood_waits_and_others_do_not(autojump_clock: None) -> None:
    """The pace that a peer's stream is read at, apart from the stream: from its second burst on a flood waits."""
    async with a_host("a") as a:
        began_at = trio.current_time()
        await reader(a)._pace("flood", PER_PEER_BURST)
        await reader(a)._pace("honest", 1)
        assert trio.current_time() == began_at
        await reader(a)._pace("flood", PER_PEER_S)
        assert trio.current_time() == began_at + 1


async def test_subscriptions_come_and_go() -> None:
    async with a_host("a") as a:
        async with a.subscribe("adverts", accept):
            with pytest.raises(LocalError, match="already"):
                async with a.subscribe("adverts", accept):
                    pytest.fail("two subscribers, one validator")
        async with a.subscribe("adverts", accept):
            assert len(reader(a).validators) == 1
        assert not reader(a).validators
        with pytest.raises(LocalError, match="do not fit"):
            await a.publish("adverts", bytes(MAX_PAYLOAD_BYTES + 1))
        await a.publish("adverts", b"to nobody")


async def test_networks_do_not_hear_each_other() -> None:
    async with a_host("a") as a, a_host("b", network="other") as b:
        inbox = Inbox()
        await a.connect(b.addresses()[0])
        async with a.subscribe("adverts", accept), b.subscribe("adverts", inbox):
            await until(lambda: raw(b).get_id() in reader(a).peers)
            await a.publish("adverts", b"ok for test only")
            await until(lambda: reader(a).seen_messages.cache)
            assert not inbox.forwarders
            assert not reader(a).peer_topics, "what others subscribe to in their own networks is not ours to keep"


def malformed() -> list[rpc_pb2.Message]:
    """Messages that fail somewhere inside the library: in the key's protobuf, in the peer id, in the topics."""
    topic = "/bombyx/test/adverts"
    junk_key = {"key": b"\xff" * 40, "signature": b"s" * 64}
    return [
        rpc_pb2.Message(data=b"x", topicIDs=[topic], from_id=b"\x12\x20" + bytes(32), seqno=b"1", **junk_key),
        rpc_pb2.Message(data=b"x", topicIDs=[topic], from_id=b"", seqno=b"2", **junk_key),
        rpc_pb2.Message(data=b"x", topicIDs=[topic], from_id=b"\xff" * 500, seqno=b"3", **junk_key),
        rpc_pb2.Message(data=b"x", topicIDs=[topic, topic], from_id=b"", seqno=b"4"),
        rpc_pb2.Message(topicIDs=[topic]),
    ]


async def test_a_malformed_message_harms_nobody() -> None:
    inbox = Inbox()
    async with a_host("a") as a, a_host("b") as b, a_host("evil") as evil, a.subscribe("adverts", inbox):
        await b.connect(a.addresses()[0])
        await evil.connect(a.addresses()[0])
        async with b.subscribe("adverts", accept):
            await in_mesh(a, b)
            for rpc in [rpc_pb2.RPC(publish=[message]) for message in malformed()] + [
                rpc_pb2.RPC(control=rpc_pb2.ControlMessage(prune=[rpc_pb2.ControlPrune(topicID="any", backoff=2**63)]))
            ]:
                stream = await raw(evil).new_stream(raw(a).get_id(), [TProtocol("/meshsub/1.1.0")])
                await stream.write(encode_varint_prefixed(rpc.SerializeToString()))
                await stream.write(encode_varint_prefixed(b"\xff not a protobuf"))
                await stream.close()
            await b.publish("adverts", b"ok, still here")
            await inbox.has(b"ok, still here")
        assert "any" not in reader(a).router.back_off


async def test_the_stock_reader_would_have_raised_in_a_task_of_the_host() -> None:
    async with a_host("a") as a, a.subscribe("adverts", accept):
        with pytest.raises(DecodeError):
            await Pubsub.push_msg(reader(a), "a stranger", malformed()[0])
        await reader(a).push_msg("a stranger", malformed()[0])


@pytest.mark.parametrize(("router", "leaks"), [(GossipSub, True), (Mesh, False)])
async def test_control_messages_of_one_peer_are_not_sent_to_the_next(router: Any, leaks: bool) -> None:
    mesh = router(["/meshsub/1.1.0"], 6, 4, 12) if router is GossipSub else router()
    sent: dict[str, Any] = {}

    async def emit(message: Any, peer: str) -> None:
        sent[peer] = message

    mesh.emit_control_message = emit
    await mesh._emit_control_msgs(
        {"p": ["t1"], "q": ["t2"]}, {"p": ["t3"]}, {"q": {"t4": [b"id"]}, "r": {"t4": [b"id"]}}
    )
    assert [graft.topicID for graft in sent["p"].graft] == ["t1"]
    assert [prune.topicID for prune in sent["p"].prune] == ["t3"]
    assert ([prune.topicID for prune in sent["q"].prune] != []) is leaks
    assert ([graft.topicID for graft in sent["q"].graft] != ["t2"]) is leaks
    assert [ihave.topicID for ihave in sent["r"].ihave] == ["t4"]


async def test_a_peer_that_takes_nothing_leaves_nothing() -> None:
    """It subscribes and accepts no gossip stream of ours, so what is published waits for it, and goes with it."""
    async with a_host("a") as a, a_host("b") as b, a.subscribe("adverts", accept), b.subscribe("adverts", accept):
        async with a_host("evil") as evil:
            reader(evil).peers = {}
            raw(evil).remove_stream_handler(TProtocol("/meshsub/1.1.0"))
            await b.connect(a.addresses()[0])
            await evil.connect(a.addresses()[0])
            stream = await raw(evil).new_stream(raw(a).get_id(), [TProtocol("/meshsub/1.1.0")])
            subscription = rpc_pb2.RPC.SubOpts(subscribe=True, topicid=TOPIC)
            await stream.write(encode_varint_prefixed(rpc_pb2.RPC(subscriptions=[subscription]).SerializeToString()))
            evil_id = raw(evil).get_id()
            await until(lambda: evil_id in reader(a).peer_topics.get(TOPIC, ()))
            for number in range(2 * MAX_PENDING):
                await a.publish("adverts", b"%d" % number)
            assert 0 < len(reader(a).router._pending_messages[evil_id]) <= MAX_PENDING + 1
        await until(lambda: evil_id not in reader(a).router._pending_messages)
        assert not reader(a).router.recent_message_deliveries


async def test_who_subscribes_again_and_again_is_sent_old_messages_once() -> None:
    async with a_host("a") as a, a.subscribe("adverts", accept):
        once = reader(a)
        peer = info_of("b")
        for _ in range(3):
            once._replayed_recent_topics.setdefault(peer, set()).add(TOPIC)
            once.handle_subscription(peer, rpc_pb2.RPC.SubOpts(subscribe=True, topicid=TOPIC))
            once.handle_subscription(peer, rpc_pb2.RPC.SubOpts(subscribe=False, topicid=TOPIC))
            assert once._replayed_recent_topics[peer] == {TOPIC}
        once._handle_dead_peer(peer)
        assert not once._replayed_recent_topics


TOPIC = "/bombyx/test/adverts"


async def asked(control: rpc_pb2.ControlMessage, *cached: rpc_pb2.Message) -> tuple[Mesh, list[Any]]:
    """A mesh that holds `cached` and was sent `control` by the peer `b`, and what it sent back."""
    sent: list[Any] = []

    async def emit(message: Any, peer: str) -> None:
        sent.append(message)

    async with a_host("a") as a, a.subscribe("adverts", accept):
        mesh: Mesh = reader(a).router
        for message in cached:
            mesh.mcache.put(message)
        mesh.emit_control_message = emit
        mesh.send_rpc = lambda peer, rpc, priority=False: sent.append(rpc)
        await mesh.handle_rpc(rpc_pb2.RPC(control=control), info_of("b"))
        return mesh, sent


def info_of(name: str) -> Any:
    return ID.from_pubkey(create_new_key_pair(seed(name)).public_key)


def cached(number: int, size: int) -> rpc_pb2.Message:
    return rpc_pb2.Message(data=bytes(size), topicIDs=[TOPIC], from_id=b"author", seqno=b"%04d" % number)


async def test_a_message_is_sent_again_once_however_often_it_is_asked_for() -> None:
    wanted = rpc_pb2.ControlIWant(messageIDs=[b"author0000"] * 5000)
    _, (answer,) = await asked(rpc_pb2.ControlMessage(iwant=[wanted]), cached(0, 1000))
    assert len(answer.publish) == 1


async def test_what_is_sent_again_at_once_is_bounded() -> None:
    size = MAX_RESENT_BYTES // 4
    messages = [cached(number, size) for number in range(20)]
    wanted = rpc_pb2.ControlIWant(messageIDs=[b"author%04d" % number for number in range(20)])
    _, (answer,) = await asked(rpc_pb2.ControlMessage(iwant=[wanted]), *messages)
    assert len(answer.publish) == 4


async def test_of_what_a_peer_claims_to_have_a_few_are_asked_for_and_of_our_topics_alone() -> None:
    ids = [b"id%d" % number for number in range(5000)]
    control = rpc_pb2.ControlMessage(
        ihave=[rpc_pb2.ControlIHave(topicID=topic, messageIDs=ids) for topic in ("any", TOPIC)]
    )
    mesh, (answer,) = await asked(control)
    assert len(answer.iwant[0].messageIDs) == MAX_IDS
    assert set(mesh.ihave_message_limits[info_of("b")]) == {TOPIC}


async def test_nobody_is_dialled_because_a_peer_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    dialled = []

    async def dial(_mesh: Any, peers: Any) -> None:
        dialled.append(peers)

    monkeypatch.setattr(GossipSub, "_do_px", dial)
    stranger = rpc_pb2.PeerInfo(peerID=info_of("c").to_bytes())
    prune = rpc_pb2.ControlPrune(topicID=TOPIC, backoff=60, peers=[stranger])
    mesh, _ = await asked(rpc_pb2.ControlMessage(prune=[prune]))
    assert not dialled
    assert set(mesh.back_off[TOPIC]) == {info_of("b")}
    mesh.remove_peer(info_of("b"))
    assert not mesh.back_off[TOPIC]


def test_only_v1_1_and_no_scorer() -> None:
    mesh = Mesh()
    assert mesh.get_protocols() == ["/meshsub/1.1.0"]
    assert mesh.scorer is None
    assert mesh.heartbeat_interval == 1
