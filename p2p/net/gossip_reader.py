"""What reads gossip: every message is bounded, paced, checked and validated before it is passed on.

Fault of libp2p 0.8.1: its reader starts a task for every message that a peer sends, over any number of streams, so that
one peer can fill the node; and a message that is malformed in the right place ends the host.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import trio
from google.protobuf.message import DecodeError
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.validators import signature_validator

from p2p.errors import RemoteError, Unavailable
from p2p.host import Stream, Validator, Verdict
from p2p.net.mesh import Mesh
from p2p.net.stream import Libp2pStream
from p2p.protocol.rates import Rates
from p2p.protocol.wire import FrameReader

MAX_PAYLOAD_BYTES = 64 * 1024
MAX_RPC_BYTES = 256 * 1024
MAX_TOPICS_PER_PEER = 256
MAX_TOPIC_BYTES = 256
# Messages that are read from one peer, and from all: beyond that a peer's own stream waits, and then the peer.
PER_PEER_S, PER_PEER_BURST = 50.0, 500.0
IN_ALL_S, IN_ALL_BURST = 400.0, 4000.0
BYTES_PER_MESSAGE = 4096  # a larger one counts as several
READ_BYTES = 1 << 16
_MAX_ID_BYTES = 64  # an Ed25519 peer id has 38, a sequence number 8

_log = logging.getLogger(__name__)

Blame = Callable[[str, str], None]
"""(peer, why): hold it against the peer."""


class Reader(Pubsub):
    """Reads every peer's gossip stream, one each. What is wrong with it is `blame`d on the peer that passed it on."""

    def __init__(self, host: Any, router: Mesh, prefix: str, blame: Blame) -> None:
        super().__init__(
            host,
            router,
            strict_signing=True,
            max_subscriptions_per_rpc=MAX_TOPICS_PER_PEER,
            max_subscriptions_per_peer=MAX_TOPICS_PER_PEER,
        )
        self.validators: dict[str, Validator] = {}
        self._prefix = prefix
        self._blame = blame
        self._of_peer = Rates(per_s=PER_PEER_S, burst=PER_PEER_BURST)
        self._of_all = Rates(per_s=IN_ALL_S, burst=IN_ALL_BURST)
        self._reading: dict[Any, trio.CancelScope] = {}

    async def stream_handler(self, stream: Any) -> None:
        """Read until the peer ends the stream or begins another."""
        peer, source = stream.muxed_conn.peer_id, Libp2pStream(stream)
        if peer in self._reading:
            self._reading[peer].cancel()
        with trio.CancelScope() as scope:
            self._reading[peer] = scope
            try:
                await self._read(peer, source)
            except (RemoteError, Unavailable) as error:
                if isinstance(error, RemoteError):
                    self._blame(str(peer), str(error))
                self._handle_dead_peer(peer)
            finally:
                if self._reading.get(peer) is scope:
                    del self._reading[peer]
        await source.reset()

    async def _read(self, peer: Any, source: Stream) -> None:
        frames = FrameReader(MAX_RPC_BYTES)
        while data := await source.read(READ_BYTES):
            for frame in frames.feed(data):
                rpc = rpc_pb2.RPC()
                try:
                    rpc.ParseFromString(frame)
                except DecodeError:
                    raise RemoteError("malformed", "not a gossip RPC") from None
                count = len(rpc.publish) + len(rpc.subscriptions)
                await self._pace(str(peer), 1 + count + len(frame) / BYTES_PER_MESSAGE)
                await self._take(peer, rpc)

    async def _pace(self, peer: str, messages: float) -> None:
        """Wait until so many more messages of this peer may be worked on."""
        now = trio.current_time()
        wait_s = max(self._of_peer.spend(peer, now, messages), self._of_all.spend("", now, messages))
        await trio.sleep(wait_s)

    async def _take(self, peer: Any, rpc: Any) -> None:
        for subscription in rpc.subscriptions[:MAX_TOPICS_PER_PEER]:
            if subscription.topicid.startswith(self._prefix) and len(subscription.topicid) <= MAX_TOPIC_BYTES:
                self.handle_subscription(peer, subscription)
        for message in rpc.publish:
            await self.push_msg(peer, message)
            await trio.lowlevel.checkpoint()  # others have a turn
        if rpc.HasField("control"):
            await self.router.handle_rpc(rpc, peer)

    def _forget_subscription(self, peer_id: Any, topic: str) -> None:
        """Fault: who unsubscribes and subscribes again is sent all recent messages again, every time."""
        sent = self._replayed_recent_topics.get(peer_id, set()) & self.validators.keys()
        super()._forget_subscription(peer_id, topic)
        if sent:
            self._replayed_recent_topics[peer_id] = sent

    def _handle_dead_peer(self, peer_id: Any) -> None:
        """Fault: what waited for a peer that was never ready is kept for ever."""
        super()._handle_dead_peer(peer_id)
        if peer_id not in self.peers:
            self.router.remove_peer(peer_id)

    async def push_msg(self, msg_forwarder: Any, msg: Any) -> None:
        """Pass a message on to the mesh, if it is ours or its topic's validator accepts it."""
        if msg_forwarder == self.my_id:
            self._mark_msg_seen(msg)
            await self.router.publish(msg_forwarder, msg)
            return
        verdict = self._examine(str(msg_forwarder), msg)
        if verdict is Verdict.REJECT:
            self._blame(str(msg_forwarder), "it passed on gossip that is not valid")
        elif verdict is Verdict.ACCEPT:
            await self.router.publish(msg_forwarder, msg)

    def _examine(self, forwarder: str, message: Any) -> Verdict:
        topic = message.topicIDs[0] if len(message.topicIDs) == 1 else ""
        validator = self.validators.get(topic)
        if validator is None:
            return Verdict.IGNORE
        if len(message.data) > MAX_PAYLOAD_BYTES or max(len(message.from_id), len(message.seqno)) > _MAX_ID_BYTES:
            return Verdict.REJECT
        if self._is_msg_seen(message) or message.from_id == self.my_id.to_bytes():
            return Verdict.IGNORE
        if not _signed(message):
            return Verdict.REJECT
        self._mark_msg_seen(message)
        return validator(message.data, forwarder)


def _signed(message: Any) -> bool:
    """Whether its author signed it. Fault: a malformed key or peer id raises one of many exceptions."""
    try:
        return bool(signature_validator(message))
    except Exception as error:
        _log.debug("a message with a malformed author or key: %r", error)
        return False
