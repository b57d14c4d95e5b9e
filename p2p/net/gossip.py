"""Topics over GossipSub: what the seam shows of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from libp2p.tools.anyio_service import background_trio_service

from p2p.errors import LocalError
from p2p.host import Validator
from p2p.net.gossip_reader import MAX_PAYLOAD_BYTES, Blame, Reader
from p2p.net.mesh import Mesh


class Gossip:
    """Topics of one network. Made before the host listens: the library never picks up earlier connections."""

    def __init__(self, host: Any, network: str, blame: Blame) -> None:
        self._prefix = f"/bombyx/{network}/"
        self._mesh = Mesh()
        self._reader = Reader(host, self._mesh, self._prefix, blame)

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
    async def subscribed(self, topic: str, validator: Validator) -> AsyncIterator[None]:
        """Hand the payloads of others to `validator`. Raises `LocalError` for a topic that already has one."""
        name = self._prefix + topic
        if name in self._reader.validators:
            raise LocalError(f"the topic {topic} already has a subscriber")
        self._reader.validators[name] = validator
        try:
            await self._reader.subscribe(name)
            yield
        finally:
            del self._reader.validators[name]
            with trio.CancelScope(shield=True):  # it only queues the news for our peers
                await self._reader.unsubscribe(name)
