"""Core: server-sent events (the HTML standard, section 9.2), as far as servers of completions use them.

Only `data` lines count. What lies between two of them is bounded, so that a server cannot fill our memory.
"""

from __future__ import annotations

from collections.abc import Iterator

from inference.errors import EngineError

LINE_MAX_BYTES = 1 << 20


class EventStream:
    """Bytes as they come in, the payload of each `data` line out."""

    def __init__(self) -> None:
        self._begun = bytearray()

    def feed(self, received: bytes) -> Iterator[bytes]:
        """The payloads that `received` completes. Raises `EngineError` for a line beyond `LINE_MAX_BYTES`."""
        self._begun += received
        *lines, self._begun = self._begun.split(b"\n")
        if any(len(line) > LINE_MAX_BYTES for line in (*lines, self._begun)):
            raise EngineError("the server sent a line of more than a megabyte")
        for line in lines:
            field, _, payload = bytes(line).partition(b":")
            if field == b"data":
                yield payload.strip()
