"""The router of GossipSub v1.1 over libp2p 0.8.1: the faults of its mesh are cured, and what peers may ask is bounded.

Only v1.1 is spoken: the later protocols' IDONTWANT doubles the number of messages. Scoring is off, because the
library's would regraft a healthy mesh at every heartbeat (the median score 0 is below its threshold 0.5) until nodes
are left with no mesh at all. What may be forwarded is the validator's business (`p2p.net.gossip_reader`).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

from libp2p.custom_types import TProtocol
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.utils import safe_bytes_from_hex

PROTOCOL = TProtocol("/meshsub/1.1.0")
HEARTBEAT_S = 1  # as the specification has it; the library's default is 120
MAX_CONTROLS = 64  # of each kind in one RPC; a peer has about one per topic
MAX_IDS = 64  # of messages, in what is asked of us and in what we ask for
MAX_RESENT_BYTES = 128 * 1024  # for one request
MAX_PENDING = 8  # messages that wait for a peer that is not ready to be sent any
_DEGREE, _DEGREE_LOW, _DEGREE_HIGH = 6, 4, 12  # the specification's


class Mesh(GossipSub):
    """The router."""

    def __init__(self) -> None:
        super().__init__(
            [PROTOCOL],
            degree=_DEGREE,
            degree_low=_DEGREE_LOW,
            degree_high=_DEGREE_HIGH,
            heartbeat_interval=HEARTBEAT_S,
            adaptive_gossip_enabled=False,
            eclipse_protection_enabled=False,
            spam_protection_enabled=False,  # it drops honest bursts: 10 messages a second, counted per forwarder
            max_pending_messages_per_peer=MAX_PENDING,
        )
        self.scorer = None

    async def publish(self, msg_forwarder: Any, pubsub_msg: Any) -> None:
        """Fault: when each message was sent is remembered for ever, for a measurement that is off."""
        await super().publish(msg_forwarder, pubsub_msg)
        self.recent_message_deliveries.clear()

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

    async def handle_rpc(self, rpc: Any, sender_peer_id: Any) -> None:
        """Fault: any number of controls is worked through, also those of protocols that we do not speak."""
        for kind, handle in (
            (rpc.control.ihave, self.handle_ihave),
            (rpc.control.iwant, self.handle_iwant),
            (rpc.control.graft, self.handle_graft),
            (rpc.control.prune, self.handle_prune),
        ):
            for message in islice(kind, MAX_CONTROLS):
                await handle(message, sender_peer_id)

    async def handle_ihave(self, ihave_msg: Any, sender_peer_id: Any) -> None:
        """Fault: whatever a peer claims to have is asked for, however much it is, and whatever its topic."""
        if ihave_msg.topicID in self.mesh:
            ids = list(islice(ihave_msg.messageIDs, MAX_IDS))
            await super().handle_ihave(rpc_pb2.ControlIHave(topicID=ihave_msg.topicID, messageIDs=ids), sender_peer_id)

    async def handle_iwant(self, iwant_msg: Any, sender_peer_id: Any) -> None:
        """Fault: a message is sent again as often as its id is repeated, all in one RPC that is held in memory."""
        ids = self._within_room(dict.fromkeys(islice(iwant_msg.messageIDs, MAX_IDS)))
        await super().handle_iwant(rpc_pb2.ControlIWant(messageIDs=list(ids)), sender_peer_id)

    def _within_room(self, ids: Iterable[bytes]) -> Iterable[bytes]:
        """Those of the messages that may be sent in one answer."""
        room = MAX_RESENT_BYTES
        for each in ids:
            message = self.mcache.get(safe_bytes_from_hex(each) or b"")
            if message is not None and len(message.data) <= room:
                room -= len(message.data)
                yield each

    async def handle_graft(self, graft_msg: Any, sender_peer_id: Any) -> None:
        """Fault: it keeps a record per topic named, any text. A topic that is not ours needs no answer."""
        if graft_msg.topicID in self.mesh:
            await super().handle_graft(graft_msg, sender_peer_id)

    async def handle_prune(self, prune_msg: Any, sender_peer_id: Any) -> None:
        """Fault: as for a graft. Fault: whoever the peer names beside is dialled, wherever it says that they are."""
        if prune_msg.topicID in self.mesh:
            bare = rpc_pb2.ControlPrune(topicID=prune_msg.topicID, backoff=prune_msg.backoff)
            await super().handle_prune(bare, sender_peer_id)

    def remove_peer(self, peer_id: Any) -> None:
        """Fault: how long a peer wants to be left alone is remembered for ever."""
        super().remove_peer(peer_id)
        for waits in self.back_off.values():
            waits.pop(peer_id, None)
