"""What of ExLlama's adapter knows no library, with a generator that does as it is told."""

from __future__ import annotations

import json
import os
import queue
import signal
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import on_gpu
import pytest
import trio
from msgspec import structs

from inference import worker
from inference.engine import (
    CONTINUE,
    SCHEMA,
    SCORE,
    TOOLS,
    Capacity,
    Delta,
    Engine,
    Finished,
    Message,
    ModelInfo,
    Request,
    Tool,
)
from inference.errors import BadRequest, BadSettings, ContextOverflow, EngineDied, EngineError, ModelMissing
from inference.exllama import engine as engine_module
from inference.exllama.backend import End, Held, Likely, Rule, Sampling, Schema, Step, is_cuda_error
from inference.exllama.engine import ExLlamaEngine, OpenGenerator, open_exllama
from inference.exllama.folder import Folder, _adapter, _safetensors, read_folder, weights_digest
from inference.exllama.orders import Open, Report
from inference.exllama.owner import Owner
from inference.exllama.process import open_generator
from inference.exllama.reading import Reading, Spelling
from inference.exllama.rules import InWords, Vocabulary
from inference.exllama.settings import ExLlama
from inference.records import Call, Logprobs, RecordReader
from inference.worker import open_worker

FEATURES = (CONTINUE, SCORE, TOOLS, SCHEMA)
MODEL = ModelInfo(id="a/b", family="b", quantisation="none", digest="00", context=0, features=FEATURES)
TEMPLATE = "{% for m in messages %}{{ m.content }}|{% endfor %}"
SETTINGS = ExLlama(folder="", id="a/b", family="b", slots=2, context=64)


class Letters:
    """A tokenizer whose ids are characters' numbers."""

    def get_added_tokens_decoder(self) -> dict[int, Any]:
        return {}

    def encode(self, text: str, *, add_special_tokens: bool) -> Any:
        assert not add_special_tokens
        return type("Encoded", (), {"ids": [*map(ord, text)]})


class Said(Vocabulary):
    """Whose answers, whatever they are held to, are what a schema describes."""

    def __init__(self) -> None:
        pass

    def ids(self, text: str) -> list[int]:
        return [*map(ord, text)]

    def spelt(self, token: int) -> bytes:
        return chr(token).encode()

    def rule(self, held: Held) -> InWords:
        if not isinstance(held, Schema):
            return InWords(held.ids, (0,), 128)
        if (pattern := json.loads(held.text).get("pattern")) == "(":
            raise BadRequest("secret")
        return InWords(self.ids(pattern or json.dumps(CALL)), (0,), 128)


CALL = {"name": "weather", "arguments": {"city": "Paris"}}


class Spelt(Folder):
    """A folder without files."""

    def __init__(self, context: int = 64) -> None:
        super().__init__(structs.replace(MODEL, context=context), TEMPLATE, {}, (0,), Letters(), Said(), ())

    def spelling(self, prompt: Sequence[int]) -> Spelling:
        return Spelling(chr, chr, frozenset())


