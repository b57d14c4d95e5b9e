"""What every engine must do, checked on each: in this process and through a worker."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from operator import mul
from pathlib import Path
from typing import Any

import on_gpu
import pytest
import trio
import vllm_server
from _pytest.mark import ParameterSet
from folders import embedded_folder
from leaving import killed, random_cancels, until_free
from llama_server import open_upstream_in_a_worker
from msgspec import structs
from on_cpu import UNAVAILABLE, open_on_cpu
from vllm_server import open_vllm_in_a_worker

from inference.engine import (
    CONTINUE,
    EMBED,
    LOGPROBS,
    SCHEMA,
    SCORE,
    TOOLS,
    Capacity,
    Delta,
    Engine,
    Finished,
    Message,
    Request,
    Tool,
    ToolCall,
)
from inference.errors import BadRequest, ContextOverflow, ModelMissing
from inference.exllama.settings import ExLlama
from inference.llamacpp import LlamaCpp, open_llamacpp
from inference.models import EMBEDDED_ID, embedded_model
from inference.records import Call, Embedding, Logprobs, RecordReader
from inference.scripted import Scripted, open_scripted
from inference.worker import Worker, open_worker

LLAMA = LlamaCpp(slots=2, context=512)
SLOW = pytest.mark.slow
CITY = {"type": "string", "maxLength": 20}
PARAMETERS = json.dumps(
    {"type": "object", "properties": {"city": CITY}, "required": ["city"], "additionalProperties": False}
)
SCRIPTED = Scripted(slots=2, tokens_per_s=500, ttft_s=0.02)


class Asker:
    """Asks one engine, and checks what is true of every answer."""

    def __init__(self, engine: Engine, block: int = 1) -> None:
        """Of prompts it keeps whole blocks of so many tokens."""
        self.engine = engine
        self.block = block
        self.model = engine.models()[0]

    def request(self, content: str = "Name some colours.", max_tokens: int = 8, **rest: Any) -> Request:
        return Request(model=self.model.id, messages=(Message("user", content),), max_tokens=max_tokens, **rest)

    async def text(self, request: Request) -> tuple[str, Finished]:
        async with self.engine.generate(request) as items:
            *deltas, finished = [item async for item in items]
        assert isinstance(finished, Finished)
        assert all(isinstance(delta, Delta) for delta in deltas)
        parts = [delta for delta in deltas if isinstance(delta, Delta)]
        usage = finished.usage
        assert sum(part.tokens for part in parts) == usage.completion_tokens <= request.max_tokens
        assert usage.prompt_tokens == await self.engine.count(request)
        assert 0 <= usage.cached_tokens < usage.prompt_tokens
        if finished.reason == "length":
            assert usage.completion_tokens == request.max_tokens
        return "".join(part.text for part in parts), finished

    async def until_free(self) -> None:
        await until_free(self.engine)


async def check_limits(ask: Asker) -> None:
    for max_tokens in (1, 2, 5):
        _, finished = await ask.text(ask.request(max_tokens=max_tokens))
        assert finished.reason == "length"


async def check_seeds(ask: Asker) -> None:
    # The first warms the cache: work done in other batches is rounded otherwise, which may tip a draw.
    _, first, again, other = [
        (await ask.text(ask.request("Write a poem.", temperature=1.0, seed=seed)))[0] for seed in (5, 5, 5, 6)
    ]
    assert first == again != other


async def check_stop(ask: Asker) -> None:
    whole, _ = await ask.text(ask.request(max_tokens=12))
    stop = whole[len(whole) // 2 :][:4]
    text, finished = await ask.text(ask.request(max_tokens=12, stop=("never said", stop)))
    assert text == whole[: whole.index(stop)]
    assert finished.reason == "stop"
    assert finished.usage.completion_tokens < 12


async def check_cancel(ask: Asker) -> None:
    for _ in range(3):  # one more than there are slots
        with trio.fail_after(10):
            async with ask.engine.generate(ask.request("Tell a long story.", 300)) as items:
                assert isinstance(await anext(items), Delta)
                assert ask.engine.capacity().free < 2
    with trio.move_on_after(0):
        await ask.text(ask.request())
    await ask.until_free()


async def check_random_cancels(ask: Asker) -> None:
    await random_cancels(ask.engine, 12, seed=1)


async def check_queue(ask: Asker) -> None:
    texts: dict[int, str] = {}

    async def client(number: int) -> None:
        texts[number], _ = await ask.text(ask.request(max_tokens=2))

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(client, number)
    assert set(texts) == set(range(5))
    await ask.until_free()


async def check_prefill(ask: Asker) -> None:
    request = ask.request(" ".join(str(number) for number in range(12)), 2)
    prompt_tokens = await ask.engine.count(request)
    assert await ask.engine.prefill(request, prompt_tokens // 2) >= prompt_tokens // 2
    assert await ask.engine.prefill(request, prompt_tokens + 100) == prompt_tokens
    _, finished = await ask.text(request)
    assert finished.usage.cached_tokens == (prompt_tokens - 1) // ask.block * ask.block > 0


async def check_an_answer_that_is_begun_goes_on(ask: Asker) -> None:
    assert CONTINUE in ask.model.features
    whole_request = ask.request("Count from one to twenty, in words.", 24)
    async with ask.engine.generate(whole_request) as items:
        deltas = [item async for item in items if isinstance(item, Delta)]
    whole, parts = "".join(delta.text for delta in deltas), deltas[:9]
    begun, tokens = "".join(delta.text for delta in parts), sum(delta.tokens for delta in parts)
    rest = whole_request.rest(begun, tokens)
    assert rest.max_tokens == 24 - tokens
    prompt_tokens = await ask.engine.count(rest)
    assert await ask.engine.prefill(rest, prompt_tokens + 100) == prompt_tokens
    text, finished = await ask.text(rest)
    assert begun + text == whole, "not a character is lost or said twice"
    assert finished.usage.prompt_tokens == prompt_tokens > await ask.engine.count(whole_request)
    assert finished.reason == "length"
    # A stop string in what is there already ends nothing, one in what is new does.
    said, stop = begun[-4:], text[len(text) // 2 :][:4]
    stopped, finished = await ask.text(structs.replace(rest, stop=(said + "never said", stop)))
    assert (stopped, finished.reason) == (text[: text.index(stop)], "stop")
    seeded = structs.replace(rest, temperature=1.0, seed=5)
    await ask.text(seeded)  # warms the cache, see above
    assert (await ask.text(seeded))[0] == (await ask.text(seeded))[0]


async def check_scores(ask: Asker) -> None:
    """An answer's own figures beside those of the same text after another prompt."""
    assert SCORE in ask.model.features
    greedy = ask.request("Describe the sea in a few sentences.", 20)
    drawn = structs.replace(greedy, temperature=0.8, seed=3)
    for request in (drawn, greedy):
        text, finished = await ask.text(request)
        own = await ask.engine.score(request, text)
        assert own.tokens == len(own.figures) == finished.usage.completion_tokens > 10
        assert own.end is not None
        assert all(one.logprob <= one.best <= 0 for one in own.figures)
        other = await ask.engine.score(ask.request("List three prime numbers.", 20), text)
        assert own.tokens == other.tokens
        assert sum(one.logprob for one in own.figures) > sum(one.logprob for one in other.figures) + 10
    assert max(one.best - one.logprob for one in own.figures) < 0.5, "a greedy answer is what the model likes best"
    part = await ask.engine.score(structs.replace(greedy, max_tokens=5), text)
    assert (part.tokens, len(part.figures), part.end) == (5, 5, None)
    assert [one.logprob for one in part.figures] == pytest.approx([one.logprob for one in own.figures[:5]], abs=0.2)
    with pytest.raises(ModelMissing):
        await ask.engine.score(structs.replace(greedy, model="another/model"), text)
    for bad in ("", "a\0b", "\ud800"):
        with pytest.raises(BadRequest):
            await ask.engine.score(greedy, bad)
    odd = await ask.engine.score(greedy, 'A "quoted" \\ and\n\t\x7f a 🦋, [x] | ( ) 漢字.')
    assert odd.tokens >= len(odd.figures) > 0
    with trio.move_on_after(0):
        await ask.engine.score(greedy, text)
    await ask.until_free()


