"""libp2p's TCP, which dials no address that somebody else could have made up to make us knock at our neighbours.

What peers say of each other's addresses is hearsay. On a public network none of it may lead into this machine or this
site. The check stands below the look-up of names and below everything that dials, the library's own parts included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from libp2p.abc import IRawConnection
from libp2p.transport.exceptions import OpenConnectionError
from libp2p.transport.tcp.tcp import TCP
from multiaddr import Multiaddr

from p2p.protocol.addresses import Address, parse

_TOLD = ContextVar("told", default=False)


@contextmanager
def told_to_dial() -> Iterator[None]:
    """What is dialled in here was named by our operator, and may be anywhere."""
    token = _TOLD.set(True)
    try:
        yield
    finally:
        _TOLD.reset(token)


class Tcp(TCP):
    """`may_dial` is asked for every address before it is dialled."""

    def __init__(self, may_dial: Callable[[Address], bool]) -> None:
        super().__init__()
        self._may_dial = may_dial

    async def _dial_resolved(self, maddr: Multiaddr, source: Any = None) -> IRawConnection:
        if not _TOLD.get() and not self._may_dial(parse(str(maddr).partition("/p2p/")[0])):
            raise OpenConnectionError(f"{maddr} is private, and the network is not")
        connection: IRawConnection = await super()._dial_resolved(maddr, source)
        return connection
