"""Identities: the Ed25519 seed on disk, and the libp2p peer id that its public key gives.

A peer id (libp2p's `peer-ids` specification) is base58 over a multihash of the key's protobuf. A key of at most 42
bytes is its own hash (multihash code 0, `identity`), so an Ed25519 peer id holds the public key and gives it back.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path

import base58

from chain import private_file
from chain.keys import verify
from p2p.errors import LocalError, RemoteError

SEED_BYTES = 32
_PUBLIC_KEY_BYTES = 32
# Multihash: identity (0x00), 36 bytes. Protobuf: field 1, type Ed25519 (08 01); field 2, 32 bytes of key (12 20).
_PREFIX = bytes.fromhex("002408011220")
_MAX_PEER_ID_CHARACTERS = 64  # an Ed25519 id has 52; decoding is quadratic, so junk is refused by its length


def peer_id_of(public_key: bytes) -> str:
    """The peer id of a 32-byte Ed25519 public key."""
    if len(public_key) != _PUBLIC_KEY_BYTES:
        raise LocalError(f"an Ed25519 public key has {_PUBLIC_KEY_BYTES} bytes, not {len(public_key)}")
    encoded: bytes = base58.b58encode(_PREFIX + public_key)
    return encoded.decode("ascii")


def public_key_of(peer_id: str) -> bytes:
    """The 32-byte key inside a peer id. Raises `RemoteError("bad_peer_id")` for anything but an Ed25519 id."""
    if len(peer_id) > _MAX_PEER_ID_CHARACTERS:
        raise RemoteError("bad_peer_id", "too long")
    try:
        decoded = base58.b58decode(peer_id)
    except ValueError as error:
        raise RemoteError("bad_peer_id", "not base58") from error
    if not decoded.startswith(_PREFIX) or len(decoded) != len(_PREFIX) + _PUBLIC_KEY_BYTES:
        raise RemoteError("bad_peer_id", "not an Ed25519 key")
    return bytes(decoded[len(_PREFIX) :])


def verify_by_peer(peer: str, message: bytes, signature: bytes) -> bool:
    """Whether the holder of `peer`'s identity signed `message`. False for a malformed id or signature, never raises."""
    try:
        return verify(public_key_of(peer), message, signature)
    except RemoteError:
        return False


def load_or_create_seed(path: Path) -> bytes:
    """The 32-byte seed at `path`, made on first use and readable by its owner only.

    Raises `LocalError` for a file that others can read or that holds anything else, and if it cannot be made.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Whoever was faster has made it: that seed stays.
        with suppress(FileExistsError):
            if not path.exists():
                private_file.write_new(path, secrets.token_bytes(SEED_BYTES))
        seed = private_file.read(path, SEED_BYTES)
    except OSError as error:
        raise LocalError(f"cannot use the identity {path}: {error.strerror}") from error
    if len(seed) != SEED_BYTES:
        raise LocalError(f"the identity {path} does not hold {SEED_BYTES} bytes: restore it from a backup or remove it")
    return seed
