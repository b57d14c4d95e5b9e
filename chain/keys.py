"""Ed25519 by PyNaCl: the one place where a secret key is held."""

from __future__ import annotations

from nacl.exceptions import CryptoError
from nacl.signing import SigningKey, VerifyKey


class Ed25519Signer:
    """A `chain.voucher.Signer` on a 32-byte seed. Its `repr` shows the public key only."""

    def __init__(self, seed: bytes) -> None:
        self._key = SigningKey(seed)
        self.public_key = bytes(self._key.verify_key)

    @classmethod
    def generate(cls) -> Ed25519Signer:
        """A fresh key from the system's randomness."""
        return cls(bytes(SigningKey.generate()))

    @property
    def seed(self) -> bytes:
        """The secret, for writing it to a key file."""
        return bytes(self._key)

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return self._key.sign(message).signature

    def __repr__(self) -> str:
        return f"Ed25519Signer({self.public_key.hex()})"


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is good; False for anything malformed. A `chain.voucher.Verifier`."""
    try:
        VerifyKey(public_key).verify(message, signature)
    except (CryptoError, ValueError, TypeError):
        return False
    return True
