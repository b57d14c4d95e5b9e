"""llama.cpp on the CPU, through xllamacpp: continuous batching, cancel, exact counts, cached prefixes.

Run it in a worker (see `worker`): loading holds the GIL, and a fault in C++ ends the process.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, cast

import msgspec
import trio

from inference.admission import check_begun, check_fit, check_messages, check_request, check_text, find_model
from inference.answer import Answer
from inference.engine import CONTINUE, SCORE, Capacity, Delta, Finished, Message, ModelInfo, Request, Scored
from inference.errors import EngineError
from inference.llamachunks import ChunkReader, answer_body, check_chunk, completion_body
from inference.llamascore import Piece, Reading
from inference.models import Weights, embedded_model, gguf_model
from inference.nursery import open_background
from inference.slots import Slots

# How many prompt tokens are worked on at once: the longest wait for a cancel, and for the next token of the others.
# On a CPU larger batches were not faster.
_BATCH_TOKENS = 64
_MOST_THREADS = 8  # memory bandwidth, not cores, is the limit beyond


class GgufFile(msgspec.Struct, frozen=True):
    """A model file of the user's own, and the name and family to sell it under."""

    path: str
    id: str
    family: str


class LlamaCpp(msgspec.Struct, frozen=True, kw_only=True, tag="llamacpp"):
    """What to load and how. No `model` is the embedded one; `context` is in tokens for each slot; 0 threads: choose."""

    model: GgufFile | None = None
    slots: int = 4
    context: int = 4096
    threads: int = 0


class LlamaCppEngine:
    """See `inference.engine.Engine`. Made by `open_llamacpp`."""

    def __init__(self, server: _Server, model: ModelInfo, slots: int, nursery: trio.Nursery) -> None:
        self._server = server
        self._model = model
        self._nursery = nursery
        self._total = slots
        self._places = trio.Semaphore(slots)
        self._slots = Slots(slots)
        self._threads = trio.CapacityLimiter(slots)

    def models(self) -> tuple[ModelInfo, ...]:
        return (self._model,)

    def capacity(self) -> Capacity:
        return Capacity(self._places.value, self._total)

    async def health(self) -> None:
        await self._server.call("GET", "/health")

    async def count(self, model: str, messages: tuple[Message, ...]) -> int:
        find_model(self.models(), model)
        return len(await self._render(messages))

    async def prefill(self, request: Request, tokens: int) -> int:
        prompt = await self._admit(request)
        part = prompt[: max(1, tokens)]
        async with self._slot(prompt) as slot:
            body = completion_body(part, slot)
            await trio.to_thread.run_sync(self._server.complete, body, _until_cancelled, limiter=self._threads)
        return len(part)

    @asynccontextmanager
    async def generate(self, request: Request) -> AsyncIterator[AsyncIterator[Delta | Finished]]:
        prompt = await self._admit(request)
        async with self._slot(prompt) as slot:
            job = _Job(ChunkReader(len(prompt), request.stop), request.max_tokens)
            self._nursery.start_soon(self._run, answer_body(request, prompt, slot), job)
            try:
                yield job.answer
            finally:
                job.left = True
                with trio.CancelScope(shield=True):  # one token, or one batch of the prompt
                    await job.over.wait()

    async def score(self, request: Request, text: str) -> Scored:
        prompt = await self._admit(request)
        check_text(self._model, text)
        reading = Reading(request, await self._server.tokenize(text))

        def on_chunk(chunk: dict[str, Any]) -> bool:
            trio.from_thread.check_cancelled()
            reading.feed(chunk)
            return reading.done

        async with self._slot(prompt) as slot:
            body = reading.body(prompt, slot)
            await trio.to_thread.run_sync(self._server.complete, body, on_chunk, limiter=self._threads)
        if not reading.done:
            raise EngineError("llama.cpp ended the reading of a text without a finish")
        return reading.scored

    async def _admit(self, request: Request) -> list[int]:
        """The prompt's token ids, if the request is good and fits."""
        find_model(self.models(), request.model)
        check_request(request)
        prompt = await self._render(request.messages)
        check_fit(len(prompt), request.max_tokens, self._model.context)
        return prompt

    async def _render(self, messages: tuple[Message, ...]) -> list[int]:
        check_messages(messages)
        check_begun(self._model, messages)
        text = {"content": await self._server.apply_template(messages), "add_special": True, "parse_special": True}
        tokens: list[int] = (await self._server.call("POST", "/tokenize", text))["tokens"]
        return tokens

    @asynccontextmanager
    async def _slot(self, prompt: list[int]) -> AsyncIterator[int]:
        async with self._places:
            slot = self._slots.take(prompt)
            try:
                yield slot
            finally:
                self._slots.give_back(slot, prompt)

    async def _run(self, body: dict[str, Any], job: _Job) -> None:
        def on_chunk(chunk: dict[str, Any]) -> bool:
            return trio.from_thread.run_sync(job.take, chunk)

        error = EngineError("llama.cpp ended the answer without a finish")
        try:
            await trio.to_thread.run_sync(self._server.complete, body, on_chunk, limiter=self._threads)
        except EngineError as reported:
            error = reported
        finally:
            job.answer.end(None if job.reader.done else error)
            job.over.set()


