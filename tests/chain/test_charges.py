"""What a watchtower is given: read from files, folders and books that others write to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chain import charges
from chain.book import Book
from chain.channel import State
from chain.errors import ChargesUnusable, NetworkMismatch
from chain.ledger import ChannelTerms, Network
from chain.records import Role
from chain.voucher import Claim

DEVNET = Network("devnet", -239)
CHANNELS = [bytes([number]) * 32 for number in range(5)]


def charge(number: int, amount: int) -> Claim:
    return Claim(CHANNELS[number], amount, amount.to_bytes(64, "big"))


def fill(book: Book, number: int, amount: int = 0) -> None:
    terms = ChannelTerms(
        payer="0:" + "aa" * 32,
        payee="0:" + "bb" * 32,
        payer_key=b"\1" * 32,
        payee_key=b"\2" * 32,
        challenge_period_s=3600,
        open_before=2_000_000_000,
        salt=CHANNELS[number],
    )
    book.add_channel(CHANNELS[number], terms, "peer")
    if amount:
        book.save_claim(Claim(CHANNELS[number], amount, amount.to_bytes(64, "big")))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "charges.json"
    for amount in (5, 7):
        charges.write(path, [charge(0, amount), charge(1, 1)], DEVNET)
    assert charges.read(path, DEVNET) == [charge(0, 7), charge(1, 1)]
    assert path.stat().st_mode & 0o777 == 0o600


def test_of_several_files_the_highest_voucher_counts(tmp_path: Path) -> None:
    charges.write(tmp_path / "a.json", [charge(0, 9), charge(1, 1)], DEVNET)
    charges.write(tmp_path / "b.json", [charge(0, 5), charge(1, 2), charge(2, 3)], DEVNET)
    (tmp_path / "notes.txt").write_text("not for the watchtower")
    assert charges.read(tmp_path, DEVNET) == [charge(0, 9), charge(1, 2), charge(2, 3)]
    (tmp_path / "empty").mkdir()
    assert charges.read(tmp_path / "empty", DEVNET) == []


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"network": {"name": "devnet", "global_id": -239}, "charges": [{"channel": 7}]}']
)
def test_what_holds_no_charges_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "charges.json"
    path.write_text(content)
    with pytest.raises(ChargesUnusable, match="holds no charges"):
        charges.read(path, DEVNET)


def test_files_that_cannot_be_used_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "charges.json"
    with pytest.raises(ChargesUnusable, match="No such file"):
        charges.read(path, DEVNET)
    with pytest.raises(ChargesUnusable, match="cannot write"):
        charges.write(tmp_path / "none" / "charges", [], DEVNET)
    charges.write(path, [charge(0, 1)], Network("testnet", -3))
    with pytest.raises(NetworkMismatch, match="testnet"):
        charges.read(path, DEVNET)
    monkeypatch.setattr(charges, "MAX_FILE_BYTES", 10)
    with pytest.raises(ChargesUnusable, match="larger"):
        charges.read(path, DEVNET)


def test_a_book_is_read_while_its_owner_writes(tmp_path: Path) -> None:
    path = tmp_path / "book.sqlite"
    with Book(path, "payee", DEVNET) as book:
        fill(book, 0, 5)
        fill(book, 1)
        fill(book, 2, 6)
        book.save_state(CHANNELS[2], State.CLOSED)
        with book.batch():
            book.save_claim(charge(0, 8))
            assert charges.read_book(path, DEVNET) == [charge(0, 5)]
        assert charges.read_book(path, DEVNET) == [charge(0, 8)]
        book.save_released(CHANNELS[0], 8)
        assert charges.read_book(path, DEVNET) == [charge(0, 8)], "the payer may yet start to close"
    assert charges.read_book(path, DEVNET) == [charge(0, 8)]


@pytest.mark.parametrize("role", ["payer", "payee"])
def test_only_what_is_owed_to_the_owner_is_watched(tmp_path: Path, role: Role) -> None:
    path = tmp_path / "book.sqlite"
    with Book(path, role, DEVNET) as book:
        fill(book, 0, 5)
    assert charges.read_book(path, DEVNET) == ([charge(0, 5)] if role == "payee" else [])


def test_a_book_is_read_that_a_killed_owner_left(tmp_path: Path) -> None:
    path = tmp_path / "book.sqlite"
    program = (
        "import os, signal, sys; sys.path[:0] = sys.argv[2:]; from pathlib import Path; import test_charges as t;"
        "book = t.Book(Path(sys.argv[1]), 'payee', t.DEVNET); t.fill(book, 0, 5); os.kill(os.getpid(), signal.SIGKILL)"
    )
    here = Path(__file__).parent
    killed = subprocess.run([sys.executable, "-c", program, path, here, here.parent.parent], env=os.environ)
    assert killed.returncode == -signal.SIGKILL
    assert charges.read_book(path, DEVNET) == [charge(0, 5)]


def test_a_book_that_cannot_be_read_is_refused_and_none_is_made(tmp_path: Path) -> None:
    path = tmp_path / "book.sqlite"
    with pytest.raises(ChargesUnusable, match="there is no book"):
        charges.read_book(path, DEVNET)
    assert not path.exists()
    with Book(path, "payee", DEVNET):
        pass
    with pytest.raises(NetworkMismatch):
        charges.read_book(path, Network("testnet", -3))
