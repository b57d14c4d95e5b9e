"""What only a GPU shows: `make gpu`. The contract that every engine keeps is run there too."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import on_gpu
import pytest
import trio
from folders import embedded_folder

from inference.engine import Delta, Finished, Message, Request
from inference.errors import EngineDied
from inference.exllama.settings import ExLlama
from inference.models import embedded_model
from inference.worker import Worker, open_worker

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(on_gpu.unavailable()), reason=on_gpu.unavailable())]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return embedded_folder(Path(embedded_model().path), tmp_path_factory.mktemp("embedded"))


@asynccontextmanager
async def served(folder: Path, **settings: Any) -> AsyncIterator[Worker]:
    spec = ExLlama(folder=str(folder), id="m", family="m", context=512, **settings)
    async with open_worker(spec) as engine:
        yield engine


def ask(content: str, max_tokens: int = 24, **rest: Any) -> Request:
    return Request(model="m", messages=(Message("user", content),), max_tokens=max_tokens, **rest)


async def text(engine: Worker, request: Request) -> str:
    async with engine.generate(request) as items:
        return "".join([item.text async for item in items if isinstance(item, Delta)])


async def test_gpu_greedy_answers_alone_and_in_a_batch(folder: Path) -> None:
    """A model of this size knows this much, unless its weights or the attention are wrong."""
    async with served(folder, slots=8) as engine:
        assert "Paris" in await text(engine, ask("What is the capital of France?"))
        found: list[str] = []

        async def client() -> None:
            found.append(await text(engine, ask("What is the capital of France?")))

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(client)
        assert all("Paris" in one for one in found)


@pytest.mark.parametrize("cache", ["q8", "q6", "q4"])
async def test_gpu_a_quantised_cache(folder: Path, cache: str) -> None:
    async with served(folder, cache=cache) as engine:
        assert "Paris" in await text(engine, ask("What is the capital of France?"))


async def test_gpu_guessing_ahead_changes_no_greedy_answer(folder: Path) -> None:
    question = ask("Count from one to twenty, in words.", 60)
    async with served(folder) as engine:
        plain = await text(engine, question)
    for draft in ("ngram", str(folder)):
        async with served(folder, draft=draft) as engine:
            guessed = await text(engine, question)
            assert guessed[:40] == plain[:40]  # rounding in other batches may tip a later one
            async with engine.generate(ask("Count from one to twenty, in words.", 7)) as items:
                *_, finished = [item async for item in items]
            assert isinstance(finished, Finished)
            assert (finished.reason, finished.usage.completion_tokens) == ("length", 7)


async def test_gpu_a_banned_string_is_not_said(folder: Path) -> None:
    async with served(folder, banned=("paris",)) as engine:
        said = await text(engine, ask("What is the capital of France?"))
    assert said
    assert "paris" not in said.lower()


async def test_gpu_two_hundred_random_cancels(folder: Path) -> None:
    chance = random.Random(1)
    async with served(folder, slots=8) as engine:

        async def client(number: int) -> None:
            with trio.move_on_after(chance.random() / 2):
                await text(engine, ask(f"Tell story {number}.", 200))

        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(client, number)
        with trio.fail_after(10):
            while engine.capacity().free < 8:  # noqa: ASYNC110 - capacity has no event to wait for
                await trio.sleep(0.01)
        assert "Paris" in await text(engine, ask("What is the capital of France?"))


async def test_gpu_a_killed_worker_is_back(folder: Path) -> None:
    async with served(folder) as engine:
        async with engine.generate(ask("Tell a long story.", 300)) as items:
            await anext(items)
            assert engine.pid is not None
            os.kill(engine.pid, signal.SIGKILL)
            with pytest.raises(EngineDied):
                _ = [item async for item in items]
        assert "Paris" in await text(engine, ask("What is the capital of France?"))