class Told:
    """A generator: each job says its prompt's characters again, one a turn, and then as many dots as it may, or what a
    rule has it say.

    It takes a turn once Trio has heard of all that came before, as if a turn took long.
    """

    def __init__(self) -> None:
        self._trio_token = trio.lowlevel.current_trio_token()
        self.jobs: dict[int, tuple[list[int], int, Sampling, Rule | None]] = {}
        self.cancelled: list[int] = []
        self.samplings: list[Sampling] = []
        self.faults: queue.SimpleQueue[Exception] = queue.SimpleQueue()
        self.refuses = False
        self.built = 1
        self.cannot_rebuild = False
        self.cannot_cancel = False

    def start(self, job: int, prompt: Sequence[int], sampling: Sampling, rule: Rule | None) -> None:
        if self.refuses:
            raise AssertionError("it quotes the prompt")
        self.samplings.append(sampling)
        self.jobs[job] = [*prompt, *[ord(".")] * sampling.max_tokens], sampling.max_tokens, sampling, rule

    def cancel(self, job: int) -> None:
        self.cancelled.append(job)
        self.jobs.pop(job, None)
        if self.cannot_cancel:
            raise ValueError("secret")

    def turn(self) -> list[Step]:
        heard = threading.Event()
        self._trio_token.run_sync_soon(heard.set)
        heard.wait()
        if not self.faults.empty():
            raise self.faults.get()
        steps = []
        for job, (left, tokens, sampling, rule) in [*self.jobs.items()]:
            token = left.pop(0)
            if rule:
                token = rule.allowed().index(1)
                rule.take(token)
            end: End = "stop" if token == 0 else "length" if tokens == 1 else ""
            likely = Likely(-0.5, ((token, -0.5), (7, -1.0))) if sampling.top_logprobs else None
            steps.append(Step(job, (token,) if token else (), end, 3, (likely,) if likely else ()))
            self.jobs[job] = left, tokens - 1, sampling, rule
            if end:
                del self.jobs[job]
        return steps

    def rebuild(self) -> None:
        if self.cannot_rebuild:
            raise RuntimeError
        self.built += 1
        self.jobs.clear()


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "read_folder", lambda _: Spelt())


def in_thread(told: Told, make_rule: Callable[[Held], Rule] | None = None) -> OpenGenerator:
    """In this process, where a test can look at it."""

    @asynccontextmanager
    async def start(_: Open, report: Callable[[Report], None]) -> AsyncIterator[Owner]:
        trio_token = trio.lowlevel.current_trio_token()
        owner = Owner(told, make_rule or Said().rule, lambda said: trio_token.run_sync_soon(report, said))
        thread = threading.Thread(target=owner.run, daemon=True)
        thread.start()
        try:
            yield owner
        finally:
            owner.close()
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(thread.join)

    return start


@asynccontextmanager
async def opened(told: Told, make_rule: Callable[[Held], Rule] | None = None) -> AsyncIterator[ExLlamaEngine]:
    async with open_exllama(SETTINGS, in_thread(told, make_rule)) as engine:
        yield engine


def ask(content: str = "abc", max_tokens: int = 6, **rest: Any) -> Request:
    return Request(model="a/b", messages=(Message("user", content),), max_tokens=max_tokens, **rest)


async def answer(engine: Engine, request: Request) -> tuple[str, Finished]:
    async with engine.generate(request) as items:
        *deltas, finished = [item async for item in items]
    assert isinstance(finished, Finished)
    parts = cast(list[Delta], deltas)
    assert sum(part.tokens for part in parts) == finished.usage.completion_tokens
    return "".join(part.text for part in parts), finished


