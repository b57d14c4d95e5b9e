"""Where a program's processor time goes: `python -m sampled OUT MODULE ARGUMENTS…` runs it and looks now and then.

SIGUSR1 begins the looking. At the end OUT gets a JSON list of `[[file:function, …], times seen]`, the innermost first.
"""

from __future__ import annotations

import json
import runpy
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

EVERY_S = 0.005  # of processor time


def main(out: str, module: str, *arguments: str) -> None:
    seen: Counter[tuple[str, ...]] = Counter()

    def look(_number: int, frame: FrameType | None) -> None:
        stack = []
        while frame is not None:
            stack.append(f"{frame.f_code.co_filename}:{frame.f_code.co_name}")
            frame = frame.f_back
        seen[tuple(stack)] += 1

    signal.signal(signal.SIGPROF, look)
    signal.signal(signal.SIGUSR1, lambda *_: signal.setitimer(signal.ITIMER_PROF, EVERY_S, EVERY_S))
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        Path(out).write_text(json.dumps([*seen.items()]))


if __name__ == "__main__":
    main(*sys.argv[1:])
