"""Ed25519 by PyNaCl: the one place where a secret key is held."""

from __future__ import annotations

import secrets

from nacl.bindings import (
    crypto_sign,
    crypto_sign_BYTES,
    crypto_sign_open,
    crypto_sign_PUBLICKEYBYTES,
    crypto_sign_seed_keypair,
    crypto_sign_SEEDBYTES,
)
from nacl.exceptions import CryptoError


class Ed25519Signer:
    """A `chain.voucher.Signer` on a 32-byte seed. Its `repr` shows the public key only."""

    def __init__(self, seed: bytes) -> None:
        # libsodium's secret key is the seed with the public key behind it.
        self.public_key, self._secret_key = crypto_sign_seed_keypair(seed)

    @classmethod
    def generate(cls) -> Ed25519Signer:
        """A fresh key from the system's randomness."""
        return cls(secrets.token_bytes(crypto_sign_SEEDBYTES))

    @property
    def seed(self) -> bytes:
        """The secret, for writing it to a key file."""
        return self._secret_key[:crypto_sign_SEEDBYTES]

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return crypto_sign(message, self._secret_key)[:crypto_sign_BYTES]

    def __repr__(self) -> str:
        return f"Ed25519Signer({self.public_key.hex()})"


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is good; False for anything malformed. A `chain.voucher.Verifier`."""
    try:
        if len(public_key) != crypto_sign_PUBLICKEYBYTES or len(signature) != crypto_sign_BYTES:
            return False  # libsodium would read on behind what is too short
        crypto_sign_open(signature + message, public_key)
    except (CryptoError, ValueError, TypeError):
        return False
    return True