@pytest.mark.usefixtures("folder")
class TestEngine:
    async def test_answers_side_by_side(self) -> None:
        async with opened(Told()) as engine:
            answers: dict[str, str] = {}

            async def client(word: str) -> None:
                answers[word], _ = await answer(engine, ask(word, 5))

            async with trio.open_nursery() as nursery:
                for word in ("one", "three", "seven", "nine"):
                    nursery.start_soon(client, word)
            assert answers == {"one": "one|.", "three": "three", "seven": "seven", "nine": "nine|"}
            assert engine.capacity() == Capacity(2, 2)

    async def test_what_decides_the_answer_reaches_the_generator(self) -> None:
        told = Told()
        async with opened(told) as engine:
            text, finished = await answer(engine, ask(temperature=0.5, top_p=0.25, seed=11))
        assert told.samplings == [Sampling(6, 0.5, 0.25, 11)]
        assert (text, finished.reason) == ("abc|..", "length")
        assert (finished.usage.prompt_tokens, finished.usage.cached_tokens) == (4, 3)

    async def test_what_is_stopped_gives_its_place_back(self) -> None:
        told = Told()
        async with opened(told) as engine:
            text, finished = await answer(engine, ask("hello there", 50, stop=("o t",)))
            assert (text, finished.reason, finished.usage.completion_tokens) == ("hell", "stop", 4)
            assert told.cancelled
            assert engine.capacity() == Capacity(2, 2)
            assert not told.jobs

    async def test_leaving_ends_the_job_before_its_place_is_free(self) -> None:
        told = Told()
        async with opened(told) as engine:
            for _ in range(20):
                async with engine.generate(ask("long", 40)) as items:
                    await anext(items)
                assert not told.jobs
            with trio.move_on_after(0):
                await answer(engine, ask())
            assert engine.capacity() == Capacity(2, 2)
            assert (await answer(engine, ask()))[0] == "abc|.."

    async def test_what_does_not_fit_never_reaches_the_generator(self) -> None:
        told = Told()
        async with opened(told) as engine:
            for request in (ask("x" * 70), ask("abc", 61)):
                with pytest.raises(ContextOverflow):
                    await answer(engine, request)
        assert told.samplings == []

    async def test_a_prompt_is_worked_through_for_one_token(self) -> None:
        told = Told()
        async with opened(told) as engine:
            assert await engine.prefill(ask("abcdef", 30), 3) == 3
            assert await engine.prefill(ask("abcdef", 30), 300) == 7
        assert [sampling.max_tokens for sampling in told.samplings] == [1, 1]

    async def test_an_answer_that_is_begun_ends_the_prompt(self) -> None:
        async with opened(Told()) as engine:
            messages = (Message("user", "abc"), Message("assistant", "de"))
            assert await engine.count(Request(model="a/b", messages=messages, max_tokens=1)) == len("abc|de")

    async def test_an_answer_is_held_to_its_schema(self) -> None:
        async with opened(Told()) as engine:
            text, finished = await answer(engine, ask(max_tokens=20, schema='{"pattern": "[1, 2]"}'))
            assert (text, finished.reason, finished.usage.completion_tokens) == ("[1, 2]", "stop", 6)
            text, finished = await answer(engine, ask(max_tokens=4, schema='{"pattern": "[1, 2]"}'))
            assert (text, finished.reason) == ("[1, ", "length")

    async def test_what_is_not_held_to_its_schema_fails(self) -> None:
        told = Told()
        async with opened(told) as engine:
            for said in ("[1, ", "none"):
                with pytest.raises(EngineError, match="did not hold"):
                    await answer(engine, ask(max_tokens=20, schema=json.dumps({"pattern": said})))
            assert not told.jobs
            assert engine.capacity() == Capacity(2, 2)

    async def test_a_schema_of_which_no_rule_can_be_made_is_refused(self) -> None:
        async with opened(Told()) as engine:
            with pytest.raises(BadRequest, match=r"cannot be held to that schema$"):
                await answer(engine, ask(schema='{"pattern": "("}'))
            assert engine.capacity() == Capacity(2, 2)

    async def test_others_need_not_wait_for_a_rule_to_be_made(self) -> None:
        asked, made = threading.Event(), threading.Event()

        def slow(held: Held) -> Rule:
            asked.set()
            made.wait()
            return Said().rule(held)

        told = Told()
        held = ask(max_tokens=20, schema='{"pattern": "[1]"}')
        async with opened(told, slow) as engine:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(answer, engine, held)
                await trio.to_thread.run_sync(asked.wait)
                assert (await answer(engine, ask()))[0] == "abc|.."
                nursery.cancel_scope.cancel()
            assert engine.capacity() == Capacity(2, 2), "and it can be left meanwhile"
            made.set()
            assert (await answer(engine, held))[0] == "[1]"
        assert [sampling.held is not None for sampling in told.samplings] == [False, True]

    async def test_a_call_that_is_required_is_a_record(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = Request(
            model="a/b",
            messages=(Message("user", ""),),
            max_tokens=80,
            tools=(Tool("weather"),),
            tool_choice="required",
        )
        monkeypatch.setattr(engine_module, "read_folder", lambda _: Spelt(context=2048))  # the tools are in the prompt
        async with opened(Told()) as engine:
            text, finished = await answer(engine, asked)
        (call,) = RecordReader().feed(text)
        assert isinstance(call, Call)
        assert (call.name, json.loads(call.text), finished.reason) == ("weather", {"city": "Paris"}, "stop")

    async def test_a_text_is_scored_by_having_it_said(self) -> None:
        async with opened(Told()) as engine:
            scored = await engine.score(ask(max_tokens=9), "xyz")
            assert (scored.tokens, [one.logprob for one in scored.figures]) == (3, [-0.5] * 3)
            assert scored.end is not None
            part = await engine.score(ask(max_tokens=2), "xyz")
            assert (part.tokens, len(part.figures), part.end) == (2, 2, None)
            whole = await engine.score(ask(max_tokens=3), "xyz")
            assert (whole.tokens, whole.end) == (3, scored.end), "the end is read beyond what the answer may have"
            full = await engine.score(ask("a" * 60, max_tokens=3), "xyz")
            assert (full.tokens, full.end) == (3, None), "and not beyond the context"

    async def test_one_refused_job_leaves_the_others_be(self) -> None:
        told = Told()
        async with opened(told) as engine, engine.generate(ask("abc", 40)) as items:
            await anext(items)
            told.refuses = True
            with pytest.raises(EngineError, match=r"refused the request with AssertionError$"):
                await answer(engine, ask())
            assert len([item async for item in items if isinstance(item, Finished)]) == 1

    async def test_a_fault_fails_what_runs_and_the_generator_is_made_anew(self) -> None:
        told = Told()
        async with opened(told) as engine:
            told.faults.put(ValueError("secret"))
            with pytest.raises(EngineError, match=r"the generator failed with ValueError$"):
                await answer(engine, ask())
            assert (await answer(engine, ask()))[0] == "abc|.."
            await engine.health()
        assert told.built == 2

    async def test_a_fault_in_cancelling_is_one_like_any_other(self) -> None:
        told = Told()
        told.cannot_cancel = True
        async with opened(told) as engine:
            async with engine.generate(ask("abc", 40)) as items:
                await anext(items)
            with trio.fail_after(10):
                assert (await answer(engine, ask()))[0] == "abc|.."
        assert told.built == 2

    async def test_a_cuda_error_ends_the_engine(self) -> None:
        told = Told()
        told.faults.put(RuntimeError("CUDA error: an illegal memory access was encountered"))
        with pytest.raises(EngineDied, match="the GPU failed"):
            await self.asked_until_it_ends(told, failing_with="RuntimeError")
        assert told.built == 1, "nothing more is asked of that GPU"

    async def test_what_cannot_be_made_anew_ends_the_engine_too(self) -> None:
        told = Told()
        told.cannot_rebuild = True
        told.faults.put(ValueError())
        with pytest.raises(EngineDied):
            await self.asked_until_it_ends(told, failing_with="ValueError")

    async def asked_until_it_ends(self, told: Told, failing_with: str) -> None:
        async with opened(told) as engine:
            with pytest.raises(EngineError, match=failing_with):
                await answer(engine, ask())
            await trio.sleep_forever()


class TestReading:
    def read(self, request: Request, *steps: Step, hidden: frozenset[int] = frozenset()) -> list[Delta | Finished]:
        reading = Reading(request, 9, Spelling(chr, chr, hidden))
        items = [item for step in steps for item in reading.feed(step)]
        assert reading.done == isinstance(items[-1], Finished)
        return items

    def test_what_was_guessed_ahead_counts_up_to_the_limit(self) -> None:
        step = Step(1, tuple(map(ord, "abcdef")), "stop")
        *deltas, finished = self.read(ask(max_tokens=4), step)
        assert deltas == [Delta("abcd", 4)]
        assert isinstance(finished, Finished)
        assert (finished.reason, finished.usage.completion_tokens) == ("length", 4)

    def test_ids_that_stand_for_no_text_are_not_counted(self) -> None:
        steps = Step(1, (ord("a"), 3)), Step(1, (ord("b"),), "stop")
        assert self.read(ask(), *steps, hidden=frozenset({3}))[:2] == [Delta("a", 1), Delta("b", 1)]

    def test_logprobs_go_with_their_tokens(self) -> None:
        request = ask(max_tokens=3, stop=("bc",), top_logprobs=1)
        told = [Likely(-0.5, ((120, -0.1), (121, -2.0))), Likely(-1.5, ((122, -0.2),))]
        first, second = Step(1, (ord("a"), ord("b")), likely=tuple(told)), Step(1, (ord("d"),), "stop", 0, (told[0],))
        items = RecordReader().feed(
            "".join(item.text for item in self.read(request, first, second) if isinstance(item, Delta))
        )
        assert [item for item in items if isinstance(item, str)] == ["a", "bd"]
        found = [one for item in items if isinstance(item, Logprobs) for one in item.logprobs]
        assert [(one.token, one.logprob, one.top) for one in found] == [
            ("a", -0.5, (("x", -0.1),)),
            ("b", -1.5, (("z", -0.2),)),
            ("d", -0.5, (("x", -0.1),)),
        ]

    def test_nothing_follows_an_end(self) -> None:
        reading = Reading(ask(max_tokens=1), 9, Spelling(chr, chr, frozenset()))
        assert len(reading.feed(Step(1, (65,), "length", 40))) == 2
        assert reading.feed(Step(1, (66,), "length")) == []

    def test_at_least_one_token_of_a_prompt_is_work(self) -> None:
        finished = self.read(ask(max_tokens=1), Step(1, (65,), "length", cached_tokens=9))[-1]
        assert isinstance(finished, Finished)
        assert finished.usage.cached_tokens == 8

    def test_a_stop_string_may_lie_across_steps(self) -> None:
        steps = [Step(1, (ord(letter),)) for letter in "one, two"]
        items = self.read(ask(max_tokens=30, stop=(", t",)), *steps)
        assert "".join(item.text for item in items if isinstance(item, Delta)) == "one"
        assert isinstance(items[-1], Finished)
        assert (items[-1].reason, items[-1].usage.completion_tokens) == ("stop", 3)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("CUDA error: device-side assert triggered"), True),
        (RuntimeError("CUBLAS_STATUS_EXECUTION_FAILED"), True),
        (type("AcceleratorError", (RuntimeError,), {})("unspecified launch failure"), True),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory."), False),
        (AssertionError("Job requires 9 pages"), False),
    ],
)
def test_only_what_breaks_the_gpu_ends_the_process(error: Exception, expected: bool) -> None:
    assert is_cuda_error(error) is expected


