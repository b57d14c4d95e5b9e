"""Any OpenAI-compatible server as an engine: vLLM, SGLang, llama-server, Ollama, LM Studio, TabbyAPI.

What such a server does with a prompt, its documents say and its replies show; what weights it has, nothing shows. So
their digest stays empty, and nothing that is said of its models is more than a trial at the start has shown.
"""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import trio
from msgspec.structs import replace

from inference.admission import check_features, check_fit, check_request, check_text, find_model
from inference.answer import Answer
from inference.completions import CHAT, CompletionReader, answer_body, read_reply
from inference.embeddings import embed_texts
from inference.engine import (
    CONTINUE,
    EMBED,
    ESTIMATES,
    LOGPROBS,
    SCHEMA,
    TOOLS,
    Capacity,
    Delta,
    Finished,
    Message,
    ModelInfo,
    Request,
    Scored,
    Tool,
    Usage,
)
from inference.errors import BadSettings, EngineError, ModelMissing, ServerRefused
from inference.eventstream import EventStream
from inference.hermes import in_prose
from inference.nursery import open_background
from inference.prompt_counts import PromptCounts
from inference.records import Call, Logprobs, Record, RecordReader, written

if TYPE_CHECKING:
    from inference.upstream_http import UpstreamHttp

_HEALTH_S = 4.0
_KEY_MAX_BYTES = 4096
_KEY_REFUSED = {401, 403}
_QUESTION = (Message("user", "Count from one to twenty, in words."),)
_TRIAL_TOKENS = 8
_ASKED = Request(model="", messages=(Message("user", "Pick seven."),), max_tokens=64)
_PREFACE_MAX = 40  # characters that a model may say before it calls what it must call
_SEVEN = '{"type":"object","properties":{"n":{"const":7}},"required":["n"],"additionalProperties":false}'


def _calls(said: list[str | Record]) -> bool | None:
    if any(isinstance(one, Call) and one.name == "pick" for one in said):
        return True
    return False if sum(len(one.strip()) for one in said if isinstance(one, str)) > _PREFACE_MAX else None


def _is_held(said: list[str | Record]) -> bool | None:
    text, right = "".join("".join(map(str, said)).split()), '{"n":7}'
    return True if text == right else None if right.startswith(text) else False


def _tells_logprobs(said: list[str | Record]) -> bool | None:
    told = [one for one in said if isinstance(one, Logprobs)]
    return len(told[0].logprobs[0].top) == 2 if told else None


_FORMS: dict[str, tuple[Request, Callable[[list[str | Record]], bool | None]]] = {
    TOOLS: (replace(_ASKED, tools=(Tool("pick", "Pick a number", _SEVEN),), tool_choice="required"), _calls),
    SCHEMA: (replace(_ASKED, schema=_SEVEN), _is_held),
    LOGPROBS: (replace(_ASKED, max_tokens=_TRIAL_TOKENS, top_logprobs=2), _tells_logprobs),
}
"""What servers may give besides plain answers: what to ask for, and what shows that it is given or, early, that not."""


class ServedModel(msgspec.Struct, frozen=True):
    """A model as the server calls it, and the id and family to sell it under."""

    name: str
    id: str
    family: str


class Upstream(msgspec.Struct, frozen=True, kw_only=True, tag="upstream"):
    """Where the server is and what of it is sold. `context` is in tokens for each answer. The key is in
    a file, or in an environment variable, or there is none.
    """

    url: str
    models: tuple[ServedModel, ...]
    key_file: str = ""
    key_variable: str = ""
    slots: int = 4
    context: int = 4096
    connect_s: float = 5.0
    first_token_s: float = 120.0
    between_tokens_s: float = 30.0


