"""The engine in front of somebody's server: what servers of each kind say, and all that can go wrong with one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec import structs
from recorded_server import KEY, NAME, SAYS, Recorded, event, piece, prompt_tokens_of
from trio.testing import MockClock

from inference.engine import (
    CONTINUE,
    ESTIMATES,
    LOGPROBS,
    SCHEMA,
    TOOLS,
    Capacity,
    Delta,
    Finished,
    Message,
    Request,
    Usage,
)
from inference.errors import BadRequest, BadSettings, ContextOverflow, EngineError, ModelMissing
from inference.eventstream import LINE_MAX_BYTES
from inference.records import SEPARATOR, RecordReader
from inference.upstream import _FORMS, ServedModel, Upstream, UpstreamEngine, open_upstream

MODEL = "Example/Counter-1B"
SECRET = "the-prompt-itself"
QUESTION = Request(model=MODEL, messages=(Message("user", f"Count, {SECRET}."),), max_tokens=6)
PROMPT_TOKENS = prompt_tokens_of([{"content": QUESTION.messages[0].content}])


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    file.write_text(KEY + "\n")
    file.chmod(0o600)
    return file


def settings_of(url: str, own_key_file: Path, /, **rest: Any) -> Upstream:
    served = ServedModel(name=NAME, id=MODEL, family="counter")
    settings: dict[str, Any] = {
        "url": url,
        "models": (served,),
        "key_file": str(own_key_file),
        "slots": 2,
        "context": 256,
    }
    return Upstream(**settings | rest)


@asynccontextmanager
async def opened(recorded: Recorded, key_file: Path, **rest: Any) -> AsyncIterator[UpstreamEngine]:
    """An engine on a server that behaves until it is open."""
    stray = {name: getattr(recorded, name) for name in ("instead", "status", "drops", "stalls")}
    recorded.instead, recorded.status, recorded.drops, recorded.stalls = (), 200, False, False
    async with recorded.serve() as url, open_upstream(settings_of(url, key_file, **rest)) as engine:
        for name, value in stray.items():
            setattr(recorded, name, value)
        yield engine


async def collect(engine: UpstreamEngine, request: Request = QUESTION) -> tuple[list[Delta], Finished]:
    async with engine.generate(request) as items:
        *deltas, finished = [item async for item in items]
    assert isinstance(finished, Finished)
    found = [delta for delta in deltas if isinstance(delta, Delta)]
    assert sum(delta.tokens for delta in found) == finished.usage.completion_tokens
    return found, finished


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


async def test_what_is_said_of_a_model_and_what_a_server_is_asked(key_file: Path) -> None:
    recorded = Recorded()
    async with opened(recorded, key_file) as engine:
        (model,) = engine.models()
        assert (model.id, model.family, model.quantisation, model.digest) == (MODEL, "counter", "unknown", "")
        assert (model.context, model.features) == (256, (CONTINUE,))
        assert await engine.count(QUESTION) == PROMPT_TOKENS
        recorded.asked.clear()
        deltas, finished = await collect(engine, structs.replace(QUESTION, temperature=0.5, top_p=0.9, seed=7))
        assert [delta.text for delta in deltas] == SAYS[:6]
        assert (finished.reason, finished.usage) == ("length", Usage(PROMPT_TOKENS, 2, 6))
        (asked,) = recorded.asked
        assert asked["headers"][b"authorization"] == f"Bearer {KEY}".encode()
        expected = {"model": NAME, "max_tokens": 6, "temperature": 0.5, "top_p": 0.9, "seed": 7, "top_k": -1}
        assert {name: asked[name] for name in expected} == expected
        assert asked["stream_options"]["include_usage"] is True


@pytest.mark.parametrize("counts", ["running", "last", "never"])
async def test_tokens_are_those_of_the_usage_or_estimates(counts: str, key_file: Path) -> None:
    async with opened(Recorded(counts=counts), key_file) as engine:
        (model,) = engine.models()
        assert (ESTIMATES in model.features) is (counts == "never")
        deltas, finished = await collect(engine)
        assert [delta.tokens for delta in deltas] == [1] * 6
        assert finished.reason == "length"
        deltas, finished = await collect(engine, structs.replace(QUESTION, max_tokens=100))
        assert text_of(deltas) == "".join(SAYS)
        assert (finished.reason, finished.usage.completion_tokens) == ("stop", len(SAYS)), "the end token is not sold"


@pytest.mark.parametrize(("counts", "tokens"), [("running", [3, 3, 1]), ("last", [1, 1, 1, 4]), ("never", [1, 1, 1])])
async def test_a_chunk_of_several_tokens(counts: str, tokens: list[int], key_file: Path) -> None:
    async with opened(Recorded(counts=counts, chunk_tokens=3), key_file) as engine:
        deltas, _ = await collect(engine, structs.replace(QUESTION, max_tokens=7))
        assert [delta.tokens for delta in deltas] == tokens, "never more than it is, and in the end all, if it is told"
        assert text_of(deltas) == "".join(SAYS[:7])


@pytest.mark.parametrize("counts", ["running", "last", "never"])
async def test_reasoning_is_neither_passed_on_nor_sold(counts: str, key_file: Path) -> None:
    async with opened(Recorded(counts=counts, hidden=2), key_file) as engine:
        deltas, finished = await collect(engine)
        assert text_of(deltas) == "".join(SAYS[:4])
        assert (finished.reason, finished.usage.completion_tokens) == ("length", 4)


@pytest.mark.parametrize("tokenizer", [0, 1, None], ids=["right", "wrong", "none"])
async def test_prompts_are_counted_as_the_usage_does(tokenizer: int | None, key_file: Path) -> None:
    recorded = Recorded(tokenizer=tokenizer)
    async with opened(recorded, key_file) as engine:
        recorded.asked.clear()
        assert await engine.count(QUESTION) == PROMPT_TOKENS
        assert await engine.prefill(QUESTION, 1) == PROMPT_TOKENS
        paths = [asked["path"] for asked in recorded.asked]
        assert paths == ["/tokenize" if tokenizer == 0 else "/v1/chat/completions", "/v1/chat/completions"]
        assert all(asked.get("max_tokens", 1) == 1 for asked in recorded.asked)


async def test_without_a_usage_prompts_are_estimated_from_their_bytes(key_file: Path) -> None:
    async with opened(Recorded(counts="never", tokenizer=None), key_file) as engine:
        counted = await engine.count(QUESTION)
        assert counted == 16 + (len(QUESTION.messages[0].content) + 1) // 2 > PROMPT_TOKENS
        assert engine.models()[0].features == (CONTINUE, ESTIMATES)
        with pytest.raises(ContextOverflow):
            await collect(engine, structs.replace(QUESTION, messages=(Message("user", "word " * 200),)))


@pytest.mark.parametrize("fault", [{"continues": False}, {"trims": True}], ids=["begins anew", "trims"])
async def test_going_on_is_offered_only_where_it_was_seen(fault: dict[str, Any], key_file: Path) -> None:
    async with opened(Recorded(**fault), key_file) as engine:
        assert engine.models()[0].features == ()
        with pytest.raises(BadRequest, match="does not go on"):
            await collect(engine, QUESTION.rest("one", 1))


CALL = f'{SEPARATOR}{{"name": "pick", "arguments": {{"n": 7}}}}{SEPARATOR}'
TOLD = SEPARATOR + '{"logprobs": [["7", -0.1, [["7", -0.1], ["8", -3.0]]]]}' + SEPARATOR


@pytest.mark.parametrize(
    ("form", "said", "shown"),
    [
        (TOOLS, "", None),
        (TOOLS, "Sure, I call it:\n", None),
        (TOOLS, f"Sure, I call it:\n{CALL}", True),
        (TOOLS, CALL.replace("pick", "drop"), None),
        (TOOLS, "Seven is a lucky number in many cultures.", False),
        (SCHEMA, "", None),
        (SCHEMA, ' {\n  "n": ', None),
        (SCHEMA, '{"n": 7}\n', True),
        (SCHEMA, '{"n": 8', False),
        (SCHEMA, "Sev", False),
        (LOGPROBS, "Sev", None),
        (LOGPROBS, f"Sev{TOLD}", True),
        (LOGPROBS, f"Sev{TOLD}".replace(', ["8", -3.0]', ""), False),
    ],
)
def test_a_trial_ends_as_soon_as_it_shows_something(form: str, said: str, shown: bool | None) -> None:
    assert _FORMS[form][1](RecordReader().feed(said)) is shown


async def test_a_stop_string_ends_the_answer_and_the_connection(key_file: Path) -> None:
    recorded = Recorded(instead=tuple(piece(text) for text in SAYS[:5]), stalls=True)
    async with opened(recorded, key_file) as engine:
        deltas, finished = await collect(engine, structs.replace(QUESTION, stop=("thr",)))
        assert (text_of(deltas), finished.reason, finished.usage.completion_tokens) == ("one, two, ", "stop", 5)
        await recorded.left.wait()


async def test_leaving_closes_the_connection_and_frees_the_place(key_file: Path) -> None:
    recorded = Recorded(instead=(piece("one"),), stalls=True)
    async with opened(recorded, key_file) as engine:
        async with engine.generate(QUESTION) as items:
            assert await anext(items) == Delta("one", 1)
            assert engine.capacity() == Capacity(1, 2)
        assert engine.capacity() == Capacity(2, 2)
        await recorded.left.wait()


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "drops at once": ({"drops": True}, "broke the connection off"),
    "drops in the middle": ({"instead": (piece("one"),), "drops": True}, "broke the connection off"),
    "ends in the middle": ({"instead": (piece("one"),)}, "broke the answer off"),
    "an error as its reply": ({"status": 500, "instead": (SECRET.encode(),)}, "answered /v1/chat/completions with 500"),
    "no key is good enough": ({"status": 401, "instead": (b"{}",)}, "wants a key"),
    "sends us elsewhere": ({"status": 302, "instead": (b"{}",)}, "with 302"),
    "an error in the middle": (
        {"instead": (piece("one"), event({"error": {"message": SECRET, "type": "BadRequestError", "code": 400}}))},
        "failed in the middle",
    ),
    "an error of the older kind": (
        {"instead": (event({"object": "error", "message": SECRET, "code": 500}),)},
        "failed in the middle",
    ),
    "no JSON": ({"instead": (b"data: " + SECRET.encode() + b"\n\n",)}, "no part of an answer"),
    "not even UTF-8": (
        {"instead": (b'data: {"choices": [{"delta": {"content": "\xff"}}]}\n',)},
        "no part of an answer",
    ),
    "other types": ({"instead": (event({"choices": "one"}),)}, "no part of an answer"),
    "deep nesting": ({"instead": (b'data: {"x": ' + b"[" * 100_000 + b"\n\n",)}, "no part of an answer"),
    "a line without end": ({"instead": (b"data: " + b"x" * LINE_MAX_BYTES,) * 2}, "more than a megabyte"),
    "says more than asked": ({"instead": tuple(piece(text) for text in SAYS[:7])}, "more than it was asked"),
    "counts more than asked": (
        {"instead": (piece("one", usage={"prompt_tokens": 9, "completion_tokens": 7}),)},
        "more than it was asked",
    ),
    "more pieces than tokens": (
        {
            "instead": (
                *(piece(letter) for letter in "one"),
                event({"choices": [{"delta": {}, "finish_reason": "stop"}]}),
                event({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}),
            )
        },
        "more pieces of an answer than it counts",
    ),
    "an end of its own": (
        {"instead": (event({"choices": [{"delta": {}, "finish_reason": "content_filter"}]}),)},
        "a reason of its own",
    ),
}


@pytest.mark.parametrize(("fault", "says"), FAULTS.values(), ids=FAULTS)
async def test_what_goes_wrong_fails_that_answer_in_one_line(fault: dict[str, Any], says: str, key_file: Path) -> None:
    recorded = Recorded(counts="last", **fault)
    async with opened(recorded, key_file) as engine:
        with pytest.raises(EngineError, match=says) as caught:
            await collect(engine)
        assert "\n" not in str(caught.value)
        assert SECRET not in str(caught.value)
        assert KEY not in str(caught.value)
        assert engine.capacity() == Capacity(2, 2)
        recorded.instead, recorded.status, recorded.drops = (), 200, False
        assert text_of((await collect(engine))[0]) == "".join(SAYS[:6]), "and none after it"


@pytest.mark.parametrize(
    ("sent", "waited_s"),
    [
        pytest.param((), 40, id="before the first token"),
        pytest.param((piece("one"),), 4, id="between two"),
        pytest.param((piece("one"), b": still here\n\n", event({"choices": []})), 4, id="alive, and says nothing"),
    ],
)
async def test_a_server_that_stalls(
    sent: tuple[bytes, ...], waited_s: int, key_file: Path, mock_clock: MockClock
) -> None:
    recorded = Recorded(instead=sent, stalls=True)
    async with (
        opened(recorded, key_file, first_token_s=40.0, between_tokens_s=4.0) as engine,
        engine.generate(QUESTION) as items,
    ):
        if piece("one") in sent:
            assert await anext(items) == Delta("one", 1)
        recorded.left = trio.Event()  # the trials at the start were left, too
        mock_clock.jump(waited_s - 1)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not recorded.left.is_set()
        mock_clock.jump(2)
        with pytest.raises(EngineError, match="no progress"):
            await anext(items)
        await recorded.left.wait()


async def test_a_prompt_that_the_server_refuses(key_file: Path) -> None:
    async with opened(Recorded(), key_file) as engine:
        with pytest.raises(ContextOverflow):
            await collect(engine, structs.replace(QUESTION, max_tokens=250))
        with pytest.raises(ModelMissing):
            await engine.count(structs.replace(QUESTION, model="another/model"))


async def test_a_server_that_is_gone_is_said_to_be(key_file: Path) -> None:
    recorded = Recorded()
    async with trio.open_nursery() as nursery:
        closing = trio.Event()

        async def live(task_status: trio.TaskStatus[str]) -> None:
            async with recorded.serve() as url:
                task_status.started(url)
                await closing.wait()

        url = await nursery.start(live)
        async with open_upstream(settings_of(url, key_file)) as engine:
            await engine.health()
            closing.set()
            await trio.testing.wait_all_tasks_blocked()
            for asking in (engine.health, lambda: collect(engine)):
                with pytest.raises(EngineError, match=r"no server answers at http://127.0.0.1:\d+: start it"):
                    await asking()
            assert engine.capacity() == Capacity(2, 2)
    with pytest.raises(EngineError, match="no server answers"):
        async with open_upstream(settings_of(url, key_file)):
            pass


@pytest.mark.parametrize(
    ("recorded", "wrong", "says"),
    [
        (Recorded(), {"models": (ServedModel("other", MODEL, ""),)}, "no model other .*, but counter"),
        (Recorded(), {"models": ()}, "--upstream-model NAME=ID; the server has counter"),
        (Recorded(context=128), {}, "takes 128 tokens for counter: give --context 128"),
        (Recorded(), {"key_file": ""}, "wants a key"),
        (Recorded(), {"key_file": "/no/such/file"}, "cannot read the server's key in /no/such/file: No such file"),
    ],
    ids=["another model", "no model", "less context", "no key", "no key file"],
)
async def test_what_does_not_fit_is_said_at_the_start(
    recorded: Recorded, wrong: dict[str, Any], says: str, key_file: Path
) -> None:
    async with recorded.serve() as url:
        with pytest.raises((BadSettings, ModelMissing), match=says):
            async with open_upstream(settings_of(url, key_file, **wrong)):
                pass


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:8000", "ftp://host/v1", "http://", "http://me:key@host/v1", "http://host/v1?key=1", "http://[::1"],
)
async def test_addresses_that_are_none(url: str, key_file: Path) -> None:
    with pytest.raises(BadSettings, match="upstream_url must be like"):
        async with open_upstream(settings_of(url, key_file)):
            pass


async def test_the_key_may_be_in_the_environment(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Recorded()
    monkeypatch.setenv("COUNTER_KEY", f" {KEY}\n")
    async with recorded.serve() as url:
        settings = structs.replace(settings_of(url, key_file), key_file="", key_variable="COUNTER_KEY")
        async with open_upstream(settings) as engine:
            assert engine.models()
        for wrong in (structs.replace(settings, key_variable="NO_KEY"), structs.replace(settings, key_file="both")):
            with pytest.raises(BadSettings, match="key") as caught:
                async with open_upstream(wrong):
                    pass
            assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [
        (b"sesame", 0o644, "others on this machine can read the key"),
        (b"", 0o600, "must hold one key"),
        (b"two keys\n", 0o600, "must hold one key"),
        (b"\xff\xfe", 0o600, "must hold one key"),
    ],
)
async def test_key_files_that_are_none(content: bytes, mode: int, says: str, key_file: Path) -> None:
    key_file.write_bytes(content)  # noqa: ASYNC240 - a few bytes
    key_file.chmod(mode)  # noqa: ASYNC240
    with pytest.raises(BadSettings, match=says):
        async with open_upstream(settings_of("http://127.0.0.1:1/v1", key_file)):
            pass
