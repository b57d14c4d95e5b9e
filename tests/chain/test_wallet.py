"""The wallet file: private, whole or absent, never replaced, never shown."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from chain import wallet
from chain.errors import WalletUnusable
from chain.keys import verify
from chain.ledger import Network

MAINNET = Network("mainnet", -239)


def test_what_was_created_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "wallet.key"
    created, loaded = wallet.create(path), wallet.load(path)
    assert created.seed == loaded.seed
    assert verify(created.public_key, b"hello", loaded.sign(b"hello"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["wallet.key"]


def test_a_wallet_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "wallet.key"
    seed = wallet.create(path).seed
    with pytest.raises(WalletUnusable, match="exists already"):
        wallet.create(path)
    assert wallet.load(path).seed == seed
    assert [file.name for file in tmp_path.iterdir()] == ["wallet.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o666])
def test_a_file_that_others_can_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "wallet.key"
    wallet.create(path)
    path.chmod(mode)
    with pytest.raises(WalletUnusable, match="chmod 600") as caught:
        wallet.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"bombyx-wallet 2 " + b"0" * 64 + b"\n", b"0" * 64, b"x" * 5000])
def test_a_damaged_file_is_refused_without_showing_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "wallet.key"
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(WalletUnusable, match="not a wallet file") as caught:
        wallet.load(path)
    assert "00000" not in str(caught.value)


def test_a_missing_file_or_folder_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(WalletUnusable, match="No such file"):
        wallet.load(tmp_path / "none")
    with pytest.raises(WalletUnusable, match="No such file"):
        wallet.create(tmp_path / "none" / "wallet.key")


def test_the_secret_is_never_shown() -> None:
    key = wallet.WalletKey(bytes(range(32)))
    assert key.seed.hex() not in repr(key)
    assert key.public_key.hex() in repr(key)


def test_the_address_depends_on_key_and_network() -> None:
    key = wallet.WalletKey(bytes(range(32)))
    addresses = {
        key.address(MAINNET),
        key.address(Network("testnet", -3)),
        wallet.WalletKey(bytes(32)).address(MAINNET),
    }
    assert len(addresses) == 3
    assert all(address.startswith("0:") and len(address) == 66 for address in addresses)
