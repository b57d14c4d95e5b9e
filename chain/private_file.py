"""Small secret files: readable by their owner only, there whole or not at all.

Everything here raises `OSError`, whose `strerror` says in words what is wrong; the caller says which secret it is.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def read(path: Path, max_bytes: int) -> bytes:
    """What `path` holds. Refuses a file that others can use, one above `max_bytes`, and what is no plain file."""
    # A named pipe would keep us waiting for its other end.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is not a file")
        if mode & 0o077:
            permissions = stat.S_IMODE(mode)
            raise PermissionError(errno.EACCES, f"it is open to others (mode {permissions:04o}): run `chmod 600` on it")
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {max_bytes} bytes")
    return content


def write_new(path: Path, content: bytes) -> None:
    """Make `path`; raises `FileExistsError` if there is one, which stays as it is."""
    with _draft(path, content) as draft:
        path.hardlink_to(draft)  # unlike a rename, a link does not replace
    sync_folder(path.parent)


def replace(path: Path, content: bytes) -> None:
    """Put `content` in the place of what `path` holds: a crash leaves the one or the other."""
    with _draft(path, content) as draft:
        draft.replace(path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make a new name survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _draft(path: Path, content: bytes) -> Iterator[Path]:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield draft
    finally:
        draft.unlink(missing_ok=True)
