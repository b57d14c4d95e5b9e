"""What our processes around ExLlama's generator cost: tokens per second through the worker beside the generator alone.

The generator is a pretence, so that this takes no GPU: a turn waits for one, and works in Python for each answer, as
ExLlamaV2's does, on a core of its own. All around it is real, on the other cores.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "gpu"), str(HERE.parent.parent)]

import trio  # noqa: E402
from folders import embedded_folder  # noqa: E402

from inference import child, worker  # noqa: E402
from inference.exllama import engine, generator, process  # noqa: E402
from inference.exllama.backend import Sampling, Step  # noqa: E402
from inference.exllama.settings import ExLlama  # noqa: E402
from inference.load import Load, put_on  # noqa: E402
from inference.models import embedded_model  # noqa: E402

RATIO_MIN = 0.95
STREAMS = (1, 8, 32, 64)
TOKENS = 128
CORES = sorted(os.sched_getaffinity(0))
GPU_S, EACH_S = 0.006, 0.00004  # a small model's turn on a fast GPU, and what the library does for one answer


class Waiting:
    """A back end that gives each answer the next of the vocabulary's words."""

    def __init__(self) -> None:
        self._left: dict[int, int] = {}

    def start(self, job: int, _prompt: Sequence[int], sampling: Sampling, _rule: Any = None) -> None:
        self._left[job] = sampling.max_tokens

    def cancel(self, job: int) -> None:
        self._left.pop(job, None)

    def turn(self) -> list[Step]:
        time.sleep(GPU_S)
        steps = []
        for job, left in [*self._left.items()]:
            until_s = time.perf_counter() + EACH_S
            while time.perf_counter() < until_s:
                pass
            steps.append(Step(job, (1000 + left,), "" if left > 1 else "length"))
            self._left[job] = left - 1
            if left == 1:
                del self._left[job]
        return steps

    def rebuild(self) -> None:
        raise AssertionError


def alone(streams: int, seconds: float) -> float:
    os.sched_setaffinity(0, CORES[-1:])  # of this thread
    backend, tokens, began_s = Waiting(), 0, time.perf_counter()
    sampling = Sampling(TOKENS, 0.0, 1.0, 0)
    for job in range(streams):
        backend.start(job, (), sampling)
    while time.perf_counter() - began_s < seconds:
        for step in backend.turn():
            tokens += 1
            if step.end:
                backend.start(step.job, (), sampling)
    return tokens / (time.perf_counter() - began_s)


async def measure(rounds: int, seconds: float) -> dict[int, list[tuple[float, float]]]:
    """Tokens per second by streams: the generator alone and through the worker, in pairs."""
    rates: dict[int, list[tuple[float, float]]] = {streams: [] for streams in STREAMS}
    vars(worker)["_PROGRAM"] = [__file__, "--as-worker", str(CORES[-1])]
    with TemporaryDirectory() as folder:
        embedded_folder(Path(embedded_model().path), Path(folder))
        settings = ExLlama(folder=folder, id="m", family="m", slots=max(STREAMS), context=1024)
        async with worker.open_worker(settings) as ours:
            for _ in range(rounds):
                for streams in STREAMS:
                    bare = await trio.to_thread.run_sync(alone, streams, seconds)
                    load = Load(streams=streams, tokens=TOKENS, seconds=seconds)
                    rates[streams].append((bare, (await put_on(ours, load)).tokens_per_s))
    return rates


def table(rates: dict[int, list[tuple[float, float]]]) -> Sequence[str]:
    lines = ["| streams | generator alone, tokens/s | through the worker | ratio | pairs |", "|---|---|---|---|---|"]
    for streams, pairs in rates.items():
        bare, ours = (statistics.median(side) for side in zip(*pairs, strict=True))
        lines.append(f"| {streams} | {bare:.0f} | {ours:.0f} | {ratio(pairs):.3f} | {len(pairs)} |")
    return lines


def ratio(pairs: Sequence[tuple[float, float]]) -> float:
    return statistics.median(ours / bare for bare, ours in pairs)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each turn")
    options = parser.parse_args()
    if missing := [name for name in ("tokenizers", "numpy", "safetensors") if find_spec(name) is None]:
        sys.stdout.write(f"Not run: {', '.join(missing)} is not installed.\n")
        return 0
    if len(CORES) == 1:
        sys.stdout.write("Not run: it takes two cores.\n")
        return 0
    os.sched_setaffinity(0, CORES[:-1])
    rates = trio.run(measure, options.rounds, options.seconds)
    sys.stdout.write("Medians; the ratio is the median of the ratios of the pairs.\n\n")
    sys.stdout.write("\n".join(table(rates)) + "\n")
    return min(map(ratio, rates.values())) < RATIO_MIN


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--as-worker", core]:
            start = partial(process.open_generator, program=[__file__, "--as-generator", core])
            vars(child)["_open"] = lambda settings: engine.open_exllama(settings, start)
            child.main()
        case ["--as-generator", core]:
            os.sched_setaffinity(0, [int(core)])
            generator.main(lambda _: Waiting())
        case _:
            sys.exit(main())
