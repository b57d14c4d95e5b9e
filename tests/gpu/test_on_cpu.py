"""What the real ExLlamas do through our back ends, as far as it goes without a GPU. They keep the contract, too."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec import structs
from on_cpu import UNAVAILABLE, open_on_cpu

from inference.engine import Delta, Engine, Finished, Message, Request
from inference.errors import EngineDied, EngineError

pytestmark = pytest.mark.slow


@pytest.fixture(params=[2, 3])
def version(request: pytest.FixtureRequest) -> int:
    if UNAVAILABLE[request.param]:
        pytest.skip(UNAVAILABLE[request.param])
    return int(request.param)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("embedded")


def ask(content: str, max_tokens: int = 24, **rest: Any) -> Request:
    return Request(model="embedded", messages=(Message("user", content),), max_tokens=max_tokens, **rest)


async def answer(engine: Engine, request: Request) -> tuple[str, Finished]:
    async with engine.generate(request) as items:
        *deltas, finished = [item async for item in items]
    assert isinstance(finished, Finished)
    parts = [delta for delta in deltas if isinstance(delta, Delta)]
    assert sum(part.tokens for part in parts) == finished.usage.completion_tokens
    return "".join(part.text for part in parts), finished


async def together(engine: Engine, requests: Sequence[Request]) -> list[str]:
    texts = [""] * len(requests)

    async def client(at: int) -> None:
        texts[at], _ = await answer(engine, requests[at])

    async with trio.open_nursery() as nursery:
        for at in range(len(requests)):
            nursery.start_soon(client, at)
    return texts


async def test_guessing_ahead_changes_neither_words_nor_counts(folder: Path, version: int) -> None:
    question = ask("Count from one to twenty, in words.", 20)
    async with open_on_cpu(folder, version=version) as engine:
        plain = await answer(engine, question)
    async with open_on_cpu(folder, version=version, draft="ngram") as engine:
        guessed = await answer(engine, question)
    assert plain[0] == guessed[0]
    assert (guessed[1].reason, guessed[1].usage.completion_tokens) == ("length", 20)


async def test_a_banned_string_is_not_said_and_not_counted(folder: Path, version: int) -> None:
    async with open_on_cpu(folder, version=version, banned=("paris",)) as engine:
        text, _ = await answer(engine, ask("What is the capital of France?"))
    assert text
    assert "paris" not in text.lower()


async def test_batches_are_not_mixed_up(folder: Path, version: int) -> None:
    questions = [ask(f"What is the capital of {land}?", 8) for land in ("France", "Italy", "Spain", "Japan")]
    async with open_on_cpu(folder, version=version, slots=4) as engine:
        alone = [(await answer(engine, question))[0] for question in questions]
        assert await together(engine, questions) == alone


async def test_a_schema_binds_its_own_answer_alone(folder: Path, version: int) -> None:
    schema = '{"type":"array","items":{"type":"string","maxLength":9},"minItems":2,"maxItems":3}'
    plain = [ask(f"What is the capital of {land}?", 8) for land in ("France", "Italy")]
    held = [ask(f"Name cities of {land}.", 40, schema=schema) for land in ("France", "Italy")]
    for draft in ("", "ngram"):
        async with open_on_cpu(folder, version=version, slots=4, draft=draft) as engine:
            alone = [(await answer(engine, question))[0] for question in plain + held]
            assert await together(engine, plain + held) == alone
        assert all(2 <= len(json.loads(text)) <= 3 for text in alone[2:])
        assert not alone[0].startswith("[")


async def test_after_a_fault_the_generator_works_again(folder: Path, version: int) -> None:
    async with open_on_cpu(folder, "failing", version=version) as engine:
        with pytest.raises(EngineError, match="the generator failed with ValueError"):
            await answer(engine, ask("What is the capital of France?"))
        text, finished = await answer(engine, ask("What is the capital of France?"))
    assert "Paris" in text
    assert finished.usage.cached_tokens == 0, "its cache is empty"


async def test_a_gpu_that_fails_at_a_prompt_ends_the_process(folder: Path, version: int) -> None:
    async def run() -> None:
        async with open_on_cpu(folder, "dead", version=version) as engine:
            with pytest.raises(EngineError, match="the generator failed with RuntimeError"):
                await answer(engine, ask("What is the capital of France?"))
            await trio.sleep_forever()

    with pytest.raises(EngineDied, match="the GPU failed"):
        await run()


async def test_an_answer_may_fill_its_whole_context(folder: Path, version: int) -> None:
    question = ask(f"Tell a long story of {'the sun, the moon, ' * 32}and stars.")
    async with open_on_cpu(folder, version=version, slots=1, context=256) as engine:
        room = 256 - await engine.count(question)
        _, finished = await answer(engine, structs.replace(question, max_tokens=room))
    assert (finished.reason, finished.usage.completion_tokens) == ("length", room)
