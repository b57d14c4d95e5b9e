"""The servers that a host knew, on disk, so that it can start without its bootstraps.

A hint and nothing more: a file that is missing, broken or old costs a few dials.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from p2p.host import PeerAddress

_log = logging.getLogger(__name__)


def load_peers(path: Path) -> tuple[PeerAddress, ...]:
    """What `save_peers` wrote, or nothing."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=tuple[PeerAddress, ...])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        _log.debug("no peers from %s: %s", path, error)
        return ()


def save_peers(path: Path, peers: Sequence[PeerAddress]) -> None:
    """Whole or not at all; where there is no room, what was there stays."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(peers)) + b"\n")
        draft.replace(path)
    except OSError as error:
        _log.debug("cannot save peers to %s: %s", path, error)
        with suppress(OSError):
            draft.unlink()
