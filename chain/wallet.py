"""The wallet's key: 24 words in a file that only its owner can read, locked by a passphrase where money is real.

A wallet file is text. Its first line begins with `bombyx-wallet 2` and goes on with how it is protected:

- `argon2id …`: by a passphrase, see `chain.sealed`;
- `devnet`: not at all, because a devnet's money is play money. Such a key is refused on any other network: a W5 order
  names the network by its global id alone, a devnet has mainnet's, and so one is as good on the other;
- `plain`: not at all, because its owner said so.

The secret is the words, or 64 hex digits of an Ed25519 seed for a key that was made without words. Version 1 was
`bombyx-wallet 1` and such digits in one line, and is read as `devnet`.
"""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from chain import mnemonic, private_file
from chain.errors import WalletUnusable
from chain.keys import Ed25519Signer
from chain.ledger import Network
from chain.mnemonic import Words
from chain.sealed import COST, Cost, Sealed, seal

WALLET_MARGIN_NANO = 10_000_000
"""What a wallet must hold beyond the value it sends, for its own fees: some times what they are today."""

DEVNET = "devnet"
MAX_FILE_BYTES = 4096

_HEAD = b"bombyx-wallet 2 "
_BARE = re.compile(rb"(devnet|plain)\n([^\n]*)\n")
_VERSION_1 = re.compile(rb"bombyx-wallet 1 ([0-9a-f]{64})\n")


class Bare(Enum):
    """Why a wallet file is not locked."""

    DEVNET = b"devnet"
    BY_CHOICE = b"plain"


Lock = str | Bare
"""A passphrase, or why there is none."""


class WalletKey(Ed25519Signer):
    """The key of a W5 wallet, and the words that it was made from, if there are any. Its `repr` shows neither."""

    def __init__(self, seed: bytes, words: Words = ()) -> None:
        super().__init__(seed)
        self.words = words

    @classmethod
    def from_words(cls, words: Words) -> WalletKey:
        """`words` as `chain.mnemonic` gives them."""
        return cls(mnemonic.seed(words), words)

    def address(self, network: Network) -> str:
        """The raw address of this key's W5 (WalletV5R1) wallet, which is another one for each global id."""
        from chain.w5 import wallet_address

        return wallet_address(self.public_key, network.global_id)

    def __repr__(self) -> str:
        return f"WalletKey({self.public_key.hex()})"


class WalletFile(NamedTuple):
    """A wallet file that was read and not unlocked yet."""

    path: Path
    protection: Sealed | Bare
    secret: bytes  # empty while it is locked

    @property
    def locked(self) -> bool:
        """Whether it takes a passphrase."""
        return isinstance(self.protection, Sealed)

    def check_fits(self, network: Network) -> None:
        """Raises `WalletUnusable` for a devnet's bare key where money is real."""
        if self.protection is Bare.DEVNET and network.name != DEVNET:
            raise WalletUnusable(
                f"{self.path} was made for a devnet and has no passphrase: it is not used on {network.name} without one"
            )

    def unlock(self, passphrase: str = "") -> WalletKey:
        """The key; takes a second where it is locked.

        Raises `WalletUnusable`, in the same words for a wrong passphrase and for a file that was tampered with.
        """
        secret = self.protection.open(passphrase) if isinstance(self.protection, Sealed) else self.secret
        if secret is None:
            raise WalletUnusable(f"cannot unlock {self.path}: the passphrase is wrong, or the file was changed")
        return _key(secret, self.path)

    def __repr__(self) -> str:
        return f"WalletFile({str(self.path)!r}, locked={self.locked})"


def create(path: Path, lock: Lock, cost: Cost = COST) -> WalletKey:
    """A fresh key with fresh words, in a new file. Raises as `store` does."""
    return store(path, WalletKey.from_words(mnemonic.generate()), lock, cost)


def store(path: Path, key: WalletKey, lock: Lock, cost: Cost = COST) -> WalletKey:
    """Write `key` to a new file, which is there whole or not at all and never replaces another.

    Raises `WalletUnusable` if `path` exists or cannot be written.
    """
    try:
        private_file.write_new(path, _text(key, lock, cost))
    except FileExistsError:
        raise WalletUnusable(f"{path} exists already and is left as it is") from None
    except OSError as error:
        raise WalletUnusable(f"cannot write the wallet file {path}: {error.strerror}") from error
    return key


def relock(path: Path, key: WalletKey, lock: Lock, cost: Cost = COST) -> None:
    """Write `key` over the file that it came from. A crash leaves the old file or the new one. Raises as `store`."""
    try:
        private_file.replace(path, _text(key, lock, cost))
    except OSError as error:
        raise WalletUnusable(f"cannot write the wallet file {path}: {error.strerror}") from error


def read(path: Path) -> WalletFile:
    """The file at `path`. Raises `WalletUnusable` if it is missing, damaged, or open to others than its owner."""
    try:
        content = private_file.read(path, MAX_FILE_BYTES)
    except OSError as error:
        raise WalletUnusable(f"cannot use the wallet file {path}: {error.strerror}") from error
    if old := _VERSION_1.fullmatch(content):
        return WalletFile(path, Bare.DEVNET, old[1])
    rest = content.removeprefix(_HEAD)
    sealed, bare = Sealed.decode(rest), _BARE.fullmatch(rest)
    if rest == content or not (sealed or bare):
        raise WalletUnusable(f"{path} is not a wallet file of this version, or a part of it is missing")
    if sealed:
        return WalletFile(path, sealed, b"")
    assert bare
    return WalletFile(path, Bare(bare[1]), bare[2])


def _text(key: WalletKey, lock: Lock, cost: Cost) -> bytes:
    secret = (" ".join(key.words) or key.seed.hex()).encode()
    if isinstance(lock, Bare):
        return b"%s%s\n%s\n" % (_HEAD, lock.value, secret)
    return _HEAD + seal(secret, lock, cost).encode()


def _key(secret: bytes, path: Path) -> WalletKey:
    try:
        if len(secret) == 64:
            return WalletKey(bytes.fromhex(secret.decode()))
        return WalletKey.from_words(mnemonic.parse(secret.decode()))
    except (ValueError, WalletUnusable):
        raise WalletUnusable(f"{path} is unlocked and holds no key: it is damaged") from None
