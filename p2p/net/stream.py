"""`p2p.host.Stream` over a libp2p stream, and how streams are served."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import Any

import trio
from libp2p.connection_types import ConnectionType
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedStreamClosed, MuxedStreamEOF, MuxedStreamError

from p2p.errors import Error, LocalError, RemoteError, Unavailable
from p2p.host import HANDLER_TIMEOUT_S
from p2p.net.address_group import address_group

OPEN_TIMEOUT_S = 10.0
DRAIN_TIMEOUT_S = 10.0

Blame = Callable[[str, str], None]
"""(peer, what it did wrong)"""

_log = logging.getLogger(__name__)


class Libp2pStream:
    """Bytes go straight to our muxed stream; closing goes through libp2p, which counts streams."""

    def __init__(self, net_stream: Any) -> None:
        self._net = net_stream
        self._muxed = net_stream.muxed_stream

    @cached_property
    def peer(self) -> str:
        return str(self._net.muxed_conn.peer_id)

    @property
    def source(self) -> str:
        return address_group(self.remote_ip) if self.remote_ip else relay_of(self._net.muxed_conn)

    @property
    def relayed(self) -> bool:
        """Whether its connection runs through a relay."""
        return is_relayed(self._net.muxed_conn)

    @property
    def remote_ip(self) -> str | None:
        """Where the peer's connection comes from; not known through a relay."""
        address = self._net.muxed_conn.get_remote_address()
        return str(address[0]) if address else None

    async def read(self, max_bytes: int) -> bytes:
        if max_bytes < 1:
            raise LocalError(f"a read of {max_bytes} bytes")
        try:
            data: bytes = await self._muxed.read(max_bytes)
        except MuxedStreamEOF:
            return b""
        except MuxedStreamError as error:
            raise Unavailable(f"the stream to {self.peer} broke: {error}") from error
        return data

    async def write(self, data: bytes) -> None:
        """As the seam has it; after a cancelled write the peer may have got a prefix. `LocalError` after `close`."""
        try:
            await self._muxed.write(data)
        except MuxedStreamClosed as error:
            raise LocalError("a write to a stream that we closed") from error
        except MuxedStreamError as error:
            raise Unavailable(f"the stream to {self.peer} broke: {error}") from error

    async def close(self) -> None:
        with trio.CancelScope(shield=True):  # nothing in it waits for the peer
            await self._net.close()

    async def reset(self) -> None:
        with trio.CancelScope(shield=True):
            await self._net.reset()

    async def drain(self, timeout_s: float) -> None:
        """Close, and swallow what the peer still sends until it closes too; reset the stream if that takes longer.

        A reset at once could overtake what we wrote last and drop it.
        """
        await self.close()
        with trio.move_on_after(timeout_s):
            try:
                while await self.read(65536):
                    pass
            except Unavailable:
                pass
            return
        await self.reset()


def is_relayed(connection: Any) -> bool:
    """Whether a connection of libp2p's runs through a relay."""
    return bool(connection.get_connection_type() is ConnectionType.RELAYED)


def relay_of(connection: Any) -> str:
    """The peer id of the relay that a connection of libp2p's runs through."""
    (address, *_) = connection.get_transport_addresses()
    return str(address).partition("/p2p-circuit")[0].rpartition("/p2p/")[2]


async def open_stream(host: Any, peer_id: ID, protocol: str, timeout_s: float = OPEN_TIMEOUT_S) -> Libp2pStream:
    """Over a connection that there is. Raises `Unavailable`."""
    try:
        with trio.fail_after(timeout_s):
            return Libp2pStream(await host.new_stream(peer_id, [TProtocol(protocol)]))
    except trio.TooSlowError as error:
        raise Unavailable(f"cannot open {protocol} to {peer_id}: it took too long") from error
    except Exception as error:  # the library's
        raise Unavailable(f"cannot open {protocol} to {peer_id}: {error}") from error


def local_port(connection: Any) -> int:
    """The port of ours that a connection of our own, without a relay, uses."""
    return int(connection.muxed_conn.raw.stream.stream.socket.getsockname()[1])


def serve(
    host: Any,
    protocol: str,
    handler: Callable[[Libp2pStream], Awaitable[None]],
    blame: Blame,
    *,
    timeout_s: float = HANDLER_TIMEOUT_S,
) -> None:
    """Hand every inbound stream of `protocol` to `handler`. What it raises ends that stream only.

    `blame` is told of every `RemoteError`, with the peer whose stream it was.
    """

    async def serve_one(net_stream: Any) -> None:
        stream = Libp2pStream(net_stream)
        try:
            with trio.fail_after(timeout_s):
                await handler(stream)
        except trio.TooSlowError:
            _log.debug("a stream of %s from %s took too long", protocol, stream.peer)
            await stream.reset()
        except Error as error:
            _log.debug("a stream of %s from %s: %s", protocol, stream.peer, error)
            await stream.reset()
            if isinstance(error, RemoteError):
                blame(stream.peer, str(error))
        except Exception:
            _log.exception("the handler of %s failed", protocol)
            await stream.reset()
        else:
            await stream.drain(DRAIN_TIMEOUT_S)

    host.set_stream_handler(TProtocol(protocol), serve_one)
