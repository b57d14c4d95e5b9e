"""Identities: the Ed25519 seed on disk, and the libp2p peer id that its public key gives.

A peer id (libp2p's `peer-ids` specification) is base58 over a multihash of the key's protobuf. A key of at most 42
bytes is its own hash (multihash code 0, `identity`), so an Ed25519 peer id holds the public key and gives it back.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

import base58

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
        return _load(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise LocalError(f"cannot read the identity {path}: {error.strerror}") from error
    try:
        _create(path)
        return _load(path)
    except OSError as error:
        raise LocalError(f"cannot create the identity {path}: {error.strerror}") from error


def _load(path: Path) -> bytes:
    with path.open("rb") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            raise LocalError(f"others can read the identity {path}: run `chmod 600 {path}` if it is still secret")
        seed = file.read(SEED_BYTES + 1)
    if len(seed) != SEED_BYTES:
        raise LocalError(f"the identity {path} does not hold {SEED_BYTES} bytes: restore it from a backup or remove it")
    return seed


def _create(path: Path) -> None:
    """Write a fresh seed whole or not at all. If another process was faster, its seed stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(SEED_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)  # unlike a rename, a link does not replace
        except FileExistsError:
            return
        _sync_directory(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def _sync_directory(path: Path) -> None:
    """Make a new name survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
