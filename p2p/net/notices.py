"""libp2p's notices of who comes and goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from libp2p.abc import INotifee

Told = Callable[[Any], None]
"""What is to be done with a connection."""


def _ignore(_connection: Any) -> None: ...


class Notices(INotifee):
    """Register it with a swarm."""

    def __init__(self, *, connected: Told = _ignore, disconnected: Told = _ignore) -> None:
        self._connected = connected
        self._disconnected = disconnected

    async def connected(self, network: Any, conn: Any) -> None:
        self._connected(conn)

    async def disconnected(self, network: Any, conn: Any) -> None:
        self._disconnected(conn)

    async def opened_stream(self, network: Any, stream: Any) -> None: ...

    async def closed_stream(self, network: Any, stream: Any) -> None: ...

    async def listen(self, network: Any, multiaddr: Any) -> None: ...

    async def listen_close(self, network: Any, multiaddr: Any) -> None: ...
