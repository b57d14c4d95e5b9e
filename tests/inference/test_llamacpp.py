"""The embedded model itself: what holds only for the real thing."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
import trio
from msgspec import structs

from inference.engine import Delta, Finished, Message, Request
from inference.llamachunks import answer_body
from inference.llamacpp import LlamaCpp, LlamaCppEngine, open_llamacpp
from inference.models import EMBEDDED_DIGEST, EMBEDDED_ID

pytestmark = pytest.mark.slow


def ask(content: str, max_tokens: int = 6, **rest: float) -> Request:
    return Request(model=EMBEDDED_ID, messages=(Message("user", content),), max_tokens=max_tokens, **rest)  # type: ignore[arg-type]


async def collect(engine: LlamaCppEngine, request: Request) -> tuple[list[Delta], Finished]:
    async with engine.generate(request) as items:
        *deltas, finished = [item async for item in items]
    assert isinstance(finished, Finished)
    return [delta for delta in deltas if isinstance(delta, Delta)], finished


async def check_the_model_answers(engine: LlamaCppEngine) -> None:
    (model,) = engine.models()
    assert (model.family, model.quantisation, model.digest) == ("smollm", "Q4_1", EMBEDDED_DIGEST)
    assert model.context == 512
    deltas, finished = await collect(engine, ask("What is 2+2?", 24))
    assert "4" in "".join(delta.text for delta in deltas)
    assert finished.reason == "stop"


async def check_the_prompt_is_counted_with_its_template(engine: LlamaCppEngine) -> None:
    question = ask("Capital of France?")
    counted = await engine.count(question)
    assert counted == 34, "24 for the default system prompt, 4 for the question, the rest for the turns"
    own = await engine.count(structs.replace(question, messages=(Message("system", "Be brief."), *question.messages)))
    assert own < counted


async def check_a_character_of_several_tokens_is_counted_whole(engine: LlamaCppEngine) -> None:
    request = ask("Repeat: 🦋🦋🦋🦋", 7)
    deltas, finished = await collect(engine, request)
    assert "".join(delta.text for delta in deltas) == "🦋🦋"
    assert [delta.tokens for delta in deltas] == [3, 3, 1], "the last begins a third one"
    assert finished.usage.completion_tokens == 7


async def check_counts_equal_the_ids(engine: LlamaCppEngine) -> None:
    """Against the ids of the same answer, which only the HTTP side tells."""
    rng = Random(3)
    words = ["tea", "🦋", "π", "Über", "x=1;", "漢字", "once", "\n\n"]
    asked = [ask("What is 2+2?", 24)]  # it ends by itself, with an end token
    for _ in range(6):
        content = " ".join(rng.choices(words, k=rng.randrange(1, 6)))
        asked.append(ask(content, rng.randrange(1, 12), temperature=rng.choice([0.0, 1.0]), seed=rng.randrange(1000)))
    for request in asked:
        deltas, finished = await collect(engine, request)
        prompt = await engine._admit(request)
        body = answer_body(request, prompt, 0) | {"stream": False, "return_tokens": True}
        same = await engine._server.call("POST", "/completion", body)
        ids = same["tokens"] if same["stop_type"] == "limit" else same["tokens"][:-1]
        assert sum(delta.tokens for delta in deltas) == len(ids) == finished.usage.completion_tokens
        # What the last token only begins to spell is not delivered.
        assert same["content"].startswith("".join(delta.text for delta in deltas))


async def check_a_long_prompt_can_be_left_in_the_middle(engine: LlamaCppEngine) -> None:
    request = ask(" ".join(str(number) for number in range(100, 180)))
    total = await engine.count(request)
    with trio.move_on_after(0.05) as scope:
        await engine.prefill(request, total)
    assert scope.cancelled_caught
    assert engine.capacity().free == 2
    with trio.move_on_after(0.05) as scope:
        await collect(engine, request)
    assert scope.cancelled_caught
    assert engine.capacity().free == 2


async def check_work_done_in_advance_survives_short_chats(engine: LlamaCppEngine) -> None:
    long = ask(" ".join(str(number) for number in range(30)), 1)
    assert await engine.prefill(long, 60) == 60
    for greeting in ("Hi", "Hello there", "Good day"):
        await collect(engine, ask(greeting, 1))
    _, finished = await collect(engine, long)
    assert finished.usage.cached_tokens == 60


def check_nothing_listens_on_the_network() -> None:
    """The HTTP side that llama.cpp always opens has neither a port nor a name."""
    inodes = {str(fd.readlink()) for fd in Path("/proc/self/fd").iterdir() if fd.exists()}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            assert fields[3] != "0A" or f"socket:[{fields[9]}]" not in inodes
    sockets = [line.split() for line in Path("/proc/self/net/unix").read_text().splitlines()[1:]]
    names = [fields[7] for fields in sockets if f"socket:[{fields[6]}]" in inodes and len(fields) > 7]
    assert names
    assert not any(Path(name).exists() for name in names)


async def test_a_long_way_to_the_temporary_files_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of a socket has 107 bytes at most; theirs may have more."""
    far = tmp_path / ("far" * 40)
    far.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(far))
    async with open_llamacpp(LlamaCpp(slots=1, context=512)) as engine:
        await engine.health()
    assert list(far.iterdir()) == []


async def test_the_embedded_model(capfd: pytest.CaptureFixture[str]) -> None:
    async with open_llamacpp(LlamaCpp(slots=2, context=512)) as engine:
        check_nothing_listens_on_the_network()
        for check in (
            check_the_model_answers,
            check_the_prompt_is_counted_with_its_template,
            check_a_character_of_several_tokens_is_counted_whole,
            check_counts_equal_the_ids,
            check_a_long_prompt_can_be_left_in_the_middle,
            check_work_done_in_advance_survives_short_chats,
        ):
            await check(engine)
    assert capfd.readouterr() == ("", "")