async def check_that_nothing_is_scored(ask: Asker) -> None:
    with pytest.raises(BadRequest, match="does not score"):
        await ask.engine.score(ask.request(), "Red.")
    await ask.until_free()


WEATHER = Tool("weather", "The weather of a city", PARAMETERS)


async def check_a_schema(ask: Asker) -> None:
    asked = ask.request("How is the weather in Paris?", 60, schema=PARAMETERS)
    assert await ask.engine.prefill(asked, 5) >= 5
    text, finished = await ask.text(asked)
    assert finished.reason == "stop"
    assert json.loads(text).keys() == {"city"}
    cut, finished = await ask.text(ask.request("How is the weather in Paris?", 1, schema=PARAMETERS))
    assert finished.reason == "length"
    assert text.startswith(cut)


async def check_calls(ask: Asker) -> None:
    """A call that is required, and the answer to what came of it; the tools are part of the prompt."""
    asked = ask.request("How is the weather in Paris?", 60, tools=(WEATHER,), tool_choice="required")
    text, finished = await ask.text(asked)
    (call,) = RecordReader().feed(text)
    assert isinstance(call, Call)
    assert (call.name, json.loads(call.text).keys(), finished.reason) == ("weather", {"city"}, "stop")
    assert await ask.engine.count(asked) > await ask.engine.count(structs.replace(asked, tools=(), tool_choice="auto"))
    called = Message("assistant", "", (ToolCall("1", call.name, call.text),))
    came = Message("tool", "It rains.", tool_call_id="1")
    told = structs.replace(asked, messages=(*asked.messages, called, came), tool_choice="none", max_tokens=8)
    said, _ = await ask.text(told)
    assert RecordReader().feed(said) == [said]
    both = (WEATHER, structs.replace(WEATHER, name="forecast"))
    text, _ = await ask.text(structs.replace(asked, tools=both, tool="forecast"))
    assert [one.name for one in RecordReader().feed(text) if isinstance(one, Call)] == ["forecast"]