class _Job:
    """One answer on its way from the C++ thread to its reader."""

    def __init__(self, reader: ChunkReader, max_tokens: int) -> None:
        self.reader = reader
        self.answer: Answer[Delta | Finished] = Answer(max_tokens + 2)
        self.left = False
        self.over = trio.Event()

    def take(self, chunk: dict[str, Any]) -> bool:
        """Whether the server is to stop."""
        if not self.left:
            for item in self.reader.feed(chunk):
                self.answer.put(item)
        return self.left or self.reader.done


def _until_cancelled(chunk: dict[str, Any]) -> bool:
    trio.from_thread.check_cancelled()
    check_chunk(chunk)
    return False


class _Server:
    """xllamacpp's server. It always opens an HTTP side too, which has what its Python side lacks.

    That side listens on a Unix socket that is reached through our descriptor alone: its directory, closed to other
    users, is gone once the server is up. A random key guards against what else runs as our user.
    """

    def __init__(self, weights: Weights, settings: LlamaCpp) -> None:
        """Loads the model: blocks for seconds and holds the GIL."""
        try:
            import xllamacpp
        except ImportError as error:
            raise EngineError("llama.cpp is not installed; install bombyx[llamacpp]") from error
        self._key = secrets.token_urlsafe(32)
        directory = Path(tempfile.mkdtemp(prefix="bombyx-"))
        way = os.open(directory, os.O_PATH | os.O_CLOEXEC)  # short, however long the path: a socket's has 107 bytes
        try:
            params = _server_params(xllamacpp.CommonParams(), weights, settings)
            params.hostnames = [f"/proc/self/fd/{way}/http.sock"]
            params.api_keys = [self._key]
            self._server = xllamacpp.Server(params)
            self._socket = os.open(directory / "http.sock", os.O_PATH | os.O_CLOEXEC)
        except (RuntimeError, ValueError) as error:
            raise EngineError(
                f"llama.cpp cannot load {weights.path}: is it whole, of a kind that llama.cpp knows, and is there "
                f"memory for it? ({str(error).rstrip('.')})"
            ) from error
        finally:
            os.close(way)
            shutil.rmtree(directory)

    def close(self) -> None:
        """Unload the model. No completion may be running."""
        del self._server
        os.close(self._socket)

    def complete(self, body: dict[str, Any], on_chunk: Callable[[dict[str, Any]], bool]) -> None:
        """Blocks until the answer ends or `on_chunk` returns True; raises what `on_chunk` raised, or `EngineError`."""
        raised: list[BaseException] = []

        def guarded(chunk: dict[str, Any]) -> bool:
            try:
                return on_chunk(chunk)
            except BaseException as error:  # C++ would drop it
                raised.append(error)
                return True

        try:
            self._server.handle_completions(body, guarded)
        except (RuntimeError, ValueError) as error:
            raise EngineError(f"llama.cpp failed with {type(error).__name__}") from None
        if raised:
            raise raised[0]

    async def apply_template(self, messages: tuple[Message, ...]) -> str:
        """The prompt as the model's template has it, up to where the answer goes on. Raises `EngineError`."""
        body = {"messages": msgspec.to_builtins(messages)}
        prompt: str = (await self.call("POST", "/apply-template", body))["prompt"]
        return prompt

    async def tokenize(self, text: str) -> list[Piece]:
        """The tokens of a text that no template surrounds. Raises `EngineError`."""
        reply = await self.call("POST", "/tokenize", {"content": text, "with_pieces": True})
        return msgspec.convert(reply["tokens"], list[Piece])

    async def call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """One request to the HTTP side. Raises `EngineError`."""
        try:
            return await trio.to_thread.run_sync(self._call, method, path, body)
        except (OSError, http.client.HTTPException) as error:
            raise EngineError(f"llama.cpp's server does not answer {path}: {type(error).__name__}") from None

    def _call(self, method: str, path: str, body: object) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        connection = _SocketConnection("localhost", timeout=60)
        with closing(connection):
            connection.connect_to(f"/proc/self/fd/{self._socket}")
            connection.request(method, path, json.dumps(body), headers)
            response = connection.getresponse()
            reply = json.loads(response.read())
        if response.status != 200:
            raise EngineError(f"llama.cpp's server answered {path} with {response.status}")
        return cast(dict[str, Any], reply)


