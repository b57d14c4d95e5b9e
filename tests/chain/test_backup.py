"""A backup brings back keys and book, whole or not at all, and the book knows that it is an old one."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from chain import backup, private_file, wallet
from chain.backup import Backup
from chain.book import Book
from chain.channel import State
from chain.errors import BookUnusable, ChannelUnusable, NetworkMismatch, WalletUnusable
from chain.ledger import ChannelTerms, Network
from chain.sealed import COST_MIN, seal
from chain.voucher import Claim
from chain.wallet import Bare, WalletKey

DEVNET = Network("devnet", -239)
PASSPHRASE = "correct horse"
KEY = WalletKey(bytes(range(32)))
AT = 1_800_000_000
CHANNELS = [bytes([number]) * 32 for number in range(3)]

CRASHES = """
import os, pathlib, sys
from chain import backup
saved = backup.read(pathlib.Path(sys.argv[1]), "correct horse")
setattr(pathlib.Path, "rename", lambda *_: os.kill(os.getpid(), 9))
backup.restore(saved, pathlib.Path(sys.argv[2]), 0)
"""


def terms(salt: bytes) -> ChannelTerms:
    return ChannelTerms(
        payer="0:" + "aa" * 32,
        payee="0:" + "bb" * 32,
        payer_key=b"\1" * 32,
        payee_key=b"\2" * 32,
        challenge_period_s=3600,
        open_before=2_000_000_000,
        salt=salt,
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A client's, with two channels, one of them closed."""
    home = tmp_path / "client"
    home.mkdir()
    wallet.store(home / "wallet.key", KEY, Bare.DEVNET)
    private_file.write_new(home / "channel.key", b"c" * 32)
    private_file.write_new(home / "identity.key", b"i" * 32)
    with Book(home / "book.sqlite", "payer", DEVNET) as book:
        for channel in CHANNELS[:2]:
            book.add_channel(channel, terms(channel), "peer")
            book.save_claim(Claim(channel, 300, b"s" * 64))
        book.save_state(CHANNELS[1], State.CLOSED)
    return home


@pytest.fixture
def file(home: Path, tmp_path: Path) -> Path:
    file = tmp_path / "bombyx.backup"
    backup.write(file, backup.take(home, "payer", DEVNET), PASSPHRASE, COST_MIN)
    return file


