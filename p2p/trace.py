"""What happens, as records: for the terminal, for a file, for a test. A record never holds a prompt or an answer."""

from __future__ import annotations

from typing import Protocol


class Trace(Protocol):
    """Takes one record. `kind` is a short word; the fields are plain values fit for JSON."""

    def __call__(self, kind: str, /, **fields: object) -> None: ...


def silent(_kind: str, /, **_fields: object) -> None:
    """A trace that nobody reads."""
