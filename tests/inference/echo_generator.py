"""The generator's process, with a back end that says its prompt again and fails when it is told to."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "gpu"), str(HERE.parent.parent)]

from test_exllama import Said  # noqa: E402

from inference.errors import BadSettings  # noqa: E402
from inference.exllama import generator  # noqa: E402
from inference.exllama.backend import Rule, Sampling, Step  # noqa: E402
from inference.exllama.orders import Open  # noqa: E402


class Echo:
    """One id a turn for each job, the prompt's and then dots, or what a rule has it say. A turn takes a moment.

    Its GPU fails on an exclamation mark.
    """

    def __init__(self) -> None:
        self._jobs: dict[int, tuple[list[int], Rule | None]] = {}

    def start(self, job: int, prompt: Sequence[int], sampling: Sampling, rule: Rule | None) -> None:
        left = [*prompt, *[ord(".")] * sampling.max_tokens][: sampling.max_tokens]
        self._jobs[job] = left, rule

    def cancel(self, job: int) -> None:
        self._jobs.pop(job, None)

    def turn(self) -> list[Step]:
        time.sleep(0.005)
        return [self._step(job, *told) for job, told in [*self._jobs.items()]]

    def _step(self, job: int, left: list[int], rule: Rule | None) -> Step:
        token = left.pop(0)
        if rule:
            token = rule.allowed().index(1)
            rule.take(token)
        if token == ord("!"):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if token and left:
            return Step(job, (token,))
        del self._jobs[job]
        return Step(job, (token,), "length") if token else Step(job, (), "stop")

    def rebuild(self) -> None:
        raise AssertionError


def load(_: Open) -> Echo:
    sys.stdout.write("a library has something to say\n")
    sys.stdout.flush()
    match sys.argv[1:]:
        case ["unloadable"]:
            raise BadSettings("there is no GPU for that")
        case ["dying"]:
            os.abort()
        case ["loading"]:
            time.sleep(60)
    return Echo()


if __name__ == "__main__":
    vars(generator)["read_vocabulary"] = lambda *_: Said()
    generator.main(load)
