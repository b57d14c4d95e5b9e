"""A worker's process whose GPU fails when it is told to: `python tests/inference/exllama_child.py`."""

from __future__ import annotations

import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "gpu"), str(HERE.parent.parent)]

from test_exllama import SETTINGS, Spelt, Told  # noqa: E402

from inference import child  # noqa: E402
from inference.engine import Engine  # noqa: E402
from inference.exllama import engine  # noqa: E402


class Failing(Told):
    """Its GPU fails on a prompt with an exclamation mark."""

    def start(self, job: int, prompt: Any, sampling: Any) -> None:
        if ord("!") in prompt:
            self.faults.put(RuntimeError("CUDA error: an illegal memory access was encountered"))
        super().start(job, prompt, sampling)


def opened(_: Any) -> AbstractAsyncContextManager[Engine]:
    failing = Failing()  # here, where Trio runs
    return engine.open_exllama(SETTINGS, lambda *_: failing)


if __name__ == "__main__":
    vars(engine)["read_folder"] = lambda _: Spelt()
    vars(child)["_open"] = opened
    child.main()
