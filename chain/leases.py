"""Which process pays through which channel. Two that signed over one channel could each sign for the same money.

A lease is a lock. Who has one reads the channel's row of the book afterwards, and goes on from there: whatever the last
holder showed to anybody was in the book before.
"""

from __future__ import annotations

from pathlib import Path

from chain import locks
from chain.errors import BookUnusable
from chain.locks import Lock


class Leases:
    """The leases of one book's channels. Raises `BookUnusable` where their files cannot be used."""

    def __init__(self, folder: Path) -> None:
        """`folder` is made when the first lease is taken."""
        self._folder = folder

    def take(self, channel: bytes) -> Lock | None:
        """Until it is released nobody else has one; `None` while somebody else does, also in this process."""
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise BookUnusable(f"cannot make {self._folder}: {error.strerror}") from error
        return locks.take(self._file(channel))

    def held(self, channel: bytes) -> bool:
        """Whether anybody pays through it at this moment."""
        lease = self.take(channel)
        if lease is None:
            return True
        lease.release()
        return False

    def forget(self, channel: bytes) -> None:
        """The book says that the channel is closed, which is for ever: whoever still gets a lease reads that."""
        self._file(channel).unlink(missing_ok=True)

    def _file(self, channel: bytes) -> Path:
        return self._folder / f"{channel.hex()}.lock"
