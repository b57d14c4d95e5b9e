"""The trace: one record for each thing that happened, and the digest that tells two runs apart."""

from __future__ import annotations

import hashlib

from p2p.trace import Record, line
from sim.kernel import Kernel


class Trace:
    """A `p2p.trace.Trace` that keeps what it is told, stamped with virtual time in whole microseconds."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.records: list[Record] = []

    def __call__(self, kind: str, /, **fields: object) -> None:
        self.records.append({"t_us": round(self._kernel.now * 1_000_000), "kind": kind, **fields})

    def lines(self) -> bytes:
        """All records as JSON lines, keys in order: the bytes of `trace.jsonl`."""
        return b"".join(map(line, self.records))

    def digest(self) -> str:
        """SHA-256 of `lines`, in hex: what `sha256sum trace.jsonl` says."""
        return hashlib.sha256(self.lines()).hexdigest()
