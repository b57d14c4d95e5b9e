"""One role's keys and book in one file, locked by a passphrase, and how they come back.

The file is `bombyx-backup 1 ` and what `chain.sealed` makes of a MessagePack map. The book in it may be taken while its
owner is at work. A book that comes back is an old one: each of its channels is retired, because what was
signed, accepted or released on it since then is not in there.
"""

from __future__ import annotations

import secrets
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec

from chain import private_file
from chain.book import Book
from chain.errors import BookUnusable, WalletUnusable
from chain.ledger import Network
from chain.records import Role
from chain.sealed import COST, Cost, Sealed, seal

WALLET_FILE, CHANNEL_KEY_FILE, IDENTITY_FILE = KEY_FILES = ("wallet.key", "channel.key", "identity.key")
BOOK_FILE = "book.sqlite"
MAX_FILE_BYTES = 1 << 28

_HEAD = b"bombyx-backup 1 "
_KEY_FILE_MAX_BYTES = 4096


class Backup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one role keeps in its home."""

    network: Network
    role: Role
    keys: dict[str, bytes]  # those of `KEY_FILES` that there are, as they are: the wallet's stays locked in itself
    book: bytes  # the database, as SQLite serialises it; empty if there is none

    def __repr__(self) -> str:
        return f"Backup({self.network.name}, {self.role}, {sorted(self.keys)}, {len(self.book)} bytes of book)"


def take(home: Path, role: Role, network: Network) -> Backup:
    """All that is in `home` now. Raises `WalletUnusable` or `BookUnusable`."""
    try:
        present = [name for name in KEY_FILES if (home / name).exists()]
        keys = {name: private_file.read(home / name, _KEY_FILE_MAX_BYTES) for name in present}
    except OSError as error:
        raise WalletUnusable(f"cannot read the keys in {home}: {error.strerror}") from error
    return Backup(network, role, keys, _snapshot(home / BOOK_FILE))


def write(path: Path, backup: Backup, passphrase: str, cost: Cost = COST) -> None:
    """To a new file. Takes a second. Raises `WalletUnusable` if `path` exists or cannot be written."""
    text = _HEAD + seal(msgspec.msgpack.encode(backup), passphrase, cost).encode()
    if len(text) > MAX_FILE_BYTES:
        raise WalletUnusable(f"the backup would be larger than {MAX_FILE_BYTES} bytes")
    try:
        private_file.write_new(path, text)
    except FileExistsError:
        raise WalletUnusable(f"{path} exists already and is left as it is") from None
    except OSError as error:
        raise WalletUnusable(f"cannot write the backup {path}: {error.strerror}") from error


def read(path: Path, passphrase: str) -> Backup:
    """Takes a second. Raises `WalletUnusable`, alike for a wrong passphrase and for a file that was changed."""
    try:
        text = private_file.read(path, MAX_FILE_BYTES)
    except OSError as error:
        raise WalletUnusable(f"cannot read the backup {path}: {error.strerror}") from error
    sealed = Sealed.decode(text.removeprefix(_HEAD)) if text.startswith(_HEAD) else None
    if sealed is None:
        raise WalletUnusable(f"{path} is not a backup of this version, or a part of it is missing")
    content = sealed.open(passphrase)
    if content is None:
        raise WalletUnusable(f"cannot unlock {path}: the passphrase is wrong, or the file was changed")
    try:
        backup = msgspec.msgpack.decode(content, type=Backup)
    except (msgspec.DecodeError, UnicodeDecodeError):
        backup = None
    if backup is None or not set(backup.keys) <= set(KEY_FILES):
        raise WalletUnusable(f"{path} is unlocked and holds no backup: it is damaged")
    return backup


def restore(backup: Backup, home: Path, at: int) -> None:
    """Make `home`, which must not exist or be empty, hold what `backup` does: all of it or, after a crash, nothing.

    `at` is the time, unix seconds: how long a payee waits for vouchers that it has forgotten is counted from there.
    Raises `WalletUnusable` or `BookUnusable`.
    """
    draft = home.with_name(f".{home.name}.{secrets.token_hex(8)}")
    try:
        draft.mkdir(mode=0o700, parents=True)
        for name, content in backup.keys.items():
            private_file.write_new(draft / name, content)
        if backup.book:
            private_file.write_new(draft / BOOK_FILE, backup.book)
            with Book(draft / BOOK_FILE, backup.role, backup.network) as book:
                book.retire_all(at)
        private_file.sync_folder(draft)
        draft.rename(home)  # takes the place of an empty folder, and of nothing else
        private_file.sync_folder(home.parent)
    except OSError as error:
        raise WalletUnusable(f"cannot restore to {home}: {error.strerror}; it must not exist, or be empty") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _snapshot(book: Path) -> bytes:
    """The whole database as of one moment, whoever writes to it meanwhile; nothing where there is none."""
    if not book.exists():
        return b""
    try:
        with closing(sqlite3.connect(book, isolation_level=None)) as db:
            db.execute("BEGIN")
            db.execute("SELECT count(*) FROM sqlite_master").fetchone()  # the moment: readers see no later commit
            return db.serialize()
    except sqlite3.Error as error:
        raise BookUnusable(f"the book {book} cannot be copied: {error}") from error