class UpstreamEngine:
    """See `inference.engine.Engine`. Made by `open_upstream`."""

    def __init__(self, http: UpstreamHttp, settings: Upstream, nursery: trio.Nursery) -> None:
        self._http = http
        self._settings = settings
        self._nursery = nursery
        self._places = trio.Semaphore(settings.slots)
        self._names = {model.id: model.name for model in settings.models}
        self._models: tuple[ModelInfo, ...] = ()
        self._counts = PromptCounts(http, self._places, settings.first_token_s)
        self._in_prose: set[str] = set()  # the models whose tools are told in prose, for want of better

    def models(self) -> tuple[ModelInfo, ...]:
        return self._models

    def capacity(self) -> Capacity:
        return Capacity(self._places.value, self._settings.slots)

    async def health(self) -> None:
        await self._http.call("GET", "/v1/models", within_s=_HEALTH_S)

    async def count(self, request: Request) -> int:
        check_request(request)
        check_features(find_model(self._models, request.model), request)
        return await self._counts.count(self._names[request.model], self._sent(request))

    async def prefill(self, request: Request, tokens: int) -> int:
        prompt_tokens = await self._admit(request)
        if request.embed:
            return min(tokens, prompt_tokens)
        async with self._places:
            await self._counts.work_through(self._names[request.model], self._sent(request))
        return prompt_tokens

    @asynccontextmanager
    async def generate(self, request: Request) -> AsyncIterator[AsyncIterator[Delta | Finished]]:
        prompt_tokens = await self._admit(request)
        if request.embed:
            yield await self._embed(request, prompt_tokens)
            return
        async with self._places:
            job = self._job(request, prompt_tokens)
            self._nursery.start_soon(job.run, self._http, self._body(request))
            try:
                yield job.answer
            finally:
                job.scope.cancel()
                with trio.CancelScope(shield=True):  # the connection is closed: nothing is waited for
                    await job.over.wait()

    async def _embed(self, request: Request, prompt_tokens: int) -> Answer[Delta | Finished]:
        name, within_s = self._names[request.model], self._settings.first_token_s
        async with self._places:
            vectors, told = await embed_texts(self._http, name, request, within_s=within_s)
        answer: Answer[Delta | Finished] = Answer(len(vectors) + 1)
        for vector in vectors:
            answer.put(Delta(written(vector), 0))
        answer.put(Finished("stop", Usage(told or prompt_tokens, 0, 0)))
        answer.end()
        return answer

    async def score(self, request: Request, text: str) -> Scored:
        await self._admit(request)
        check_text(find_model(self._models, request.model), text)
        raise AssertionError("no model here has the feature")

    def _sent(self, request: Request) -> Request:
        """As the server is asked."""
        return in_prose(request) if request.model in self._in_prose else request

    def _body(self, request: Request) -> dict[str, Any]:
        return answer_body(self._names[request.model], self._sent(request))

    def _job(self, request: Request, prompt_tokens: int) -> _Job:
        reader = CompletionReader(request, prompt_tokens, tools_in_prose=request.model in self._in_prose)
        return _Job(reader, request.max_tokens, self._settings)

    async def _admit(self, request: Request) -> int:
        prompt_tokens = await self.count(request)
        check_fit(prompt_tokens, request.max_tokens, find_model(self._models, request.model).context)
        return prompt_tokens

    async def look(self) -> None:
        """Find out what the server can do, for each model. Raises as `open_upstream`."""
        listed = await self._listed()
        if not self._settings.models:
            raise BadSettings(f"say what to sell with --upstream-model NAME=ID; the server has {_some(listed)}")
        for model in self._settings.models:
            if model.name not in listed:
                raise ModelMissing(f"the server has no model {model.name} (--upstream-model), but {_some(listed)}")
            longest = listed[model.name]
            if longest is not None and self._settings.context > longest:
                raise BadSettings(f"the server takes {longest} tokens for {model.name}: give --context {longest}")
            exact_prompts = await self._counts.learn(model.name)
            info = self._info(model, CONTINUE, *_FORMS)  # supposed, for the trial
            self._models = (*self._models, info)
            continues, exact_answers = await self._trial(info)
            forms = [form for form in _FORMS if await self._gives(info, form)]
            if SCHEMA in forms and TOOLS not in forms:
                self._in_prose.add(model.id)
                forms += [TOOLS] * await self._gives(info, TOOLS)
            embeds, exact_texts = await self._embeds(model.name)
            exact = exact_prompts and exact_answers and exact_texts
            features = (*[CONTINUE] * continues, *forms, *[EMBED] * embeds, *[ESTIMATES] * (not exact))
            self._models = (*self._models[:-1], self._info(model, *features))

    def _info(self, model: ServedModel, *features: str) -> ModelInfo:
        return ModelInfo(
            id=model.id,
            family=model.family,
            quantisation="unknown",
            digest="",
            context=self._settings.context,
            features=features,
        )

    async def _listed(self) -> dict[str, int | None]:
        """The server's models by name, each with the longest context that it says it takes."""
        reply = await self._http.call("GET", "/v1/models", within_s=self._settings.first_token_s)
        return {one.id: one.longest for one in read_reply(reply, _Models).data}

    async def _trial(self, model: ModelInfo) -> tuple[bool, bool]:
        """Whether it goes on with an answer, and whether it counts the tokens of one.

        It goes on if the halves of a greedy answer make the whole, the prompt is counted alike before and after, and
        a blank at its end counts, too, which some templates trim.
        """
        whole = Request(model=model.id, messages=_QUESTION, max_tokens=_TRIAL_TOKENS)
        deltas, _, exact = await self._collect(whole)
        begun, rest = deltas[: len(deltas) // 2], deltas[len(deltas) // 2 :]
        if not _text(begun) or not rest:
            return False, exact
        second = whole.rest(_text(begun), sum(delta.tokens for delta in begun))
        try:
            continued, finished, _ = await self._collect(second)
            trimmed, blank = [
                await self.count(replace(second, messages=(*_QUESTION, Message("assistant", end))))
                for end in ("one,", "one, ")
            ]
            counted = await self.count(second)
        except EngineError:
            return False, exact
        alike = _text(continued) == _text(rest) and finished.usage.prompt_tokens == counted
        return alike and trimmed < blank, exact

    async def _embeds(self, name: str) -> tuple[bool, bool]:
        """Whether it makes vectors of texts, and whether their tokens are counted wherever there are any."""
        try:
            return True, await self._counts.learn(name, embed=True)
        except EngineError:
            return False, True

    async def _gives(self, model: ModelInfo, form: str) -> bool:
        """Whether an answer of that form is what comes when it is asked for."""
        wanted, shows = _FORMS[form]
        reader, said = RecordReader(), list[str | Record]()
        try:
            async with self.generate(replace(wanted, model=model.id)) as items:
                async for item in items:
                    said += reader.feed(item.text) if isinstance(item, Delta) else ()
                    if (shown := shows(said)) is not None:
                        return shown
        except EngineError:
            pass
        return False

    async def _collect(self, request: Request) -> tuple[list[Delta], Finished, bool]:
        """A whole answer, and whether the server counted its tokens."""
        job = self._job(request, await self._admit(request))
        await job.run(self._http, self._body(request))
        items = [item async for item in job.answer]
        finished = items.pop()
        assert isinstance(finished, Finished)
        return [item for item in items if isinstance(item, Delta)], finished, not job.reader.estimated


class _Job:
    """One answer on its way from the server to its reader."""

    def __init__(self, reader: CompletionReader, max_tokens: int, settings: Upstream) -> None:
        self.reader = reader
        self.answer: Answer[Delta | Finished] = Answer(max_tokens + 3)
        self.scope = trio.CancelScope(deadline=trio.current_time() + settings.first_token_s)
        self.over = trio.Event()
        self._settings = settings
        self._events = EventStream()

    async def run(self, http: UpstreamHttp, body: dict[str, Any]) -> None:
        """Until the answer ends, is called off, or makes no progress for too long."""
        error = EngineError("the server made no progress for too long (first_token_s, between_tokens_s)")
        try:
            with self.scope:
                await http.stream("POST", CHAT, body, self._take)
                self._put(self.reader.end())
        except EngineError as found:
            error = found
        finally:
            self.answer.end(None if self.reader.done else error)
            self.over.set()

    def _take(self, received: bytes) -> bool:
        for payload in self._events.feed(received):
            before = self.reader.pieces
            self._put(self.reader.feed(payload))
            if self.reader.done:
                return True
            if self.reader.pieces > before:
                self.scope.deadline = trio.current_time() + self._settings.between_tokens_s
        return False

    def _put(self, items: list[Delta | Finished]) -> None:
        for item in items:
            self.answer.put(item)


class _Meta(msgspec.Struct, frozen=True):
    n_ctx: int | None = None


class _Listed(msgspec.Struct, frozen=True):
    """One of `/v1/models`: vLLM and SGLang say `max_model_len`, llama-server has it in `meta`."""

    id: str
    max_model_len: int | None = None
    meta: _Meta | None = None

    @property
    def longest(self) -> int | None:
        return self.max_model_len or (self.meta.n_ctx if self.meta else None)


class _Models(msgspec.Struct, frozen=True):
    data: tuple[_Listed, ...]


def _some(names: Iterable[str]) -> str:
    """A server may have hundreds of models, with any names."""
    shown = [name[:100] for name in sorted(names)[:8] if name.isprintable()]
    return ", ".join(shown) or "none"


def _text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def _read_key(settings: Upstream) -> str:
    """The key, of which nobody else on the machine may know. Raises `BadSettings`."""
    file, variable = settings.key_file, settings.key_variable
    if file and variable:
        raise BadSettings("the server's key is in a file or in a variable: give --upstream-key-file or -variable")
    if variable:
        return _one_key(os.environ.get(variable, ""), f"the variable {variable}")
    return _one_key(_in_file(file), file) if file else ""


def _in_file(file: str) -> str:
    try:
        with Path(file).open("rb") as opened:
            if stat.S_IMODE(os.fstat(opened.fileno()).st_mode) & 0o077:
                raise BadSettings(f"others on this machine can read the key in {file}: chmod 600 {file}")
            return opened.read(_KEY_MAX_BYTES).decode("ascii")
    except OSError as error:
        raise BadSettings(f"cannot read the server's key in {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        return ""


def _one_key(text: str, place: str) -> str:
    key = text.strip()
    if not (key.isascii() and key.isprintable()) or not key or " " in key or len(key) > _KEY_MAX_BYTES:
        raise BadSettings(f"{place} must hold one key and nothing else")
    return key


@asynccontextmanager
async def open_upstream(settings: Upstream) -> AsyncIterator[UpstreamEngine]:
    """Try the server out. Raises `BadSettings`, `ModelMissing`, or `EngineError` where it cannot be used."""
    try:
        from inference.upstream_http import open_http
    except ImportError as error:
        raise EngineError("httpx is not installed; install bombyx[upstream]") from error
    key = await trio.to_thread.run_sync(_read_key, settings)
    async with open_http(settings.url, key, settings.connect_s) as http, open_background() as nursery:
        engine = UpstreamEngine(http, settings, nursery)
        try:
            await engine.look()
        except ServerRefused as refused:
            if refused.status in _KEY_REFUSED:
                raise BadSettings(str(refused)) from None
            raise
        yield engine
