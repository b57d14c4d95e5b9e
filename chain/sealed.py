"""Bytes locked by a passphrase: argon2id makes the key, secretbox (XSalsa20-Poly1305) locks and authenticates.

The text form is two lines, `argon2id PASSES MEMORY_BYTES SALT` and the box: the salt is hex, the box base64 of a
24-byte nonce, a 16-byte authenticator and the ciphertext. The parameters stand in the file, so that they can be
raised; a changed one gives another key, which opens nothing.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import unicodedata
from collections.abc import Callable
from typing import NamedTuple, Self

from nacl.exceptions import CryptoError
from nacl.pwhash import argon2id
from nacl.secret import SecretBox

from chain.errors import WalletUnusable

_HEAD = re.compile(rb"argon2id ([1-9]\d{0,3}) ([1-9]\d{3,11}) ([0-9a-f]{32})\n")
_SALT_BYTES, _NONCE_BYTES, _KEY_BYTES = 16, 24, 32


class Cost(NamedTuple):
    """What one guess at the passphrase costs."""

    passes: int
    memory_bytes: int


COST = Cost(3, 1 << 28)
"""libsodium's `MODERATE`: 256 MiB, about a second."""

COST_MAX = Cost(16, 1 << 30)
"""A file that asks for more is not ours: it would stop the machine before it can be known to be false."""

COST_MIN = Cost(argon2id.OPSLIMIT_MIN, argon2id.MEMLIMIT_MIN)
"""libsodium's least: 8 KiB."""


class Sealed(NamedTuple):
    """A locked secret. Its `repr` gives nothing away that the file does not."""

    cost: Cost
    salt: bytes
    box: bytes

    def open(self, passphrase: str) -> bytes | None:
        """The secret; `None` for a wrong passphrase and for a box that was changed or cut, which look the same.

        Takes about a second. Raises `WalletUnusable` if there is too little memory.
        """
        key = _key(passphrase, self.salt, self.cost)
        try:
            return SecretBox(key).decrypt(self.box)
        except CryptoError:
            return None

    def encode(self) -> bytes:
        head = f"argon2id {self.cost.passes} {self.cost.memory_bytes} {self.salt.hex()}\n"
        return head.encode() + base64.b64encode(self.box) + b"\n"

    @classmethod
    def decode(cls, text: bytes) -> Self | None:
        """`None` for anything that `encode` did not make, and for a cost outside `COST_MIN` to `COST_MAX`."""
        head = _HEAD.match(text)
        if head is None:
            return None
        cost = Cost(int(head[1]), int(head[2]))
        # libsodium rounds memory down to KiB: another number for the same key would be another spelling.
        if cost.memory_bytes % 1024 or not all(
            low <= one <= high for low, one, high in zip(COST_MIN, cost, COST_MAX, strict=True)
        ):
            return None
        try:
            box = base64.b64decode(text[head.end() :].removesuffix(b"\n"), validate=True)
        except binascii.Error:
            return None
        sealed = cls(cost, bytes.fromhex(head[3].decode()), box)
        return sealed if sealed.encode() == text else None


def seal(
    secret: bytes, passphrase: str, cost: Cost = COST, draw: Callable[[int], bytes] = secrets.token_bytes
) -> Sealed:
    """Lock `secret`; takes about a second. `draw(n)` gives n random bytes: first the salt, then the nonce."""
    salt, nonce = draw(_SALT_BYTES), draw(_NONCE_BYTES)
    return Sealed(cost, salt, bytes(SecretBox(_key(passphrase, salt, cost)).encrypt(secret, nonce)))


def _key(passphrase: str, salt: bytes, cost: Cost) -> bytes:
    # One keyboard sends é as one character and another as two.
    typed = unicodedata.normalize("NFC", passphrase).encode()
    try:
        return argon2id.kdf(_KEY_BYTES, typed, salt, opslimit=cost.passes, memlimit=cost.memory_bytes)
    except (CryptoError, MemoryError) as error:
        needed = f"{cost.memory_bytes >> 20} MiB of memory"
        raise WalletUnusable(f"the passphrase cannot be tried here: that takes {needed}") from error
