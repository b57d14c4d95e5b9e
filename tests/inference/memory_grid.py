"""What a served model takes beside what `models fit` says it will, and what happens under a hard limit.

A child process gets the limit, so that the worker that it starts inherits it. The kernel's limit is on what a process
may write to (`RLIMIT_DATA`): the weights are mapped, not written, and each thread's stack counts whole though it is
hardly used, so that the limit is less by those and more by these.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import trio

from inference.engine import Message, Request
from inference.errors import EngineError
from inference.fitting import MEBIBYTE, ON_CPU, longest_context, needs, total
from inference.llamacpp import LlamaCpp
from inference.local_models import read_model
from inference.models import embedded_model
from inference.worker import Worker, open_worker

ROOT = Path(__file__).parent.parent.parent
GRID = ((1, 512), (1, 4096), (1, 8192), (2, 2048), (4, 1024), (4, 4096), (8, 2048), (8, 4096), (16, 1024))
STACK = 8 * MEBIBYTE  # of a thread
BEYOND = 128 * MEBIBYTE  # more than is spared in threads, in what is said, and in libraries, which are mapped too
WITHIN = 0.15  # by which what is said may be above what is measured
CACHE = "f16"  # what our llama.cpp keeps


def said(slots: int, context: int) -> int:
    """Bytes in all."""
    found = read_model(Path(embedded_model().path))
    return total(needs(found.architecture, found.weights, ON_CPU, context=context, slots=slots, cache=CACHE))


async def measured(slots: int, context: int) -> int:
    """The most that was ever resident in the worker while every slot gave an answer. Raises `EngineError`."""
    async with open_worker(LlamaCpp(slots=slots, context=context)) as engine:
        async with trio.open_nursery() as nursery:
            for number in range(slots):
                nursery.start_soon(_answer, engine, number)
        assert engine.pid is not None
        return most_resident(engine.pid)


def most_resident(pid: int) -> int:
    """Bytes, ever since the process began."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


async def _answer(engine: Worker, number: int) -> None:
    messages = (Message("user", f"{number}?"),)
    async with engine.generate(Request(model=engine.models()[0].id, messages=messages, max_tokens=2)) as items:
        async for _ in items:
            pass


def fits(budget: int, slots: int) -> int:
    """The longest context that `models fit` says fits, in tokens for each slot."""
    found = read_model(Path(embedded_model().path))
    return longest_context(found.architecture, found.weights, ON_CPU, slots=slots, cache=CACHE, budget=budget)


def run_limited(budget: int, slots: int, context: int) -> str:
    """Serve in a process that may have `budget` bytes; "served", or the error."""
    stacks = ON_CPU.threads_for(slots) * STACK
    limit = budget - read_model(Path(embedded_model().path)).weights.bytes + stacks
    command = [sys.executable, __file__, str(limit), str(slots), str(context)]
    done = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120)
    return done.stdout.strip() or f"ended with {done.returncode}"


def run() -> tuple[Sequence[str], bool]:
    """The table, and whether it all holds."""
    lines = ["| slots | context | said, MiB | measured, MiB | said / measured |", "|--:|--:|--:|--:|--:|"]
    holds = True
    for slots, context in GRID:
        promise, found = said(slots, context), trio.run(measured, slots, context)
        holds = holds and found <= promise <= found * (1 + WITHIN)
        sizes = f"{promise / MEBIBYTE:.0f} | {found / MEBIBYTE:.0f}"
        lines.append(f"| {slots} | {context} | {sizes} | {promise / found:.3f} |")
    lines += ["", "| limit, MiB | slots | fits, it says | so much | more than fits |", "|--:|--:|--:|---|---|"]
    for budget, slots in ((300 * MEBIBYTE, 2), (400 * MEBIBYTE, 4), (600 * MEBIBYTE, 8)):
        longest = fits(budget, slots)
        good, bad = run_limited(budget, slots, longest), run_limited(budget, slots, beyond(longest, slots))
        holds = holds and good == "served" != bad
        lines.append(f"| {budget // MEBIBYTE} | {slots} | {longest} | {good} | {bad} |")
    return lines, holds


def beyond(longest: int, slots: int) -> int:
    """A context that is over the limit by `BEYOND`."""
    found = read_model(Path(embedded_model().path)).architecture
    per_token = slots * found.cached_per_token * 2
    return longest + -(-BEYOND // per_token // 256) * 256


async def _serve(slots: int, context: int) -> str:
    said = "served"
    try:
        await measured(slots, context)
    except* EngineError as failed:  # of each slot
        error = next(leaves(failed))
        said = f"{type(error).__name__}: {error}".replace(embedded_model().path, "the model")
    return said


def leaves(group: BaseExceptionGroup[EngineError]) -> Iterator[EngineError]:
    for one in group.exceptions:
        yield from leaves(one) if isinstance(one, BaseExceptionGroup) else (one,)


if __name__ == "__main__":
    bytes_, slots_, context_ = map(int, sys.argv[1:])
    resource.setrlimit(resource.RLIMIT_STACK, (STACK, STACK))
    resource.setrlimit(resource.RLIMIT_DATA, (bytes_, bytes_))
    sys.stdout.write(trio.run(_serve, slots_, context_))