def test_what_was_saved_comes_back(home: Path, file: Path, tmp_path: Path) -> None:
    new = tmp_path / "elsewhere" / "client"
    backup.restore(backup.read(file, PASSPHRASE), new, AT)
    assert wallet.read(new / "wallet.key").unlock().seed == KEY.seed
    for name in ("wallet.key", "channel.key", "identity.key"):
        assert (new / name).read_bytes() == (home / name).read_bytes()
        assert stat.S_IMODE((new / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(new.stat().st_mode) == 0o700
    assert [path.name for path in new.parent.iterdir()] == ["client"]


def test_a_restored_book_signs_nothing_on_its_old_channels(file: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    backup.restore(backup.read(file, PASSPHRASE), new, AT)
    with Book(new / "book.sqlite", "payer", DEVNET) as book:
        assert [(known.channel, known.retired_at) for known in book.channels()] == [(one, AT) for one in CHANNELS[:2]]
        assert book.channel(CHANNELS[0]).claim == Claim(CHANNELS[0], 300, b"s" * 64)
        with pytest.raises(ChannelUnusable):
            book.save_claim(Claim(CHANNELS[0], 301, b"s" * 64))
        book.add_channel(CHANNELS[2], terms(CHANNELS[2]), "peer")
        book.save_claim(Claim(CHANNELS[2], 1, b"s" * 64))


def test_a_backup_of_a_backup_is_still_an_old_book(file: Path, tmp_path: Path) -> None:
    backup.restore(backup.read(file, PASSPHRASE), tmp_path / "one", AT)
    backup.restore(backup.take(tmp_path / "one", "payer", DEVNET), tmp_path / "two", AT)
    with Book(tmp_path / "two" / "book.sqlite", "payer", DEVNET) as book:
        assert all(known.retired for known in book.channels())


def test_a_book_at_work_is_saved_as_of_its_last_commit(home: Path, tmp_path: Path) -> None:
    with Book(home / "book.sqlite", "payer", DEVNET) as book:
        book.save_claim(Claim(CHANNELS[0], 400, b"t" * 64))
        with book.batch():
            book.save_claim(Claim(CHANNELS[0], 500, b"u" * 64))
            taken = backup.take(home, "payer", DEVNET)
    backup.restore(taken, tmp_path / "new", AT)
    with Book(tmp_path / "new" / "book.sqlite", "payer", DEVNET) as book:
        assert book.channel(CHANNELS[0]).authorised_nano == 400


def test_a_home_without_a_book_or_with_few_keys_can_be_saved(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    wallet.store(home / "wallet.key", KEY, PASSPHRASE, COST_MIN)
    backup.restore(backup.take(home, "payer", DEVNET), tmp_path / "new", AT)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["wallet.key"]
    assert wallet.read(tmp_path / "new" / "wallet.key").unlock(PASSPHRASE).seed == KEY.seed


def test_a_home_that_holds_something_is_left_as_it_is(home: Path, file: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in home.iterdir()}
    with pytest.raises(WalletUnusable, match="empty"):
        backup.restore(backup.read(file, PASSPHRASE), home, AT)
    assert {path.name: path.read_bytes() for path in home.iterdir()} == before
    (tmp_path / "empty").mkdir()
    backup.restore(backup.read(file, PASSPHRASE), tmp_path / "empty", AT)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bombyx.backup", "client", "empty"]


def test_a_crash_while_restoring_leaves_nothing_in_the_home(file: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    killed = subprocess.run([sys.executable, "-c", CRASHES, file, new], check=False)
    assert killed.returncode == -9
    assert not new.exists()
    backup.restore(backup.read(file, PASSPHRASE), new, AT)
    assert (new / "wallet.key").exists()


def test_a_backup_is_private_and_locked_and_replaces_nothing(home: Path, file: Path) -> None:
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    text = file.read_bytes()
    assert text.startswith(b"bombyx-backup 1 argon2id 1 8192 ")
    assert KEY.seed.hex().encode() not in text
    with pytest.raises(WalletUnusable, match="exists already"):
        backup.write(file, backup.take(home, "payer", DEVNET), PASSPHRASE, COST_MIN)
    assert file.read_bytes() == text


def test_a_wrong_passphrase_and_a_changed_backup_look_the_same(file: Path) -> None:
    text = file.read_bytes()
    said = set()
    for changed, passphrase in [(text, "wrong horse"), (text[:-9] + b"AAAAAAAA\n", PASSPHRASE)]:
        file.write_bytes(changed)
        with pytest.raises(WalletUnusable) as caught:
            backup.read(file, passphrase)
        said.add(str(caught.value))
    assert said == {f"cannot unlock {file}: the passphrase is wrong, or the file was changed"}


@pytest.mark.parametrize("content", [b"", b"bombyx-backup 2 x\n", b"bombyx-wallet 2 plain\nx\n", bytes(100)])
def test_what_is_no_backup_is_said_to_be_none(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(WalletUnusable, match="not a backup"):
        backup.read(file, PASSPHRASE)
    file.write_bytes(file.read_bytes()[: len(content) // 2])
    with pytest.raises(WalletUnusable, match="not a backup"):
        backup.read(file, PASSPHRASE)


def test_a_backup_writes_no_file_of_another_name(file: Path) -> None:
    hostile = Backup(DEVNET, "payer", {"../authorized_keys": b"key"}, b"")
    for content in (msgspec.msgpack.encode(hostile), b"junk", msgspec.msgpack.encode({"network": 1})):
        file.write_bytes(b"bombyx-backup 1 " + seal(content, PASSPHRASE, COST_MIN).encode())
        with pytest.raises(WalletUnusable, match="holds no backup"):
            backup.read(file, PASSPHRASE)


def test_a_book_that_is_none_or_of_another_network_is_refused_whole(file: Path, tmp_path: Path) -> None:
    saved = backup.read(file, PASSPHRASE)
    with pytest.raises(BookUnusable):
        backup.restore(msgspec.structs.replace(saved, book=b"a poem " * 100), tmp_path / "new", AT)
    with pytest.raises(NetworkMismatch):
        backup.restore(msgspec.structs.replace(saved, network=Network("mainnet", -239)), tmp_path / "new", AT)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bombyx.backup", "client"]


def test_what_cannot_be_read_or_written_is_one_clear_line(home: Path, file: Path, tmp_path: Path) -> None:
    saved = backup.read(file, PASSPHRASE)
    with pytest.raises(WalletUnusable, match="No such file"):
        backup.read(tmp_path / "none", PASSPHRASE)
    with pytest.raises(WalletUnusable, match="No such file"):
        backup.write(tmp_path / "none" / "file", saved, PASSPHRASE, COST_MIN)
    (home / "channel.key").chmod(0o644)
    with pytest.raises(WalletUnusable, match="chmod 600"):
        backup.take(home, "payer", DEVNET)
    (home / "channel.key").chmod(0o600)
    (home / "book.sqlite").write_bytes(b"a poem " * 100)
    with pytest.raises(BookUnusable, match="not a database"):
        backup.take(home, "payer", DEVNET)


def test_an_older_books_channels_are_marked_as_well(home: Path, tmp_path: Path) -> None:
    with sqlite3.connect(home / "book.sqlite") as db:
        for column in ("retired_at", "lost_nano"):
            db.execute(f"ALTER TABLE channels DROP COLUMN {column}")
        db.execute("DROP TABLE settlements")
        for table in ("evidence", "standing_quotes", "given", "audits"):
            db.execute(f"DROP TABLE {table}")
        for column in ("model", "channel", "channel_total_nano"):
            db.execute(f"ALTER TABLE receipts DROP COLUMN {column}")
        db.execute("PRAGMA user_version = 1")
    db.close()
    backup.restore(backup.take(home, "payer", DEVNET), tmp_path / "new", AT)
    with Book(tmp_path / "new" / "book.sqlite", "payer", DEVNET) as book:
        assert all(known.retired for known in book.channels())


def test_the_secrets_are_not_shown(file: Path) -> None:
    shown = repr(backup.read(file, PASSPHRASE))
    assert KEY.seed.hex() not in shown
    assert "cccc" not in shown
    assert "iiii" not in shown
    assert os.fspath(file) not in shown
