"""Amounts as people type them, read exactly."""

from __future__ import annotations

import re

from p2p.errors import LocalError
from p2p.story import NANO_PER_GRAM

DECIMALS = 9

_GRAM = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,9}))?(?: ?GRAM)?", re.IGNORECASE)
_NANO = re.compile(r"([0-9]{1,18}) ?nano", re.IGNORECASE)


def nano_of(text: str) -> int:
    """`1.5` and `1.5 GRAM` are 1,500,000,000, `1500nano` is 1,500. Raises `LocalError` for anything else, and for 0."""
    gram, nano = _GRAM.fullmatch(text), _NANO.fullmatch(text)
    if gram:
        whole, decimals = int(gram[1]), (gram[2] or "").ljust(DECIMALS, "0")
        amount = whole * NANO_PER_GRAM + int(decimals)
    elif nano:
        amount = int(nano[1])
    else:
        raise LocalError(f"{text[:40]!r} is not an amount: write 1.5 for GRAM, with nine decimals at most, or 1500nano")
    if not amount:
        raise LocalError("the amount is nothing")
    return amount
