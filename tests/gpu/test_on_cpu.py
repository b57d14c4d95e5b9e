"""What the real ExLlamaV2 does through our back end, as far as it goes without a GPU. It keeps the contract, too."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import on_cpu
import pytest
import trio
from on_cpu import open_on_cpu

from inference.engine import Delta, Engine, Finished, Message, Request
from inference.errors import EngineError

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(on_cpu.unavailable()), reason=on_cpu.unavailable())]


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


async def test_guessing_ahead_changes_neither_words_nor_counts(folder: Path) -> None:
    question = ask("Count from one to twenty, in words.", 20)
    async with open_on_cpu(folder) as engine:
        plain = await answer(engine, question)
    async with open_on_cpu(folder, draft="ngram") as engine:
        guessed = await answer(engine, question)
    assert plain[0] == guessed[0]
    assert (guessed[1].reason, guessed[1].usage.completion_tokens) == ("length", 20)


async def test_a_banned_string_is_not_said_and_not_counted(folder: Path) -> None:
    async with open_on_cpu(folder, banned=("paris",)) as engine:
        text, _ = await answer(engine, ask("What is the capital of France?"))
    assert text
    assert "paris" not in text.lower()


async def test_batches_are_not_mixed_up(folder: Path) -> None:
    questions = [ask(f"What is the capital of {land}?", 8) for land in ("France", "Italy", "Spain", "Japan")]
    async with open_on_cpu(folder, slots=4) as engine:
        alone = [(await answer(engine, question))[0] for question in questions]
        assert await together(engine, questions) == alone


async def test_a_schema_binds_its_own_answer_alone(folder: Path) -> None:
    schema = '{"type":"array","items":{"type":"string","maxLength":9},"minItems":2,"maxItems":3}'
    plain = [ask(f"What is the capital of {land}?", 8) for land in ("France", "Italy")]
    held = [ask(f"Name cities of {land}.", 40, schema=schema) for land in ("France", "Italy")]
    for draft in ("", "ngram"):
        async with open_on_cpu(folder, slots=4, draft=draft) as engine:
            alone = [(await answer(engine, question))[0] for question in plain + held]
            assert await together(engine, plain + held) == alone
        assert all(2 <= len(json.loads(text)) <= 3 for text in alone[2:])
        assert not alone[0].startswith("[")


async def test_after_a_fault_the_generator_works_again(folder: Path) -> None:
    async with open_on_cpu(folder, "failing") as engine:
        with pytest.raises(EngineError, match="the generator failed with ValueError"):
            await answer(engine, ask("What is the capital of France?"))
        text, finished = await answer(engine, ask("What is the capital of France?"))
    assert "Paris" in text
    assert finished.usage.cached_tokens == 0, "its cache is empty"