async def check_logprobs(ask: Asker) -> None:
    plain, finished = await ask.text(ask.request("Name some colours.", 6))
    for top in (0, 3):
        told, again = await ask.text(ask.request("Name some colours.", 6, top_logprobs=top))
        items = RecordReader().feed(told)
        tokens = [token for item in items if isinstance(item, Logprobs) for token in item.logprobs]
        assert "".join(item for item in items if isinstance(item, str)) == plain
        assert len(tokens) == again.usage.completion_tokens == finished.usage.completion_tokens == 6
        assert all(token.logprob <= 0 and len(token.top) == top for token in tokens)
        assert all(token.top[0][1] == max(each for _, each in token.top) for token in tokens if top)


async def check_embeddings(ask: Asker) -> None:
    texts = ("The moth spins silk.", "Silk is spun by a moth.", "Prime numbers have two divisors.")
    asked = ask.request(embed=True)
    asked = structs.replace(asked, messages=tuple(Message("user", text) for text in texts))
    text, finished = await ask.text(asked)
    assert (finished.reason, finished.usage.completion_tokens) == ("stop", 0)
    vectors = [item.vector for item in RecordReader().feed(text) if isinstance(item, Embedding)]
    assert [math.hypot(*vector) for vector in vectors] == pytest.approx([1.0] * 3, abs=1e-3)
    moths, others = [sum(map(mul, *pair)) for pair in (vectors[:2], vectors[1:])]
    assert 1 > moths > others
    assert await ask.engine.prefill(asked, 5) == 5
    with pytest.raises(ContextOverflow):
        await ask.text(structs.replace(asked, messages=(Message("user", "word " * 9000),)))


async def check_that_it_is_not_given(ask: Asker, **wanted: Any) -> None:
    with pytest.raises(BadRequest, match="that model"):
        await ask.text(ask.request(**wanted))


async def check_refusals(ask: Asker) -> None:
    with pytest.raises(BadRequest):
        await ask.text(ask.request(max_tokens=0))
    with pytest.raises(BadRequest):
        await ask.text(ask.request(tool_choice="required"))
    with pytest.raises(BadRequest):
        await ask.engine.count(structs.replace(ask.request(), messages=()))
    with pytest.raises(BadRequest, match="empty"):
        await ask.text(structs.replace(ask.request(), messages=(Message("user", "a"), Message("assistant", ""))))
    begun = (Message("assistant", "a"), Message("assistant", "b"))
    with pytest.raises(BadRequest, match="one message"):
        await ask.engine.count(structs.replace(ask.request(), messages=begun))
    with pytest.raises(ModelMissing):
        await ask.engine.count(structs.replace(ask.request(), model="another/model"))
    too_long = ask.request("word " * 9000)
    with pytest.raises(ContextOverflow) as caught:
        await ask.text(too_long)
    assert caught.value.context == ask.model.context
    assert caught.value.prompt_tokens == await ask.engine.count(too_long) > ask.model.context
    with pytest.raises(ContextOverflow):
        await ask.text(ask.request(max_tokens=ask.model.context))
    await ask.until_free()


