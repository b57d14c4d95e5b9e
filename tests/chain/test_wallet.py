"""The wallet file: private, whole or absent, locked where money is real, never shown."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from chain import wallet
from chain.errors import WalletUnusable
from chain.keys import verify
from chain.ledger import Network
from chain.sealed import COST_MIN
from chain.wallet import Bare, Lock, WalletFile, WalletKey

MAINNET, TESTNET, DEVNET = Network("mainnet", -239), Network("testnet", -3), Network("devnet", -239)
PASSPHRASE = "correct horse"
LOCKS: list[Lock] = [PASSPHRASE, Bare.DEVNET, Bare.BY_CHOICE]

WORDS = (
    "hospital stove relief fringe tongue always charge angry urge sentence again match "
    "nerve inquiry senior coconut label tumble carry category beauty bean road solution"
)
KEY = WalletKey.from_words(tuple(WORDS.split()))

RELOCKS = """
import os, pathlib, sys
from chain import wallet
from chain.sealed import COST_MIN
path = pathlib.Path(sys.argv[1])
key = wallet.read(path).unlock()
setattr(pathlib.Path, "replace", lambda *_: os.kill(os.getpid(), 9))
wallet.relock(path, key, "a new passphrase", COST_MIN)
"""

CREATES = """
import pathlib, sys
from chain import wallet
from chain.errors import WalletUnusable
try:
    print(wallet.create(pathlib.Path(sys.argv[1]), wallet.Bare.DEVNET).public_key.hex())
except WalletUnusable:
    print("late")
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wallet.key"


