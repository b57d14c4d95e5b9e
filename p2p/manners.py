"""Core: when a provider rests for its owner's sake: by the clock, on battery, or while the owner uses the GPU."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from p2p.errors import LocalError, Refused
from p2p.protocol.allowance import DAY_S

_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)", re.ASCII)


class Window(NamedTuple):
    """Hours of each day, in seconds after local midnight; it may go on over midnight."""

    begin_s: int
    end_s: int

    def covers(self, second: int) -> bool:
        if self.begin_s < self.end_s:
            return self.begin_s <= second < self.end_s
        return second >= self.begin_s or second < self.end_s


def read_window(text: str) -> Window:
    """From `22:00-07:00`; the same time twice is the whole day. Raises `LocalError`."""
    match = _WINDOW.fullmatch(text)
    if not match:
        raise LocalError(f"serve_hours {text!r}: write it as 22:00-07:00")
    hours = [int(part) for part in match.groups()]
    return Window(hours[0] * 3600 + hours[1] * 60, hours[2] * 3600 + hours[3] * 60)


@dataclass(frozen=True)
class Seen:
    """The machine right now. `second` is of the local day; the GPU counts as in use by programs that are not ours."""

    second: int
    on_battery: bool = False
    gpu_in_use: bool = False


class Pause(NamedTuple):
    """Why nothing is served, as a word and for people, and for how long where that is known."""

    reason: str
    why: str
    for_s: int | None = None

    def refusal(self) -> Refused:
        """As a client hears it."""
        return Refused(self.reason, self.why, retry_after_s=self.for_s)


STOPPING = Pause("stopping", "the provider is about to stop")


@dataclass(frozen=True)
class Manners:
    """What the owner wants: no windows are the whole day."""

    windows: Sequence[Window] = ()
    on_battery: bool = False
    for_gpu: bool = False

    def pause(self, seen: Seen) -> Pause | None:
        """Why to rest now, if there is a reason. One whose end nobody knows is told first."""
        if self.on_battery and seen.on_battery:
            return Pause("on_battery", "the provider runs on battery")
        if self.for_gpu and seen.gpu_in_use:
            return Pause("gpu_in_use", "the provider's owner uses the GPU")
        if self.windows and not any(window.covers(seen.second) for window in self.windows):
            for_s = min((window.begin_s - seen.second) % DAY_S for window in self.windows)
            return Pause("out_of_hours", "the provider serves at other hours", for_s)
        return None
