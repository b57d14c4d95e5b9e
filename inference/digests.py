"""The SHA-256 of files that take minutes to read, kept for the next time."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

import msgspec

_KEPT_MAX = 1000

_Stamp = tuple[int, int, int, int]
_Kept = dict[str, tuple[_Stamp, str]]


def file_digest(path: Path, kept_in: Path | None = None) -> str:
    """In hex. A file is read again once its size, its times or its inode have changed. Raises `OSError`.

    `kept_in` is a file of ours, by default below `XDG_CACHE_HOME` or `~/.cache`. What cannot be kept is not.
    """
    kept_in = kept_in or _default()
    kept, name = _load(kept_in), str(path.resolve())
    stamp = _stamp(path)
    if name in kept and kept[name][0] == stamp:
        return kept[name][1]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if _stamp(path) == stamp:  # else it was written to meanwhile
        _save(kept_in, {**_load(kept_in), name: (stamp, digest)})
    return digest


def _stamp(path: Path) -> _Stamp:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _default() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "bombyx" / "digests.json"


def _load(kept_in: Path) -> _Kept:
    try:
        return msgspec.json.decode(kept_in.read_bytes(), type=_Kept)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return {}


def _save(kept_in: Path, kept: _Kept) -> None:
    last = dict([*kept.items()][-_KEPT_MAX:])
    partial = kept_in.with_suffix(f".{os.getpid()}")
    try:
        kept_in.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial.write_bytes(msgspec.json.encode(last))
        partial.replace(kept_in)
    except OSError:
        with suppress(OSError):
            partial.unlink()