class _SocketConnection(http.client.HTTPConnection):
    def connect_to(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(path)


def _server_params(params: Any, weights: Weights, settings: LlamaCpp) -> Any:
    threads = settings.threads or _default_threads()
    params.model.path = weights.path
    params.n_parallel = settings.slots
    params.n_ctx = settings.slots * settings.context
    params.n_batch = params.n_ubatch = _BATCH_TOKENS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.cache_ram_mib = 0  # what a slot loses is lost: `Slots` says which
    params.ui = params.endpoint_slots = False
    params.verbosity = 0  # its log may quote prompts
    return params


def _default_threads() -> int:
    """One core is left to the rest: llama.cpp's threads spin at each barrier, and one that must wait stops all."""
    return max(1, min(len(os.sched_getaffinity(0)) - 1, _MOST_THREADS))


def _find(model: GgufFile | None) -> Weights:
    return embedded_model() if model is None else gguf_model(Path(model.path), model.id, model.family)


async def _features(server: _Server) -> tuple[str, ...]:
    """What goes on with an answer is tried out: a template can refuse, close or trim one that is begun."""
    asked, begun = Message("user", "Say hello."), Message("assistant", "Hello, ")
    try:
        goes_on = await server.apply_template((asked, begun)) == await server.apply_template((asked,)) + begun.content
    except EngineError:
        goes_on = False
    return (CONTINUE, SCORE) if goes_on else (SCORE,)


@asynccontextmanager
async def open_llamacpp(settings: LlamaCpp | None = None) -> AsyncIterator[LlamaCppEngine]:
    """Load a model. Raises `ModelMissing`, or `EngineError` where it cannot be loaded."""
    settings = settings or LlamaCpp()
    weights = await trio.to_thread.run_sync(_find, settings.model)
    server = await trio.to_thread.run_sync(_Server, weights, settings)
    try:
        loaded = (await server.call("GET", "/v1/models"))["data"][0]["meta"]
        model = ModelInfo(
            id=weights.id,
            family=weights.family,
            quantisation=loaded["ftype"],
            digest=weights.digest,
            context=loaded["n_ctx"],
            features=await _features(server),
        )
        async with open_background() as nursery:
            yield LlamaCppEngine(server, model, settings.slots, nursery)
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(server.close)
