"""What the child process costs: the embedded engine's rate through a worker beside its rate in this process.

Both are loaded, and take turns under the same load; each pair gives a ratio, and the median of these counts.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence

import trio

from inference.llamacpp import LlamaCpp, open_llamacpp
from inference.load import Load, put_on
from inference.worker import open_worker

RATIO_MIN = 0.97
STREAMS = (1, 8)


async def measure(rounds: int, seconds: float) -> dict[int, list[tuple[float, float]]]:
    """Tokens per second by streams: here and through the worker, in pairs."""
    settings = LlamaCpp(slots=max(STREAMS), context=512)
    rates: dict[int, list[tuple[float, float]]] = {streams: [] for streams in STREAMS}
    async with open_llamacpp(settings) as here, open_worker(settings) as there:
        for number in range(rounds + 1):
            for streams in STREAMS:
                load = Load(streams=streams, seconds=seconds)
                order = (here, there) if number % 2 else (there, here)  # neither is always the first
                found = {engine: (await put_on(engine, load)).tokens_per_s for engine in order}
                if number:  # the first is to warm up
                    rates[streams].append((found[here], found[there]))
    return rates


def table(rates: dict[int, list[tuple[float, float]]]) -> Sequence[str]:
    lines = ["| streams | in this process, tokens/s | through the worker | ratio | pairs |", "|---|---|---|---|---|"]
    for streams, pairs in rates.items():
        here, there = (statistics.median(side) for side in zip(*pairs, strict=True))
        lines.append(f"| {streams} | {here:.1f} | {there:.1f} | {ratio(pairs):.3f} | {len(pairs)} |")
    return lines


def ratio(pairs: Sequence[tuple[float, float]]) -> float:
    return statistics.median(there / here for here, there in pairs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each turn")
    options = parser.parse_args()
    rates = trio.run(measure, options.rounds, options.seconds)
    sys.stdout.write("Medians; the ratio is the median of the ratios of the pairs.\n\n")
    sys.stdout.write("\n".join(table(rates)) + "\n")
    sys.exit(min(map(ratio, rates.values())) < RATIO_MIN)
