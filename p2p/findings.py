"""What an examination found: for `doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How good it is."""

    GOOD = "good"
    NOTE = "note"  # it works, and not as well as it could
    BAD = "bad"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    check: str
    verdict: Verdict
    what: str
    advice: str = ""  # what to do, where there is something to do