def test_the_cache_comes_in_whole_pages() -> None:
    assert ExLlama(folder="", id="", family="", slots=3, context=300).total_tokens == 3 * 512
    assert ExLlama(folder="", id="", family="", slots=3, context=512, draft="ngram").total_tokens == 3 * 768
    assert ExLlama(folder="", id="", family="", slots=3, context=300, cache_tokens=700).total_tokens == 768
    assert ExLlama(folder="", id="", family="", slots=3, context=300, cache_tokens=10).total_tokens == 512


def echo(*words: str) -> OpenGenerator:
    return partial(open_generator, program=[str(Path(__file__).parent / "echo_generator.py"), *words])


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
class TestProcess:
    """With a generator that says its prompt again, in the process where a real one is."""

    async def test_it_answers_and_is_over_with_the_engine(self) -> None:
        async with open_exllama(SETTINGS, echo()) as engine:
            assert (await answer(engine, ask()))[0] == "abc|.."
            assert (await answer(engine, ask(max_tokens=9, schema='{"pattern": "[1]"}')))[0] == "[1]"
            (pid,) = children()
        assert not children()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    async def test_its_end_is_the_engines(self) -> None:
        with pytest.raises(EngineDied):
            await self.killed_in_an_answer()

    async def killed_in_an_answer(self) -> None:
        async with open_exllama(SETTINGS, echo()) as engine:
            async with engine.generate(ask("abc", 40)) as items:
                await anext(items)
                (pid,) = children()
                os.kill(pid, signal.SIGKILL)
                with pytest.raises(EngineError):
                    _ = [item async for item in items]
            await trio.sleep_forever()

    async def test_what_keeps_it_from_loading_is_told(self) -> None:
        with pytest.raises(BadSettings, match="no GPU for that"):
            async with open_exllama(SETTINGS, echo("unloadable")):
                pass
        with pytest.raises(EngineDied, match="while it started"):
            async with open_exllama(SETTINGS, echo("dying")):
                pass

    async def test_it_ends_with_its_owner_while_it_loads(self) -> None:
        with trio.move_on_after(1):
            async with open_exllama(SETTINGS, echo("loading")):
                raise AssertionError
        assert not children()

    async def test_after_a_cuda_error_the_next_request_has_other_processes(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(worker, "_PROGRAM", [str(Path(__file__).parent / "exllama_child.py")])
        async with open_worker(SETTINGS) as engine:
            first = engine.pid
            with pytest.raises(EngineError):  # its own word for it, or the process's end, whichever comes first
                await answer(engine, ask("abc!"))
            with trio.fail_after(20):
                while engine.pid == first:  # noqa: ASYNC110 - a process that ends has no event to wait for
                    await trio.sleep(0.02)
            assert (await answer(engine, ask()))[0] == "abc|.."
            second = engine.pid
            assert second not in (None, first)
            generator = children(second)
            assert generator
            os.kill(second, signal.SIGKILL)
            with trio.fail_after(20):
                while any(map(is_alive, generator)):  # noqa: ASYNC110
                    await trio.sleep(0.02)


def children(of: int | None = None) -> list[int]:
    """Of a process, or of this one: generators that live."""
    found = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [pid for pid in found if is_alive(pid, of or os.getpid())]


def is_alive(pid: int, owner: int | None = None) -> bool:
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[:2]
        is_generator = b"echo_generator" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return is_generator and state != "Z" and owner in (None, int(parent))


@pytest.mark.skipif(not on_gpu.unavailable(), reason="there is a GPU")
async def test_what_this_machine_lacks_is_one_line() -> None:
    with pytest.raises(BadSettings, match=r"^(torch is not installed: pip install |ExLlama needs an NVIDIA GPU)"):
        async with open_exllama(SETTINGS):
            pass


class TestFolders:
    def made(self, path: Path, **files: str) -> ExLlama:
        (path / "config.json").write_text('{"eos_token_id": 2, "max_position_embeddings": 100}')
        for name, text in files.items():
            (path / name.replace("__", ".")).write_text(text)
        return ExLlama(folder=str(path), id="a/b", family="b", context=100)

    def test_there_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(ModelMissing, match=r"config\.json: No such file .*--model names"):
            read_folder(ExLlama(folder=str(tmp_path), id="a", family="a"))

    def test_a_context_beyond_the_model(self, tmp_path: Path) -> None:
        settings = self.made(tmp_path)
        with pytest.raises(BadSettings, match="give --context 100"):
            read_folder(ExLlama(folder=settings.folder, id="a", family="a", context=101))

    def test_a_config_that_is_none(self, tmp_path: Path) -> None:
        settings = self.made(tmp_path, config__json="[1, 2]")
        with pytest.raises(BadSettings, match="is not the JSON"):
            read_folder(settings)

    def test_a_file_without_an_end(self, tmp_path: Path) -> None:
        settings = self.made(tmp_path, config__json=json.dumps({"a": "x" * (5 << 20)}))
        with pytest.raises(BadSettings, match="larger than any"):
            read_folder(settings)

    def test_a_pickle_is_not_read(self, tmp_path: Path) -> None:
        with pytest.raises(BadSettings, match=r"no \.safetensors; weights in pickles"):
            _safetensors(tmp_path)
        (tmp_path / "adapter_model.safetensors").touch()
        assert _adapter(tmp_path) == [tmp_path / "adapter_model.safetensors"]
        (tmp_path / "adapter_model.bin").touch()
        with pytest.raises(BadSettings, match="it is a pickle"):
            _adapter(tmp_path)

    def test_the_digest_is_what_sha256sum_says(self, tmp_path: Path) -> None:
        import subprocess

        for name in ("b.safetensors", "a.safetensors"):
            (tmp_path / name).write_text(name)
        command = "sha256sum *.safetensors | sha256sum"
        said = subprocess.run(command, shell=True, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
        assert weights_digest(sorted(tmp_path.iterdir())) == said.split()[0]
