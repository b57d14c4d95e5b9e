"""`p2p.host.Stream` over a libp2p stream."""

from __future__ import annotations

from typing import Any

import trio
from libp2p.stream_muxer.exceptions import MuxedStreamClosed, MuxedStreamEOF, MuxedStreamError

from p2p.errors import LocalError, Unavailable


class Libp2pStream:
    """Bytes go straight to our muxed stream; closing goes through libp2p, which counts streams."""

    def __init__(self, net_stream: Any) -> None:
        self._net = net_stream
        self._muxed = net_stream.muxed_stream

    @property
    def peer(self) -> str:
        return str(self._net.muxed_conn.peer_id)

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