@pytest.mark.parametrize("lock", LOCKS)
def test_what_was_created_is_loaded(path: Path, lock: Lock) -> None:
    created = wallet.create(path, lock, COST_MIN)
    loaded = wallet.read(path).unlock(PASSPHRASE)
    assert (loaded.seed, loaded.words) == (created.seed, created.words)
    assert len(created.words) == 24
    assert verify(created.public_key, b"hello", loaded.sign(b"hello"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["wallet.key"]
    assert wallet.read(path).locked == isinstance(lock, str)


def test_the_formats_are_these(path: Path) -> None:
    """Files of today must open tomorrow. The locked one's box is `tests/chain/test_sealed.py`'s."""
    for text, locked in [
        (f"bombyx-wallet 2 devnet\n{WORDS}\n", False),
        (f"bombyx-wallet 2 plain\n{WORDS}\n", False),
        (f"bombyx-wallet 2 plain\n{KEY.seed.hex()}\n", False),
        (f"bombyx-wallet 1 {KEY.seed.hex()}\n", False),
        (GOLDEN, True),
    ]:
        path.unlink(missing_ok=True)
        path.touch(0o600)
        path.write_text(text)
        assert wallet.read(path).locked == locked
        assert wallet.read(path).unlock(PASSPHRASE).seed == KEY.seed


GOLDEN = (
    "bombyx-wallet 2 argon2id 1 8192 000102030405060708090a0b0c0d0e0f\n"
    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYX9Xh7G8GZnU2CX4uy+m4nB3pmVeVvVys8d9HIonmAYRaJ7sLTQFk3mAdkv5nLuIqFnoI4B/kj9wCPW3O1Lu1IdrIgg0AChPq2cdJOiXZhrnHBhfeOb65r3XTxhZid1hlpYaTWTGSoFXH8sB1euPW0/I4VXO34RifX1PfxJb/dGDZ0qL5I+7CI2kRFuThCSLg3Q9jjulhRvyryCnQZa5Fpf4kHCUytRrN/q4Rg9J+xPDkVegqq\n"
)


def test_a_locked_file_holds_nothing_readable(path: Path) -> None:
    wallet.store(path, KEY, PASSPHRASE, COST_MIN)
    text = path.read_text()
    assert not set(re.findall("[a-z]{3,}", text)) & set(WORDS.split())
    assert KEY.seed.hex() not in text
    assert text.startswith("bombyx-wallet 2 argon2id 1 8192 ")


def test_a_wallet_is_never_replaced(path: Path) -> None:
    seed = wallet.create(path, Bare.DEVNET).seed
    with pytest.raises(WalletUnusable, match="exists already"):
        wallet.create(path, PASSPHRASE, COST_MIN)
    assert wallet.read(path).unlock().seed == seed
    assert [file.name for file in path.parent.iterdir()] == ["wallet.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o666])
@pytest.mark.parametrize("lock", [PASSPHRASE, Bare.DEVNET])
def test_a_file_that_others_can_read_or_write_is_refused(path: Path, lock: Lock, mode: int) -> None:
    wallet.store(path, KEY, lock, COST_MIN)
    path.chmod(mode)
    with pytest.raises(WalletUnusable, match="chmod 600") as caught:
        wallet.read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"bombyx-wallet 3 " + b"0" * 64 + b"\n",
        b"bombyx-wallet 1 " + b"0" * 63 + b"\n",
        b"bombyx-wallet 2 " + b"0" * 64 + b"\n",
        b"bombyx-wallet 2 plain\n" + b"0" * 64,
        b"bombyx-wallet 2 other\n" + b"0" * 64 + b"\n",
        b"argon2id 1 8192 " + b"0" * 32 + b"\n" + b"0" * 64 + b"\n",
        b"0" * 64,
        b"x" * 5000,
        b"\xff" * 100,
    ],
)
def test_a_damaged_file_is_refused_without_showing_it(path: Path, content: bytes) -> None:
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(WalletUnusable, match=r"not a wallet file|larger than") as caught:
        wallet.read(path)
    assert "00000" not in str(caught.value)


@pytest.mark.parametrize("secret", ["", "zz" * 32, WORDS.replace("stove", "stovve"), WORDS[:-1], "0" * 62])
def test_a_secret_that_is_no_key_is_refused_without_showing_it(path: Path, secret: str) -> None:
    path.touch(0o600)
    path.write_text(f"bombyx-wallet 2 plain\n{secret}\n")
    with pytest.raises(WalletUnusable, match="holds no key") as caught:
        wallet.read(path).unlock()
    assert not shows_a_secret("".join(traceback.format_exception(caught.value)))


def test_a_wrong_passphrase_and_a_changed_file_look_the_same(path: Path) -> None:
    wallet.store(path, KEY, PASSPHRASE, COST_MIN)
    head, box, _ = path.read_text().split("\n")
    said = set()
    for text, passphrase in [
        (f"{head}\n{box}\n", "wrong horse"),
        (f"{head}\n{box}\n", ""),
        (f"{head}\n{'B' if box[0] == 'A' else 'A'}{box[1:]}\n", PASSPHRASE),
        (f"{head}\n{box[:-8]}\n", PASSPHRASE),
        (f"{head}\n\n", PASSPHRASE),
        (f"{head.replace('8192', '9216')}\n{box}\n", PASSPHRASE),
        (f"{head[:-1]}{'1' if head[-1] == '0' else '0'}\n{box}\n", PASSPHRASE),
    ]:
        path.write_text(text)
        with pytest.raises(WalletUnusable) as caught:
            wallet.read(path).unlock(passphrase)
        said.add(str(caught.value))
    assert said == {f"cannot unlock {path}: the passphrase is wrong, or the file was changed"}


@pytest.mark.parametrize("network", [MAINNET, TESTNET])
def test_a_devnets_bare_key_is_for_devnets(path: Path, network: Network) -> None:
    wallet.store(path, KEY, Bare.DEVNET)
    wallet.read(path).check_fits(DEVNET)
    with pytest.raises(WalletUnusable, match="made for a devnet"):
        wallet.read(path).check_fits(network)
    path.write_text(f"bombyx-wallet 1 {KEY.seed.hex()}\n")
    with pytest.raises(WalletUnusable, match="made for a devnet"):
        wallet.read(path).check_fits(network)
    for lock in (PASSPHRASE, Bare.BY_CHOICE):
        wallet.relock(path, KEY, lock, COST_MIN)
        wallet.read(path).check_fits(network)


def test_a_passphrase_is_changed_in_place(path: Path) -> None:
    wallet.store(path, KEY, Bare.DEVNET)
    for lock in ("first passphrase", "second passphrase"):
        wallet.relock(path, KEY, lock, COST_MIN)
        assert wallet.read(path).unlock(lock).words == KEY.words
    with pytest.raises(WalletUnusable):
        wallet.read(path).unlock("first passphrase")
    assert [file.name for file in path.parent.iterdir()] == ["wallet.key"]


def test_a_crash_while_the_passphrase_is_changed_leaves_the_wallet_as_it_was(path: Path) -> None:
    wallet.store(path, KEY, Bare.DEVNET)
    killed = subprocess.run([sys.executable, "-c", RELOCKS, path], check=False)
    assert killed.returncode == -9
    assert wallet.read(path).unlock().seed == KEY.seed


@pytest.mark.slow
def test_two_processes_that_create_at_once_make_one_wallet(path: Path) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", CREATES, path], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = {process.communicate()[0].strip() for process in processes}
    assert said == {"late", wallet.read(path).unlock().public_key.hex()}
    assert [file.name for file in path.parent.iterdir()] == ["wallet.key"]


def test_a_missing_file_or_folder_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(WalletUnusable, match="No such file"):
        wallet.read(tmp_path / "none")
    with pytest.raises(WalletUnusable, match="No such file"):
        wallet.create(tmp_path / "none" / "wallet.key", Bare.DEVNET)
    with pytest.raises(WalletUnusable, match="No such file"):
        wallet.relock(tmp_path / "none" / "wallet.key", KEY, Bare.DEVNET)


def shows_a_secret(text: str) -> bool:
    """Whether it holds the seed or three words of the phrase in a row."""
    words = WORDS.split()
    runs = [" ".join(words[start : start + 3]) for start in range(len(words) - 2)]
    return KEY.seed.hex() in text or repr(KEY.seed) in text or any(run in text for run in runs)


@pytest.mark.parametrize("lock", LOCKS)
def test_the_secret_is_never_shown(path: Path, lock: Lock) -> None:
    wallet.store(path, KEY, lock, COST_MIN)
    file = wallet.read(path)
    assert isinstance(file, WalletFile)
    for shown in (KEY, file, file.unlock(PASSPHRASE)):
        assert not shows_a_secret(f"{shown!r} {shown} {[shown]} {{}}".format(shown))
    assert KEY.public_key.hex() in repr(KEY)
    assert shows_a_secret(" ".join(KEY.words))


def test_the_address_depends_on_key_and_network() -> None:
    key = WalletKey(bytes(range(32)))
    addresses = {key.address(MAINNET), key.address(TESTNET), WalletKey(bytes(32)).address(MAINNET)}
    assert len(addresses) == 3
    assert all(address.startswith("0:") and len(address) == 66 for address in addresses)
    # Why a devnet's key must not be used elsewhere.
    assert key.address(DEVNET) == key.address(MAINNET)