async def check_errors_of_the_reader(ask: Asker) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with ask.engine.generate(ask.request()):
            raise KeyError("mine")
    await ask.until_free()


CHECKS = [
    check_limits,
    check_seeds,
    check_stop,
    check_cancel,
    check_random_cancels,
    check_queue,
    check_prefill,
    check_an_answer_that_is_begun_goes_on,
    check_refusals,
    check_errors_of_the_reader,
]


Check = Callable[[Asker], Awaitable[None]]

# What shows that a model has a feature, and that it has not.
FEATURES: dict[str, tuple[Check, Check]] = {
    SCORE: (check_scores, check_that_nothing_is_scored),
    TOOLS: (check_calls, partial(check_that_it_is_not_given, tools=(WEATHER,))),
    SCHEMA: (check_a_schema, partial(check_that_it_is_not_given, schema="{}")),
    LOGPROBS: (check_logprobs, partial(check_that_it_is_not_given, top_logprobs=1)),
    EMBED: (check_embeddings, partial(check_that_it_is_not_given, embed=True)),
}


@asynccontextmanager
async def open_exllama_in_a_worker(folder: Path) -> AsyncIterator[Engine]:
    embedded_folder(Path(embedded_model().path), folder)
    settings = ExLlama(folder=str(folder), id=EMBEDDED_ID, family="smollm", slots=2, context=512)
    async with open_worker(settings) as engine:
        yield engine


def without_gpu(version: int, **settings: Any) -> ParameterSet:
    why = UNAVAILABLE[version]
    return pytest.param(
        partial(open_on_cpu, version=version, **settings),
        OF_EXLLAMA,
        id=f"exllama {version} without its GPU{', guessing ahead' if 'draft' in settings else ''}",
        marks=[SLOW, pytest.mark.skipif(bool(why), reason=why)],
    )


OF_A_SERVER = (CONTINUE, SCHEMA, LOGPROBS, TOOLS, EMBED)
OF_VLLM = (CONTINUE, SCHEMA, LOGPROBS, TOOLS)
OF_EXLLAMA = (CONTINUE, SCORE, TOOLS, SCHEMA, LOGPROBS)
ALL = (*OF_EXLLAMA, EMBED)


@pytest.mark.parametrize(
    ("opener", "features"),
    [
        pytest.param(lambda _: open_scripted(SCRIPTED), ALL, id="scripted"),
        pytest.param(lambda _: open_worker(SCRIPTED), ALL, id="scripted in a worker"),
        pytest.param(lambda _: open_llamacpp(LLAMA), ALL, id="llamacpp", marks=SLOW),
        pytest.param(lambda _: open_worker(LLAMA), ALL, id="llamacpp in a worker", marks=SLOW),
        pytest.param(open_upstream_in_a_worker, OF_A_SERVER, id="upstream in a worker", marks=SLOW),
        pytest.param(
            open_vllm_in_a_worker,
            OF_VLLM,
            id="upstream vLLM in a worker",
            marks=[SLOW, pytest.mark.skipif(bool(vllm_server.unavailable()), reason=vllm_server.unavailable())],
        ),
        without_gpu(2),
        without_gpu(2, draft="ngram"),
        without_gpu(3),
        without_gpu(3, draft="ngram"),
        pytest.param(
            open_exllama_in_a_worker,
            OF_EXLLAMA,
            id="exllama in a worker",
            marks=[SLOW, pytest.mark.skipif(bool(on_gpu.unavailable()), reason=on_gpu.unavailable())],
        ),
    ],
)
async def test_the_contract_holds(
    opener: Callable[[Path], AbstractAsyncContextManager[Engine]], features: tuple[str, ...], tmp_path: Path
) -> None:
    block = vllm_server.BLOCK_TOKENS if opener is open_vllm_in_a_worker else 1
    async with opener(tmp_path) as engine:
        await engine.health()
        assert engine.capacity() == Capacity(2, 2)
        assert engine.models()[0].features == features
        for check in CHECKS:  # one after the other on one engine: loading is what costs
            await check(Asker(engine, block))
        for feature, (shown, missing) in FEATURES.items():
            await (shown if feature in features else missing)(Asker(engine))
            await Asker(engine).until_free()
        await engine.health()
        if isinstance(engine, Worker):
            await killed(engine)
