"""What happens, as records: for the terminal, for a file, for counters, for a test. Never a prompt or an answer.

A record has a kind, which is a short word, and plain fields. A trace file has one JSON object a line, keys in order:
`t_us`, the time in whole microseconds (unix time, or virtual time where the simulator wrote it), `kind`, and the
fields. Each message of a protocol is one record: `said` or `heard`, with `message` (the name of its type) and `peer`,
who is at the other end; where one file tells of many peers, `by` is the one that said or heard it.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

SAID, HEARD = "said", "heard"
MESSAGES = frozenset({SAID, HEARD})
"""Too many for a person to read."""

Record = dict[str, Any]


class Trace(Protocol):
    """Takes one record. `kind` is a short word; the fields are plain values fit for JSON."""

    def __call__(self, kind: str, /, **fields: object) -> None: ...


def silent(_kind: str, /, **_fields: object) -> None:
    """A trace that nobody reads."""


def among(*traces: Trace) -> Trace:
    """Tells each of them."""

    def all_of_them(kind: str, /, **fields: object) -> None:
        for trace in traces:
            trace(kind, **fields)

    return all_of_them


def line(record: Record) -> bytes:
    """As a trace file has it."""
    return msgspec.json.encode(record, order="sorted") + b"\n"
