"""Locks among processes, each on a file of its own.

The system holds them: nobody can take one from a process that lives, also not from one that hangs, and one whose holder
is gone is free at once, however it went. They do not reach over a network file system.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from chain.errors import BookUnusable


class Lock:
    """A lock that is held until it is released. A context manager."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Let another have it. Once."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def take(path: Path, *, shared: bool = False) -> Lock | None:
    """The lock of `path`, a file that is made if there is none; `None` while somebody else holds it, or only a part.

    `shared` ones may be held by many, and not together with one that is not. A process that asks twice is two. The file
    stays, or two could hold one each. Raises `BookUnusable` if it cannot be made.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise BookUnusable(f"cannot create {path}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as error:
        os.close(descriptor)
        raise BookUnusable(f"cannot lock {path}: {error.strerror}") from error
    return Lock(descriptor)
