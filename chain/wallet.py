"""The wallet's key: an Ed25519 seed in a file that only its owner can read.

This version keeps the seed unencrypted, as a line `bombyx-wallet 1 <64 hex digits>` in a file of mode 0600. The
number is the format's version: an encrypted file will bear another one.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from pathlib import Path

from chain.errors import WalletUnusable
from chain.keys import Ed25519Signer
from chain.ledger import Network

WALLET_MARGIN_NANO = 10_000_000
"""What a wallet must hold beyond the value it sends, for its own fees: some times what they are today."""

_LINE = re.compile(rb"bombyx-wallet 1 ([0-9a-f]{64})\n")


class WalletKey(Ed25519Signer):
    """The key of a W5 wallet. Its `repr` shows the public key only."""

    def address(self, network: Network) -> str:
        """The raw address of this key's W5 (WalletV5R1) wallet, which is another one on each network."""
        from chain.w5 import wallet_address

        return wallet_address(self.public_key, network.global_id)

    def __repr__(self) -> str:
        return f"WalletKey({self.public_key.hex()})"


def create(path: Path) -> WalletKey:
    """A fresh key, written to a new file. The file is there whole or not at all, and never replaces another.

    Raises `WalletUnusable` if `path` exists or cannot be written.
    """
    key = WalletKey(secrets.token_bytes(32))
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        _write(draft, b"bombyx-wallet 1 %s\n" % key.seed.hex().encode())
        try:
            # A link, not a rename: it refuses to replace what is there.
            path.hardlink_to(draft)
        finally:
            draft.unlink()
        _sync_directory(path.parent)
    except FileExistsError:
        raise WalletUnusable(f"{path} exists already and is left as it is") from None
    except OSError as error:
        raise WalletUnusable(f"cannot write the wallet file {path}: {error.strerror}") from error
    return key


def load(path: Path) -> WalletKey:
    """The key in `path`. Raises `WalletUnusable` if it is missing, damaged, or open to others than its owner."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(256)
    except OSError as error:
        raise WalletUnusable(f"cannot read the wallet file {path}: {error.strerror}") from error
    if mode & 0o077:
        raise WalletUnusable(f"{path} is open to others (mode {mode:04o}): run `chmod 600` on it")
    line = _LINE.fullmatch(content)
    if not line:
        raise WalletUnusable(f"{path} is not a wallet file of this version")
    return WalletKey(bytes.fromhex(line[1].decode()))


def _write(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
