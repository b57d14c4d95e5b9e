"""GossipSub v1.1 over libp2p 0.8.1, with the faults of its mesh and of its reader cured.

Only v1.1 is spoken: the later protocols' IDONTWANT doubles the number of messages. Scoring is off, because the
library's would regraft a healthy mesh at every heartbeat (the median score 0 is below its threshold 0.5) until nodes
are left with no mesh at all; what may be forwarded is the validator's business.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from libp2p.custom_types import TProtocol
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.tools.anyio_service import background_trio_service

from p2p.errors import LocalError

MAX_PAYLOAD_BYTES = 64 * 1024
SUBSCRIPTION_BACKLOG = 256  # payloads that wait for a subscriber
_PROTOCOL = TProtocol("/meshsub/1.1.0")
_MAX_RPC_BYTES = 512 * 1024
_MAX_TOPICS_PER_PEER = 256
_HEARTBEAT_S = 1  # as the specification has it; the library's default is 120
_DEGREE, _DEGREE_LOW, _DEGREE_HIGH = 6, 4, 12  # the specification's

_log = logging.getLogger(__name__)


class _Mesh(GossipSub):
    """The router."""

    def __init__(self) -> None:
        super().__init__(
            [_PROTOCOL],
            degree=_DEGREE,
            degree_low=_DEGREE_LOW,
            degree_high=_DEGREE_HIGH,
            heartbeat_interval=_HEARTBEAT_S,
            adaptive_gossip_enabled=False,
            eclipse_protection_enabled=False,
            spam_protection_enabled=False,  # it drops honest bursts: 10 messages a second, counted per forwarder
        )
        self.scorer = None

    async def _emit_control_msgs(
        self,
        peers_to_graft: dict[Any, list[str]],
        peers_to_prune: dict[Any, list[str]],
        peers_to_gossip: dict[Any, dict[str, list[bytes]]],
    ) -> None:
        """Fault: the stock one carries one peer's messages over to the next, so peers prune each other at random.

        Fault: it does not keep the backoff that it asks of a pruned peer, and so grafts it again at once.
        """
        for peer in {**peers_to_graft, **peers_to_prune, **peers_to_gossip}:
            prunes = []
            for topic in dict.fromkeys(peers_to_prune.get(peer, ())):
                self._add_back_off(peer, topic, False)
                prunes.append(rpc_pb2.ControlPrune(topicID=topic, backoff=self.prune_back_off))
            message = self.pack_control_msgs(
                [
                    rpc_pb2.ControlIHave(topicID=topic, messageIDs=ids)
                    for topic, ids in peers_to_gossip.get(peer, {}).items()
                ],
                [rpc_pb2.ControlGraft(topicID=topic) for topic in dict.fromkeys(peers_to_graft.get(peer, ()))],
                prunes,
            )
            await self.emit_control_message(message, peer)

    async def handle_graft(self, graft_msg: Any, sender_peer_id: Any) -> None:
        """Fault: it keeps a record per topic named, any text. A topic that is not ours needs no answer."""
        if graft_msg.topicID in self.mesh:
            await super().handle_graft(graft_msg, sender_peer_id)

    async def handle_prune(self, prune_msg: Any, sender_peer_id: Any) -> None:
        """Fault: as for a graft, and its records are never dropped."""
        if prune_msg.topicID in self.mesh:
            await super().handle_prune(prune_msg, sender_peer_id)


class _Reader(Pubsub):
    """What reads, checks and hands over. `deliver` gets every valid message of a peer: (topic, payload)."""

    def __init__(self, host: Any, router: _Mesh, deliver: Callable[[str, bytes], None]) -> None:
        super().__init__(
            host,
            router,
            strict_signing=True,
            max_inbound_rpc_size=_MAX_RPC_BYTES,
            max_subscriptions_per_rpc=_MAX_TOPICS_PER_PEER,
            max_subscriptions_per_peer=_MAX_TOPICS_PER_PEER,
        )
        self._deliver = deliver

    async def push_msg(self, msg_forwarder: Any, msg: Any) -> None:
        """Fault: a message with a malformed key or peer id raises in a task of the host, and ends the host."""
        try:
            if len(msg.topicIDs) == 1 and len(msg.data) <= MAX_PAYLOAD_BYTES:
                await super().push_msg(msg_forwarder, msg)
        except Exception as error:
            if msg_forwarder == self.my_id:
                raise
            _log.debug("dropped a message that %s forwarded: %r", msg_forwarder, error)

    def notify_subscriptions(self, publish_message: Any) -> None:
        """Fault: the stock queue holds 32 and then drops what is newest. Ours drops what is oldest."""
        if publish_message.from_id != self.my_id.to_bytes():
            self._deliver(publish_message.topicIDs[0], publish_message.data)


class Gossip:
    """Topics of one network. Made before the host listens: the library never picks up earlier connections."""

    def __init__(self, host: Any, network: str) -> None:
        self._prefix = f"/bombyx/{network}/"
        self._mesh = _Mesh()
        self._reader = _Reader(host, self._mesh, self._deliver)
        self._subscribers: dict[str, _Queue] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Take part while the context lasts."""
        try:
            async with background_trio_service(self._mesh), background_trio_service(self._reader):
                await self._reader.wait_until_ready()
                yield
        finally:
            self._reader.seen_messages.stop()  # the library's thread that sweeps this cache

    async def publish(self, topic: str, payload: bytes) -> None:
        """Send `payload` to the topic's subscribers, as far as they are known; not to ourselves."""
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise LocalError(f"{len(payload)} bytes do not fit a gossip message of {MAX_PAYLOAD_BYTES}")
        await self._reader.publish(self._prefix + topic, payload)

    @asynccontextmanager
    async def subscribed(
        self, topic: str, validator: Callable[[bytes, str], bool]
    ) -> AsyncIterator[trio.MemoryReceiveChannel[bytes]]:
        """Receive the valid payloads of others. Raises `LocalError` for a topic that we already subscribe to."""
        name = self._prefix + topic
        if name in self._subscribers:
            raise LocalError(f"the topic {topic} already has a subscriber")
        queue = self._subscribers[name] = _Queue()
        self._reader.set_topic_validator(name, lambda peer, message: validator(message.data, str(peer)), False)
        try:
            await self._reader.subscribe(name)
            yield queue.receiver
        finally:
            del self._subscribers[name]
            self._reader.remove_topic_validator(name)
            queue.close()
            with trio.CancelScope(shield=True):  # it only queues the news for our peers
                await self._reader.unsubscribe(name)

    def _deliver(self, topic: str, payload: bytes) -> None:
        if queue := self._subscribers.get(topic):
            queue.put(payload)


class _Queue:
    """A channel that drops what is oldest when it is full."""

    def __init__(self) -> None:
        self._sender, self.receiver = trio.open_memory_channel[bytes](SUBSCRIPTION_BACKLOG)
        self._oldest = self.receiver.clone()

    def put(self, payload: bytes) -> None:
        if self._sender.statistics().current_buffer_used == SUBSCRIPTION_BACKLOG:
            self._oldest.receive_nowait()
        self._sender.send_nowait(payload)

    def close(self) -> None:
        self._sender.close()
        self._oldest.close()
