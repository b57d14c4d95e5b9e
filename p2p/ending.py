"""How a command of `p2p.node` ends: its exit code, and one line that says why."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import msgspec

from p2p.errors import Error, LocalError, Refused

DONE = 0
FAILED = 1
USAGE = 2  # for what the user must change
UNHEARD = 141  # as shells say it of SIGPIPE: whoever read our output has gone


def signalled(number: int) -> int:
    """The exit code of what a signal ended, as shells say it: 130 for SIGINT, 143 for SIGTERM."""
    return 128 + number


def explain(error: BaseException, *, as_json: bool) -> int:
    """One line for what is known to happen, and with `as_json` an object for programs; a bug keeps its traceback."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, KeyboardInterrupt):
        return signalled(signal.SIGINT)
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain as it flushes
        return UNHEARD
    if not isinstance(error, Error):
        raise error
    print(f"bombyx: {error}{_when(error)}", file=sys.stderr)  # noqa: T201 - the command's own voice
    if as_json:
        print(msgspec.json.encode(_for_programs(error)).decode())  # noqa: T201
    return USAGE if isinstance(error, LocalError) else FAILED


def _when(error: Error) -> str:
    """When an honest no would be a yes, if that was said."""
    later = isinstance(error, Refused) and error.retry_after_s
    return f"; ask again in {later} s" if later else ""


def _for_programs(error: Error) -> dict[str, Any]:
    said: dict[str, Any] = {"error": str(error), "reason": error.word}
    if isinstance(error, Refused):
        if error.retry_after_s is not None:
            said["retry_after_s"] = error.retry_after_s
        if error.prices is not None:
            said["prices"] = msgspec.structs.asdict(error.prices)
    return said
