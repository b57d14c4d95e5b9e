"""Signatures that cost a microsecond: keyed BLAKE2b whose key everyone can derive from the public key.

Anyone could forge them and no simulated peer tries: what they catch is a core that signs or checks the wrong bytes.
Real Ed25519 costs a hundred times as much and would be most of a run.
"""

from __future__ import annotations

import hashlib

_SIGNATURE_BYTES = 64  # as Ed25519's


class FakeSigner:
    """Signs for the holder of `name`: a `chain.voucher.Signer` and a `p2p.protocol.wire.BodySigner`."""

    def __init__(self, name: str) -> None:
        self.public_key = public_key_of(name)

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return _signature(self.public_key, message)


def public_key_of(name: str) -> bytes:
    """32 bytes, the same for the same name."""
    return hashlib.sha256(name.encode()).digest()


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """A `chain.voucher.Verifier`."""
    return _signature(public_key, message) == signature


def verify_by_peer(peer: str, message: bytes, signature: bytes) -> bool:
    """A `p2p.protocol.wire.PeerVerifier`: here a peer's id is the name that its key is made from."""
    return verify(public_key_of(peer), message, signature)


def _signature(key: bytes, message: bytes) -> bytes:
    return hashlib.blake2b(message, key=key, digest_size=_SIGNATURE_BYTES).digest()
