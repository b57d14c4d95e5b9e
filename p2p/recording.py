"""A trace file: every record of a node's life, for whoever wants to know afterwards what happened in which order."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from p2p.errors import LocalError
from p2p.trace import Trace, line


@contextmanager
def recording(path: Path) -> Iterator[Trace]:
    """Appends to `path` as `p2p.trace` says. It names peers, channels and amounts, so it is for its owner alone.

    Raises `LocalError` where it cannot be opened. A disk that fills ends the file, not the node.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        raise LocalError(f"cannot write the trace {path}: {error.strerror}") from None
    full = False

    def trace(kind: str, /, **fields: object) -> None:
        nonlocal full
        if not full:
            try:
                os.write(descriptor, line({"t_us": time.time_ns() // 1000, "kind": kind, **fields}))
            except OSError:
                full = True

    try:
        yield trace
    finally:
        os.close(descriptor)
