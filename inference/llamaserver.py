"""xllamacpp's server: a model in this process, its Python side for answers and its HTTP side for what that lacks."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from operator import itemgetter
from pathlib import Path
from typing import Any, cast

import msgspec
import trio

from inference.engine import Message
from inference.errors import EngineError
from inference.llamascore import Piece

# How many prompt tokens are worked on at once: the longest wait for a cancel, and for the next token of the others.
# On a CPU larger batches were not faster.
_BATCH_TOKENS = 64
_MOST_THREADS = 8  # memory bandwidth, not cores, is the limit beyond


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What to load and how. `context` is in tokens for each slot; 0 threads: choose. One that `embeds` does just that:
    it has to work on all of a text at once.
    """

    path: str
    slots: int
    context: int
    threads: int = 0
    embeds: bool = False


class LlamaServer:
    """xllamacpp's server. It always opens an HTTP side too, which has what its Python side lacks.

    That side listens on a Unix socket that is reached through our descriptor alone: its directory, closed to other
    users, is gone once the server is up. A random key guards against what else runs as our user.
    """

    def __init__(self, setup: Setup) -> None:
        """Loads the model: blocks for seconds and holds the GIL. Raises `EngineError`."""
        try:
            import xllamacpp
        except ImportError as error:
            raise EngineError("llama.cpp is not installed; install bombyx[llamacpp]") from error
        self._key = secrets.token_urlsafe(32)
        directory = Path(tempfile.mkdtemp(prefix="bombyx-"))
        way = os.open(directory, os.O_PATH | os.O_CLOEXEC)  # short, however long the path: a socket's has 107 bytes
        try:
            params = _server_params(xllamacpp, setup)
            params.hostnames = [f"/proc/self/fd/{way}/http.sock"]
            params.api_keys = [self._key]
            self._server = xllamacpp.Server(params)
            self._socket = os.open(directory / "http.sock", os.O_PATH | os.O_CLOEXEC)
        except (RuntimeError, ValueError) as error:
            raise EngineError(
                f"llama.cpp cannot load {setup.path}: is it whole, of a kind that llama.cpp knows, and is there "
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

    async def apply_template(self, messages: Sequence[Message]) -> str:
        """The prompt as the model's template has it, up to where the answer goes on. Raises `EngineError`."""
        body = {"messages": msgspec.to_builtins(messages)}
        prompt: str = (await self.call("POST", "/apply-template", body))["prompt"]
        return prompt

    async def tokens(self, text: str) -> list[int]:
        """A prompt's token ids, its special ones read as such. Raises `EngineError`."""
        body = {"content": text, "add_special": True, "parse_special": True}
        tokens: list[int] = (await self.call("POST", "/tokenize", body))["tokens"]
        return tokens

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector of length one for each text. Raises `EngineError`."""
        reply = await self.call("POST", "/v1/embeddings", {"input": texts})
        return [one["embedding"] for one in sorted(reply["data"], key=itemgetter("index"))]

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


def _server_params(xllamacpp: Any, setup: Setup) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = setup.path
    params.n_parallel = setup.slots
    params.n_ctx = setup.slots * setup.context
    params.n_batch = params.n_ubatch = setup.context if setup.embeds else _BATCH_TOKENS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = setup.threads or _default_threads()
    params.n_threads_http = setup.slots + 4  # however many cores there are
    params.cache_ram_mib = 0  # what a slot loses is lost: `Slots` says which
    params.ui = params.endpoint_slots = False
    params.verbosity = 0  # its log may quote prompts
    if setup.embeds:
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    return params


def _default_threads() -> int:
    """One core is left to the rest: llama.cpp's threads spin at each barrier, and one that must wait stops all."""
    return max(1, min(len(os.sched_getaffinity(0)) - 1, _MOST_THREADS))
