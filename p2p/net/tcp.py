"""libp2p's TCP, which dials nobody whom strangers made up, and can dial from a port that is known.

What peers say of each other's addresses is hearsay. On a public network none of it may lead into this machine or this
site. The check stands below the look-up of names and below everything that dials, the library's own parts included.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import trio
from libp2p.abc import IRawConnection
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.transport.exceptions import OpenConnectionError
from libp2p.transport.tcp.tcp import TCP
from multiaddr import Multiaddr

from p2p.protocol.addresses import Address, Reach, parse, reach_of

_TOLD = ContextVar("told", default=False)
_TAKEN = {errno.EADDRINUSE, errno.EADDRNOTAVAIL}  # an earlier connection to the same place may linger


@contextmanager
def told_to_dial() -> Iterator[None]:
    """What is dialled in here was named by our operator, and may be anywhere."""
    token = _TOLD.set(True)
    try:
        yield
    finally:
        _TOLD.reset(token)


class Tcp(TCP):
    """`may_dial` is asked for every address before it is dialled, unless the operator named it.

    Whom the operator named, somewhere in the world, is dialled from `own_port`, once that is set: then what it sees of
    our address is where a router lets others' answers in.
    """

    def __init__(self, may_dial: Callable[[Address], bool]) -> None:
        super().__init__()
        self.own_port = 0
        self._may_dial = may_dial

    async def _dial_resolved(self, maddr: Multiaddr, source: Any = None) -> IRawConnection:
        address = parse(str(maddr).partition("/p2p/")[0])
        if not _TOLD.get() and not self._may_dial(address):
            raise OpenConnectionError(f"{maddr} is private, and the network is not")
        if _TOLD.get() and self.own_port and reach_of(address) is Reach.WORLD:
            try:
                return raw(await connect_from(self.own_port, address), initiator=True)
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise OpenConnectionError(f"cannot connect to {address}: {error}") from error
        connection: IRawConnection = await super()._dial_resolved(maddr, source)
        return connection


async def connect_from(port: int, address: Address) -> trio.SocketStream:
    """Connect from a port of ours, on which we may be listening at the same time. Raises `OSError`."""
    family = socket.AF_INET6 if address.kind == "ip6" else socket.AF_INET
    ours = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        await _bind(ours, port)
        await ours.connect((address.host, address.port))
    except BaseException:
        ours.close()
        raise
    return trio.SocketStream(ours)


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port for `connect_from`, of one who listens nowhere. Nobody else is given it meanwhile."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as holder:
        _share(holder)
        holder.bind(("", 0))
        yield holder.getsockname()[1]


async def _bind(ours: Any, port: int) -> None:
    _share(ours)
    await ours.bind(("::" if ours.family == socket.AF_INET6 else "0.0.0.0", port))  # noqa: S104 - it does not listen


def _share(ours: Any) -> None:
    """As libp2p's listeners do."""
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def raw(stream: trio.SocketStream, *, initiator: bool) -> RawConnection:
    """A connected socket as libp2p takes it."""
    return RawConnection(TrioTCPStream(stream), initiator)
