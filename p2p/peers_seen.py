"""What a running node leaves in its home for `peers`: whom it has to do with, every few seconds."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import trio

from chain import private_file
from inference.nursery import open_background
from p2p.errors import LocalError
from p2p.host import Host, PeerState

FILE = "peers-seen.json"
WRITE_EVERY_S = 5.0
MAX_BYTES = 1 << 22


class PeersSeen(msgspec.Struct, frozen=True):
    """`at` is unix time in seconds."""

    at: float
    me: str
    peers: tuple[PeerState, ...]


@asynccontextmanager
async def kept_up_to_date(folder: Path, host: Host) -> AsyncIterator[None]:
    """While the context lasts. It is gone afterwards; after a crash its time tells."""
    path = folder / FILE
    async with open_background() as background:
        background.start_soon(_write_for_ever, path, host)
        try:
            yield
        finally:
            background.cancel_scope.cancel()
    with suppress(OSError):
        path.unlink(missing_ok=True)


async def _write_for_ever(path: Path, host: Host) -> None:
    while True:
        content = msgspec.json.encode(PeersSeen(time.time(), host.peer, tuple(host.peers())))
        with suppress(OSError):  # a full disk is for others to complain about
            private_file.replace(path, content)
        await trio.sleep(WRITE_EVERY_S)


def read(folder: Path) -> PeersSeen:
    """Raises `LocalError` where no node runs on that home."""
    path = folder / FILE
    try:
        return msgspec.json.decode(private_file.read(path, MAX_BYTES), type=PeersSeen)
    except FileNotFoundError:
        raise LocalError(f"no provider runs on {folder}: there is no {FILE} in it") from None
    except (OSError, msgspec.DecodeError) as error:
        raise LocalError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
