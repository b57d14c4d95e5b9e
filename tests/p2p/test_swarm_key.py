"""The key of a private network: its file, which other libp2p programs read, and whether it fits a network file."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from p2p import swarm_key
from p2p.config import Config
from p2p.errors import LocalError
from p2p.network_file import NetworkFile, read_network, write_network

KEY = bytes(range(32))
CHAIN = {"bombyx": {"name": "devnet", "global_id": -239}}
OPEN = NetworkFile(bootstraps=(), chain=CHAIN)
PRIVATE = NetworkFile(bootstraps=(), swarm_key=swarm_key.fingerprint(KEY), chain=CHAIN)


def written(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_key_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "swarm.key"
    key = swarm_key.create(path)
    assert len(key) == 32
    assert swarm_key.read(path) == key != swarm_key.create(tmp_path / "another.key")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == f"/key/swarm/psk/1.0.0/\n/base16/\n{key.hex()}\n"


def test_a_key_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "swarm.key"
    key = swarm_key.create(path)
    with pytest.raises(LocalError, match="already"):
        swarm_key.create(path)
    assert swarm_key.read(path) == key
    with pytest.raises(LocalError, match="cannot write"):
        swarm_key.create(tmp_path / "nowhere" / "swarm.key")


def test_a_key_that_another_program_wrote(tmp_path: Path) -> None:
    for text in (
        f"/key/swarm/psk/1.0.0/\n/base16/\n{KEY.hex()}",
        f"/key/swarm/psk/1.0.0/\r\n/base16/\r\n{KEY.hex().upper()}\r\n",
    ):
        assert swarm_key.read(written(tmp_path / "swarm.key", text)) == KEY


@pytest.mark.parametrize(
    "text",
    [
        "",
        KEY.hex(),
        f"/key/swarm/psk/1.0.0/\n/base16/\n{KEY.hex()[:-2]}",
        f"/key/swarm/psk/1.0.0/\n/base16/\n{KEY.hex()[:-1]}",
        f"/key/swarm/psk/1.0.0/\n/base16/\n{KEY.hex()}{KEY.hex()}",
        f"/key/swarm/psk/1.0.0/\n/base64/\n{KEY.hex()}",
        f"/key/swarm/psk/2.0.0/\n/base16/\n{KEY.hex()}",
        "/key/swarm/psk/1.0.0/\n/base16/\nnonsense",
        "schlüssel",
    ],
)
def test_what_is_no_key_is_refused_without_being_shown(tmp_path: Path, text: str) -> None:
    path = written(tmp_path / "swarm.key", text)
    with pytest.raises(LocalError, match=f"{path} is no swarm key") as caught:
        swarm_key.read(path)
    assert KEY.hex()[:8] not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_file_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="chmod 600"):
        swarm_key.read(written(tmp_path / "open.key", "anything", 0o640))
    with pytest.raises(LocalError, match="larger than"):
        swarm_key.read(written(tmp_path / "large.key", "0" * 2000))
    for path in (tmp_path, tmp_path / "missing.key"):
        with pytest.raises(LocalError, match="cannot use the swarm key"):
            swarm_key.read(path)


def test_a_network_file_names_the_key_and_does_not_give_it_away(tmp_path: Path) -> None:
    path = tmp_path / "network.json"
    write_network(path, PRIVATE)
    assert read_network(path) == PRIVATE
    assert KEY.hex()[:8] not in path.read_text()
    write_network(path, OPEN)
    assert "swarm_key" not in path.read_text(), "as those who know of no such thing have it"
    assert swarm_key.fingerprint(KEY) != swarm_key.fingerprint(bytes(32))


@pytest.mark.parametrize("named", [True, False], ids=["named", "in the home"])
def test_a_key_and_a_network_have_to_fit(tmp_path: Path, named: bool) -> None:
    name = "mine.key" if named else "swarm.key"
    config = Config(home=str(tmp_path), swarm_key=str(tmp_path / name) if named else "")
    path = written(tmp_path / name, f"/key/swarm/psk/1.0.0/\n/base16/\n{KEY.hex()}\n")
    assert swarm_key.key_for(config, PRIVATE) == KEY
    with pytest.raises(LocalError, match=f"without a key: leave {path} away"):
        swarm_key.key_for(config, OPEN)
    path.unlink()
    swarm_key.create(path)
    with pytest.raises(LocalError, match="is not the key of"):
        swarm_key.key_for(config, PRIVATE)


def test_without_a_key_only_an_open_network_is_joined(tmp_path: Path) -> None:
    config = Config(home=str(tmp_path))
    assert swarm_key.key_for(config, OPEN) is None
    with pytest.raises(LocalError, match="private network: name its key with --swarm-key"):
        swarm_key.key_for(config, PRIVATE)
    with pytest.raises(LocalError, match="cannot use the swarm key"):
        swarm_key.key_for(Config(swarm_key=str(tmp_path / "missing.key")), OPEN)
