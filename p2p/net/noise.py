"""Our Noise session: libp2p's own handshake (XX), then bulk reads and one socket write for everything queued.

libp2p 0.8.1's session reads the two-byte length and the body of every message apart, sends every message apart, and
spends a nonce before it waits for the socket. So it is slow, and a cancelled write leaves the two ends' nonces apart
without either knowing: the connection dies later, of a bad tag. This one is plugged in through the public `sec_opt`.
"""

from __future__ import annotations

from typing import Any

import trio
from libp2p.abc import IRawConnection
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.security.base_session import BaseSession
from libp2p.security.noise.transport import PROTOCOL_ID as PROTOCOL_ID
from libp2p.security.noise.transport import Transport
from libp2p.security.secure_session import SecureSession
from noise.exceptions import NoiseInvalidMessage

_LENGTH_BYTES = 2
_MAX_PLAIN_BYTES = 65535 - 16  # a message's length has 16 bits, its tag 16 bytes
_RECEIVE_BYTES = 65536


class NoiseSession(BaseSession):
    """An encrypted channel over `raw`. It starts no task of its own.

    Reads may be cancelled at any point. A write that is cancelled half way ends the session, because part of a message
    may be on the wire: so one task writes, and is cancelled only with the connection (`p2p.net.muxer`). At most one
    receive and one message wait to be read.
    """

    def __init__(self, shaken: SecureSession, raw: IRawConnection) -> None:
        """Take over from `shaken`, the session that libp2p made of `raw` by a completed handshake."""
        super().__init__(
            local_peer=shaken.local_peer,
            local_private_key=shaken.local_private_key,
            remote_peer=shaken.remote_peer,
            remote_permanent_pubkey=shaken.remote_permanent_pubkey,
            is_initiator=shaken.is_initiator,
        )
        self.raw = raw
        self._socket = _socket_of(raw)
        self._ciphers = shaken.conn.noise_state
        self._sealed = bytearray()
        self._plain = bytearray()
        self._write_cut = False

    async def read(self, n: int | None = None) -> bytes:
        """1 to `n` bytes, or all that is there. Raises `ConnectionClosedError` at the end and for a bad tag."""
        if n == 0:
            return b""
        while not self._plain:
            await self._receive()
        data = bytes(self._plain if n is None else self._plain[:n])
        del self._plain[: len(data)]
        return data

    async def write(self, data: bytes) -> None:
        """Send all of `data`. Raises `ConnectionClosedError`, always so after a write that was cut off."""
        if self._write_cut:
            raise ConnectionClosedError("an earlier write was cut off")
        try:
            await self._socket.send_all(self._seal(data))
        except BaseException:
            self._write_cut = True  # part of it may be on the wire, and the nonces are spent
            raise

    async def close(self) -> None:
        await self.raw.close()

    async def _receive(self) -> None:
        chunk = await self._socket.receive_some(_RECEIVE_BYTES)
        if not chunk:
            raise ConnectionClosedError("the peer closed the connection")
        self._sealed += chunk
        try:
            self._open_messages()
        except NoiseInvalidMessage as error:
            await self.close()
            raise ConnectionClosedError("a message with a bad tag") from error

    def _open_messages(self) -> None:
        """Decrypt every whole message in `_sealed`."""
        sealed, start = self._sealed, 0
        while len(sealed) - start >= _LENGTH_BYTES:
            body = start + _LENGTH_BYTES
            end = body + int.from_bytes(sealed[start:body], "big")
            if len(sealed) < end:
                break
            with memoryview(sealed) as view:
                message = bytes(view[body:end])
            self._plain += self._ciphers.decrypt(message)
            start = end
        del sealed[:start]

    def _seal(self, data: bytes) -> bytes:
        parts = []
        for start in range(0, len(data), _MAX_PLAIN_BYTES):
            message = self._ciphers.encrypt(data[start : start + _MAX_PLAIN_BYTES])
            parts += [len(message).to_bytes(_LENGTH_BYTES, "big"), message]
        return b"".join(parts)

    # Part of libp2p's interface; its types are opaque to us, so these hand on what the layer below says.

    def get_remote_address(self) -> Any:
        return self.raw.get_remote_address()

    def get_transport_addresses(self) -> Any:
        return self.raw.get_transport_addresses()

    def get_connection_type(self) -> Any:
        return self.raw.get_connection_type()


class _Socket:
    """Any of libp2p's raw connections as a session reads and writes it."""

    def __init__(self, raw: IRawConnection) -> None:
        self.receive_some = raw.read
        self.send_all = raw.write


class _TcpSocket:
    """The socket below a raw connection, past two of libp2p's locks.

    Each costs a turn of the scheduler whenever something is read or written, and here one task reads and one writes.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream

    async def receive_some(self, max_bytes: int) -> bytes:
        try:
            return bytes(await self._stream.receive_some(max_bytes))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectionClosedError(str(error)) from error

    async def send_all(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectionClosedError(str(error)) from error


def _socket_of(raw: IRawConnection) -> _Socket | _TcpSocket:
    if type(raw) is RawConnection and isinstance(raw.stream, TrioTCPStream):  # anything derived may do more
        return _TcpSocket(raw.stream.stream)
    return _Socket(raw)


class NoiseTransport(Transport):
    """The `sec_opt` value for `PROTOCOL_ID`. Its static key is fresh; the handshake binds it to the identity."""

    def __init__(self, key_pair: KeyPair) -> None:
        super().__init__(key_pair, noise_privkey=create_new_key_pair().private_key)

    async def secure_inbound(self, conn: IRawConnection) -> NoiseSession:
        return NoiseSession(await super().secure_inbound(conn), conn)

    async def secure_outbound(self, conn: IRawConnection, peer_id: ID) -> NoiseSession:
        return NoiseSession(await super().secure_outbound(conn, peer_id), conn)
