"""Readers who leave an engine's answers wherever they like, and an engine whose process is killed under them.

The suite has a few leave, `make proof` 200 of each engine.
"""

from __future__ import annotations

import os
import signal
import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import trio
import vllm_server
from llama_server import open_upstream_in_a_worker
from on_cpu import UNAVAILABLE, open_on_cpu
from vllm_server import open_vllm_in_a_worker

from inference.engine import Capacity, Engine, Message, Request
from inference.errors import EngineDied
from inference.llamacpp import LlamaCpp
from inference.scripted import Scripted
from inference.worker import Worker, open_worker

LANES = 4  # twice as many as there are slots
LONGEST_S = 0.3
ALONE = 20  # answers that are left with nothing else under way
WITHIN_S = 60.0  # of a machine that has much else to do
RESTART_S = 300.0  # as long as a worker may take to start; a server is tried out anew
QUESTION = (Message("user", "Count from one to twenty, in words."),)


@dataclass
class Left:
    """Seconds that it took to get away from an answer that had begun, and how many were left before."""

    seconds: list[float] = field(default_factory=list)
    before: int = 0


async def random_cancels(engine: Engine, count: int, seed: int) -> Left:
    """`count` answers left, after some pieces or some time; then the engine is as it was."""
    whole = Request(model=engine.models()[0].id, messages=QUESTION, max_tokens=16)
    said, left, dice = await _text(engine, whole), Left(), Random(seed)
    long = Request(model=whole.model, messages=QUESTION, max_tokens=300)

    async def leave(times: int) -> None:
        for _ in range(times):
            with trio.fail_after(WITHIN_S):
                if dice.randrange(2):
                    left.seconds.append(await _after_pieces(engine, long, dice.randrange(1, 6)))
                    continue
                with trio.move_on_after(LONGEST_S * dice.random()):
                    await _text(engine, long)
                left.before += 1

    async with trio.open_nursery() as nursery:
        for lane in range(LANES):
            nursery.start_soon(leave, len(range(lane, count, LANES)))
    await until_free(engine)
    assert await _text(engine, whole) == said
    return left


async def place_free_s(engine: Engine, seed: int) -> list[float]:
    """Seconds from leaving an answer until its place is free, each time with nothing else under way."""
    dice, seconds = Random(seed), []
    long = Request(model=engine.models()[0].id, messages=QUESTION, max_tokens=300)
    for _ in range(ALONE):
        await _after_pieces(engine, long, dice.randrange(1, 6))
        left_s = trio.current_time()
        await until_free(engine)
        seconds.append(trio.current_time() - left_s)
    return seconds


async def killed(engine: Worker) -> None:
    """Its process, with more answers under way than it has places: all fail, and the next is given."""
    asked = Request(model=engine.models()[0].id, messages=QUESTION, max_tokens=300)
    begun, failed = trio.Event(), []

    async def reader() -> None:
        try:
            async with engine.generate(asked) as items:
                async for _ in items:
                    begun.set()
        except EngineDied:
            failed.append(True)

    assert engine.pid is not None
    with trio.fail_after(WITHIN_S):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(reader)
            await begun.wait()
            os.kill(engine.pid, signal.SIGKILL)
    assert failed == [True] * 3
    with trio.fail_after(RESTART_S):
        assert await _text(engine, Request(model=asked.model, messages=QUESTION, max_tokens=4))
    await until_free(engine)


async def until_free(engine: Engine) -> None:
    """All places, which are two."""
    with trio.fail_after(10):
        while engine.capacity() != Capacity(2, 2):  # noqa: ASYNC110 - capacity has no event to wait for
            await trio.sleep(0.001)


async def _text(engine: Engine, request: Request) -> str:
    async with engine.generate(request) as items:
        return "".join([getattr(item, "text", "") async for item in items])


async def _after_pieces(engine: Engine, request: Request, pieces: int) -> float:
    async with engine.generate(request) as items:
        for _ in range(pieces):
            await anext(items)
        had_enough_s = trio.current_time()
    return trio.current_time() - had_enough_s


VLLM = "upstream, vLLM"


def run(seed: int, count: int) -> Sequence[str]:
    """The table of `make proof`."""
    times = "to get away, median | worst | until its place is free, median | worst"
    rows = [f"| engine, in processes of its own | left in the middle | sooner | {times} |"]
    rows.append("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    with TemporaryDirectory() as folder:
        openers: dict[str, Callable[[], AbstractAsyncContextManager[Engine]]] = {
            "scripted": partial(open_worker, Scripted(slots=2, tokens_per_s=500, ttft_s=0.02)),
            "llamacpp": partial(open_worker, LlamaCpp(slots=2, context=512)),
            "upstream, a llama-server": partial(open_upstream_in_a_worker, Path(folder)),
            VLLM: partial(open_vllm_in_a_worker, Path(folder)),
        }
        missing = {VLLM: vllm_server.unavailable()}
        for version, reason in UNAVAILABLE.items():
            name = f"exllama {version} without its GPU, nor a worker"
            openers[name] = partial(open_on_cpu, Path(folder) / "exllama", version=version)
            missing[name] = reason
        for name, opener in openers.items():
            if reason := missing.get(name, ""):
                rows.append(f"| {name} | not run: {reason} | | | | | |")
                continue

            async def cancelled() -> tuple[Left, list[float]]:
                async with opener() as engine:  # noqa: B023 - it is run at once
                    return await random_cancels(engine, count, seed), await place_free_s(engine, seed)

            left, free_s = trio.run(cancelled)
            away, free = _median_and_worst(left.seconds), _median_and_worst(free_s)
            rows.append(f"| {name} | {len(left.seconds)} | {left.before} | {away} | {free} |")
    return rows


def _median_and_worst(seconds: Sequence[float]) -> str:
    return f"{1000 * statistics.median(seconds):.1f} ms | {1000 * max(seconds):.1f} ms"
