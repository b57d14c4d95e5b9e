"""The key of a private network, in the file that other libp2p programs, IPFS above all, know as `swarm.key`.

    /key/swarm/psk/1.0.0/
    /base16/
    <64 hexadecimal digits>

Whoever has it is a member. A network file says which key is its network's, by a fingerprint that gives nothing away.
"""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path

from chain import private_file
from p2p.arguments import PROGRAM
from p2p.config import Config
from p2p.errors import LocalError
from p2p.network_file import NetworkFile

KEY_BYTES = 32
FILE_NAME = "swarm.key"
MAX_FILE_BYTES = 1024
_HEAD = ("/key/swarm/psk/1.0.0/", "/base16/")
_FINGERPRINT_DIGITS = 16


def create(path: Path) -> bytes:
    """Write a fresh key, readable by its owner only. Raises `LocalError`, also if there is such a file."""
    key = secrets.token_bytes(KEY_BYTES)
    try:
        private_file.write_new(path, encode(key))
    except FileExistsError:
        raise LocalError(f"there is a file {path} already, and it stays: name another") from None
    except OSError as error:
        raise LocalError(f"cannot write {path}: {error.strerror}") from None
    return key


def encode(key: bytes) -> bytes:
    """The content of its file."""
    return "\n".join((*_HEAD, key.hex(), "")).encode()


def read(path: Path) -> bytes:
    """The key, of 32 bytes. Raises `LocalError`, also for a file that others can read."""
    try:
        lines = private_file.read(path, MAX_FILE_BYTES).decode("ascii").split()
        *head, digits = lines
        key = bytes.fromhex(digits)
    except OSError as error:
        raise LocalError(f"cannot use the swarm key {path}: {error.strerror}") from None
    except ValueError:
        raise LocalError(_not_a_key(path)) from None
    if tuple(head) != _HEAD or len(key) != KEY_BYTES:
        raise LocalError(_not_a_key(path))
    return key


def _not_a_key(path: Path) -> str:
    """Without a word of what it holds, which may be most of a key."""
    return f"{path} is no swarm key in base 16; make one with {PROGRAM} swarm-key FILE"


def fingerprint(key: bytes) -> str:
    """By which a network file names the key."""
    return hashlib.sha256(b"bombyx swarm key" + key).hexdigest()[:_FINGERPRINT_DIGITS]


def path_of(config: Config) -> Path | None:
    """Where the key is: the file that was named, or else that in the home, if there is one."""
    if config.swarm_key:
        return Path(config.swarm_key).expanduser()
    in_home = config.home_path / FILE_NAME
    return in_home if in_home.exists() else None


def key_for(config: Config, network: NetworkFile) -> bytes | None:
    """The key with which to join, `None` if the network is not private. Raises `LocalError` if they do not fit."""
    path = path_of(config)
    if path is None:
        if network.swarm_key:
            raise LocalError(f"{config.network_path} leads to a private network: name its key with --swarm-key FILE")
        return None
    key = read(path)
    if not network.swarm_key:
        raise LocalError(f"{config.network_path} leads to a network without a key: leave {path} away")
    if fingerprint(key) != network.swarm_key:
        raise LocalError(f"{path} is not the key of {config.network_path}: ask its members for theirs")
    return key
