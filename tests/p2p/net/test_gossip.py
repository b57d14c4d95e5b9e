"""Gossip between whole hosts, and what a hostile peer's messages may do."""

from __future__ import annotations

import functools
import itertools
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # it has no stubs
from libp2p.custom_types import TProtocol
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.utils.varint import encode_varint_prefixed
from loopback import a_host, raw, until

from p2p.errors import LocalError
from p2p.host import Host
from p2p.net import gossip
from p2p.net.gossip import SUBSCRIPTION_BACKLOG, _Mesh


def reader(host: Host) -> Any:
    return host._gossip._reader  # type: ignore[attr-defined]


def accept(payload: bytes, peer: str) -> bool:
    return True


def has_seen(host: Host, messages: int) -> bool:
    return len(reader(host).seen_messages.cache) >= messages


async def in_mesh(*line: Host) -> None:
    """Wait until each has the next of the line in its mesh, and the other way round."""
    for one, other in itertools.pairwise(line):
        for host, neighbour in ((one, other), (other, one)):
            mesh = reader(host).router.mesh["/bombyx/test/adverts"]
            await until(functools.partial(mesh.__contains__, raw(neighbour).get_id()))


async def test_what_is_valid_goes_on_and_what_is_not_does_not() -> None:
    """a - b - c: c hears a only through b, whose validator decides."""
    heard_from = []

    def starts_well(payload: bytes, peer: str) -> bool:
        heard_from.append(peer)
        return payload.startswith(b"ok")

    async with AsyncExitStack() as stack:
        a, b, c = [await stack.enter_async_context(a_host(name)) for name in "abc"]
        await a.connect(b.addresses()[0])
        await b.connect(c.addresses()[0])
        inboxes = [
            await stack.enter_async_context(host.subscribe("adverts", validator))
            for host, validator in ((a, accept), (b, starts_well), (c, accept))
        ]
        await in_mesh(a, b, c)
        for payload in (b"ok 1", b"bad", b"ok 2"):
            await a.publish("adverts", payload)
        with trio.fail_after(5):
            for inbox in inboxes[1:]:
                assert [await inbox.receive() for _ in range(2)] == [b"ok 1", b"ok 2"]
        assert set(heard_from) == {a.peer}
        with pytest.raises(trio.WouldBlock):
            inboxes[0].receive_nowait()  # nothing of our own comes back


async def test_a_slow_reader_loses_the_oldest() -> None:
    async with a_host("a") as a, a_host("b") as b:
        await a.connect(b.addresses()[0])
        async with a.subscribe("adverts", accept), b.subscribe("adverts", accept) as inbox:
            await in_mesh(a, b)
            count = SUBSCRIPTION_BACKLOG + 20
            for number in range(count):
                await a.publish("adverts", b"%d" % number)
                if number % 16 == 15 or number == count - 1:  # the library's queue to a peer holds 32
                    await until(functools.partial(has_seen, b, number + 1))
            assert [await inbox.receive() for _ in range(SUBSCRIPTION_BACKLOG)] == [
                b"%d" % number for number in range(20, count)
            ]


async def test_subscriptions_come_and_go() -> None:
    async with a_host("a") as a:
        async with a.subscribe("adverts", accept) as inbox:
            with pytest.raises(LocalError, match="already"):
                async with a.subscribe("adverts", accept):
                    pytest.fail("two subscribers, one validator")
        with pytest.raises(trio.EndOfChannel):
            await inbox.receive()
        async with a.subscribe("adverts", accept):
            assert len(reader(a).topic_validators) == 1
        assert not reader(a).topic_validators
        with pytest.raises(LocalError, match="do not fit"):
            await a.publish("adverts", bytes(gossip.MAX_PAYLOAD_BYTES + 1))
        await a.publish("adverts", b"to nobody")


async def test_networks_do_not_hear_each_other() -> None:
    async with a_host("a") as a, a_host("b", network="other") as b:
        await a.connect(b.addresses()[0])
        async with a.subscribe("adverts", accept), b.subscribe("adverts", accept) as inbox:
            await until(lambda: raw(b).get_id() in reader(a).peers)
            await a.publish("adverts", b"for test only")
            await until(lambda: reader(a).seen_messages.cache)
            with pytest.raises(trio.WouldBlock):
                inbox.receive_nowait()


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
    async with a_host("a") as a, a_host("b") as b, a_host("evil") as evil, a.subscribe("adverts", accept) as inbox:
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
            await b.publish("adverts", b"still here")
            with trio.fail_after(5):
                assert await inbox.receive() == b"still here"
        assert "any" not in reader(a).router.back_off


async def test_the_stock_reader_would_have_raised_in_a_task_of_the_host() -> None:
    async with a_host("a") as a, a.subscribe("adverts", accept):
        with pytest.raises(DecodeError):
            await Pubsub.push_msg(reader(a), "a stranger", malformed()[0])
        await reader(a).push_msg("a stranger", malformed()[0])


@pytest.mark.parametrize(("router", "leaks"), [(GossipSub, True), (_Mesh, False)])
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


def test_only_v1_1_and_no_scorer() -> None:
    mesh = _Mesh()
    assert mesh.get_protocols() == ["/meshsub/1.1.0"]
    assert mesh.scorer is None
    assert mesh.heartbeat_interval == 1
