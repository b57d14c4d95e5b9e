"""Core: signed cumulative claims on a channel.

A claim is 48 bytes, `tag:u32 | global_id:i32 | channel:256 | amount:u64`, big-endian. On chain it is a cell of those
384 bits without references, whose hash is SHA-256 over the two descriptor bytes `00 60` and the 48 bytes, so both
sides hash it without building a cell. What is signed (Ed25519) is that hash. See contract/channel.tolk, `Claim`.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from typing import Protocol

import msgspec

VOUCHER_TAG = 0x564F5543  # "VOUC": the payer lets the payee have `amount` in all
RELEASE_TAG = 0x52454C45  # "RELE": the payee lets the payer close at `amount` in all

_CLAIM = struct.Struct(">Ii32sQ")
_CELL = struct.Struct(">2s" + _CLAIM.format[1:])
_CELL_DESCRIPTORS = b"\x00\x60"  # no references; 48 whole bytes, counted in half bytes


class Signer(Protocol):
    """An Ed25519 key that can be used and not read."""

    @property
    def public_key(self) -> bytes:
        """32 bytes."""
        ...

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        ...


Verifier = Callable[[bytes, bytes, bytes], bool]
"""(public key, message, signature) -> whether the signature is good. Never raises."""


class Claim(msgspec.Struct, frozen=True):
    """`amount_nano` in all since the channel opened, signed; a voucher or a release by the tag it was signed under."""

    channel: bytes
    amount_nano: int
    signature: bytes


def claim_bytes(tag: int, global_id: int, channel: bytes, amount_nano: int) -> bytes:
    """The 48 bytes of a claim's cell."""
    return _CLAIM.pack(tag, global_id, channel, amount_nano)


def claim_hash(tag: int, global_id: int, channel: bytes, amount_nano: int) -> bytes:
    """The 32 bytes that are signed: the hash of the claim's cell."""
    return hashlib.sha256(_CELL.pack(_CELL_DESCRIPTORS, tag, global_id, channel, amount_nano)).digest()


def sign_claim(signer: Signer, tag: int, global_id: int, channel: bytes, amount_nano: int) -> Claim:
    """Sign for `amount_nano` in all."""
    return Claim(channel, amount_nano, signer.sign(claim_hash(tag, global_id, channel, amount_nano)))


def claim_is_good(verify: Verifier, public_key: bytes, tag: int, global_id: int, claim: Claim) -> bool:
    """Whether `public_key` signed this claim under this tag for this network. False for anything malformed."""
    if len(claim.channel) != 32 or len(claim.signature) != 64 or not 0 <= claim.amount_nano < 1 << 64:
        return False
    return verify(public_key, claim_hash(tag, global_id, claim.channel, claim.amount_nano), claim.signature)
