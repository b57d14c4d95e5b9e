"""Runs `p2p.node` and writes down every voucher that is signed, outside of all books.

    python -m signatures ask FLAGS     (SIGNATURES names the file, which several processes may share)

It is what locks and books are held against: who signed for which channel, how much, and when.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from chain.channel import Payer
from chain.voucher import Claim
from p2p import node


class Signature(NamedTuple):
    """One voucher, at the moment at which it was made."""

    at: float  # seconds, on the machine's monotonic clock
    pid: int
    channel: str
    total_nano: int


def read(path: Path) -> Sequence[Signature]:
    """In the order of signing. A kill may leave half a line at the end of what one process wrote."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return sorted(Signature(*json.loads(line)) for line in lines if line.endswith("\n"))


def turns(signatures: Sequence[Signature], channel: str) -> Sequence[int]:
    """The processes that signed for a channel, one after the other. One that comes twice was not alone."""
    return [pid for pid, _ in groupby(one.pid for one in signatures if one.channel == channel)]


def _watched(authorise: Callable[[Payer, int], Claim]) -> Callable[[Payer, int], Claim]:
    file = os.open(os.environ["SIGNATURES"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write_down(payer: Payer, total_nano: int) -> Claim:
        claim = authorise(payer, total_nano)
        made = Signature(time.monotonic(), os.getpid(), claim.channel.hex(), claim.amount_nano)
        os.write(file, json.dumps(made).encode() + b"\n")
        return claim

    return write_down


if __name__ == "__main__":
    setattr(Payer, "authorise", _watched(Payer.authorise))  # noqa: B010 - mypy would not have a method replaced
    node.main()
