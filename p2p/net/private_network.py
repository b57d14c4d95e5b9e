"""A private network: all that passes runs under a cipher whose key its members share (libp2p's PNET, version 1).

Each side of a connection says a nonce, and what it says from then on is XSalsa20 under the network's key, with Noise
inside as ever. The key keeps others out: what they say makes no sense here, and nothing that is said here makes sense
to them. It proves nothing else, neither who somebody is nor that bytes are whole; Noise does that.

Fault of libp2p 0.8.1: its own takes Salsa20, which has a nonce of 8 bytes, and so no other libp2p understands it.
"""

from __future__ import annotations

import secrets
import struct
from typing import Any

from Crypto.Cipher import Salsa20
from libp2p.io.exceptions import ConnectionClosedError, IOException
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.transport.exceptions import SecurityUpgradeFailure

NONCE_BYTES = 24
_BLOCK_BYTES = 64
_HELLO = b"\x13/multistream/1.0.0\n"  # what either side of a libp2p connection says first


class ProtectedConnection(RawConnection):
    """A connection under the cipher, in the place of the one that it was made of.

    Reads may be cancelled at any point; a write that is cut off ends the connection, as for the session above it.
    """

    def __init__(self, raw: RawConnection, key: bytes) -> None:
        """The cipher's `key` has 32 bytes. Nothing may be written before `begin`."""
        super().__init__(raw.stream, raw.is_initiator, raw.get_connection_type(), raw.get_transport_addresses())
        self.has_other_key = False
        self._key = key
        self._nonce = secrets.token_bytes(NONCE_BYTES)
        self._sealing = xsalsa20(key, self._nonce)
        self._their_nonce = b""
        self._opening: Salsa20.Salsa20Cipher | None = None
        self._expected = _HELLO

    async def begin(self) -> None:
        """Say our nonce, without waiting for theirs: some wait for the other side's."""
        await super().write(self._nonce)

    async def write(self, data: bytes) -> None:
        await super().write(self._sealing.encrypt(data))

    async def read(self, n: int | None = None) -> bytes:
        """Raises `ConnectionClosedError` where the other side has no key, or another."""
        opening = self._opening or await self._hear_nonce()
        data = opening.decrypt(await super().read(n))
        expected, self._expected = self._expected[: len(data)], self._expected[len(data) :]
        if not data.startswith(expected):
            self._refuse()
        return data

    async def _hear_nonce(self) -> Salsa20.Salsa20Cipher:
        while len(self._their_nonce) < NONCE_BYTES:
            data = await super().read(NONCE_BYTES - len(self._their_nonce))
            if not data:
                raise ConnectionClosedError("the peer closed the connection before its nonce was whole")
            self._their_nonce += data
            if self._their_nonce.startswith(_HELLO):  # it waits for ours, and will say no more
                self._refuse()
        self._opening = xsalsa20(self._key, self._their_nonce)
        return self._opening

    def _refuse(self) -> None:
        self.has_other_key = True
        raise ConnectionClosedError("not a member of this private network")


def make_private(network: Any, key: bytes) -> None:
    """Have a swarm that does not run yet deal with holders of the `key` (32 bytes) alone, by whatever transport."""
    upgrade = network.upgrader.upgrade_security

    async def upgrade_members(raw: RawConnection, is_initiator: bool, peer_id: ID | None = None) -> Any:
        protected = ProtectedConnection(raw, key)
        try:
            await protected.begin()
            return await upgrade(protected, is_initiator, peer_id)
        except Exception as error:
            if protected.has_other_key:
                raise SecurityUpgradeFailure("it is not a member of this private network") from None
            if isinstance(error, IOException):
                raise SecurityUpgradeFailure("the connection ended at its beginning") from error
            raise

    network.upgrader.upgrade_security = upgrade_members


def xsalsa20(key: bytes, nonce: bytes) -> Salsa20.Salsa20Cipher:
    """The cipher with a key of 32 and a nonce of 24 bytes; what it encrypts continues where it left off.

    Bernstein, "Extending the Salsa20 nonce": Salsa20 under a key that HSalsa20 makes of the nonce's first 16 bytes.
    That key is Salsa20's block for these bytes in the place of nonce and counter, as far as the words on its diagonal
    and those of these bytes go, less what they were to begin with, which Salsa20 adds in the end.
    """
    block_of = Salsa20.new(key, nonce[:8])
    block_of.seek(_BLOCK_BYTES * int.from_bytes(nonce[8:16], "little"))
    block = struct.unpack("<16I", block_of.encrypt(bytes(_BLOCK_BYTES)))
    begun_with = struct.unpack("<8I", b"expand 32-byte k" + nonce[:16])
    words = (block[at] - word & 0xFFFFFFFF for at, word in zip((0, 5, 10, 15, 6, 7, 8, 9), begun_with, strict=True))
    return Salsa20.new(struct.pack("<8I", *words), nonce[16:])
