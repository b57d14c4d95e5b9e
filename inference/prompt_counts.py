"""How many tokens an OpenAI-compatible server's prompts have, template and all: exact, wherever it can be known.

The server's own tokenizer is asked, if it has one that counts as its usage does. If not, the prompt is worked through
for an answer of one token, and the usage of that is the count: a server that keeps what it worked through loses nothing
by it. Only of a server that gives no usage is the count an estimate. The same goes for texts to be embedded, which have
no template.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from inference.completions import CHAT, Counted, chat_body, read_reply
from inference.embeddings import embed_texts
from inference.engine import Message, Request
from inference.errors import BadRequest, EngineError, ServerRefused

if TYPE_CHECKING:
    from inference.upstream_http import UpstreamHttp

Counter = Callable[[str, Request], Awaitable[int]]

_KEPT = 256
# A tokenizer that is right about these takes the same template as the answers do, with and without a system prompt.
_TURNS = (Message("user", "Hi."), Message("assistant", "Hello."), Message("user", "Why?"))
_STRANGE = Message("user", "Grüße, 漢字 and 🦋: what is 2+2?")
_SAMPLES = (
    Request(model="", messages=(_STRANGE,), max_tokens=1),
    Request(model="", messages=(Message("system", "Be brief."), *_TURNS), max_tokens=1),
)
_TEXTS = (Request(model="", messages=(_STRANGE, *_TURNS), max_tokens=1, embed=True),)


class PromptCounts:
    """Counts for the models of one server, under its own names. The last are kept: each answer asks several times."""

    def __init__(self, http: UpstreamHttp, places: trio.Semaphore, within_s: float) -> None:
        self._http = http
        self._places = places
        self._within_s = within_s
        self._counters: dict[tuple[str, bool], Counter] = {}  # by the model's name, and for texts to be embedded or not
        self._known: OrderedDict[bytes, int] = OrderedDict()

    async def learn(self, name: str, *, embed: bool = False) -> bool:
        """Find the best way for a model's prompts, or for texts to be embedded; whether it is exact.

        Raises `EngineError`, also for embeddings that are none.
        """
        samples = _TEXTS if embed else _SAMPLES
        told = [await self.work_through(name, sample) for sample in samples]
        for path, find in (_TEXT_TOKENIZERS if embed else _TOKENIZERS).items():
            counter = self._tokenizer(path, find)
            try:
                counted = [await counter(name, sample) for sample in samples]
            except EngineError:
                continue
            if counted == told:
                self._counters[name, embed] = counter
                return True
        self._counters[name, embed] = self._by_trial if all(told) else _estimate
        return all(told)

    async def count(self, name: str, request: Request) -> int:
        """Raises `BadRequest` for a prompt that the server refuses, or `EngineError`."""
        key = hashlib.sha256(msgspec.msgpack.encode((name, request.messages, request.tools, request.embed))).digest()
        if key not in self._known:
            self._known[key] = await self._counters[name, request.embed](name, request)
        self._known.move_to_end(key)
        tokens = self._known[key]
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return tokens

    async def work_through(self, name: str, request: Request) -> int:
        """Have a prompt worked through, for an answer of one token, or texts embedded: their tokens, 0 if it does not
        say.
        """
        if request.embed:
            _, tokens = await embed_texts(self._http, name, request, within_s=self._within_s)
            return tokens
        body = chat_body(name, request) | {"max_tokens": 1, "temperature": 0.0}
        reply = await self._http.call("POST", CHAT, body, within_s=self._within_s)
        usage = read_reply(reply, _Completion).usage
        return max(0, usage.prompt_tokens) if usage is not None else 0

    async def _by_trial(self, name: str, request: Request) -> int:
        async with self._places:
            try:
                tokens = await self.work_through(name, request)
            except ServerRefused as refused:
                if refused.status == 400:
                    raise BadRequest("the server does not take that prompt; it may be too long") from None
                raise
        if not tokens:
            raise EngineError("the server gave no usage")
        return tokens

    def _tokenizer(self, path: str, find: Callable[[bytes], int]) -> Counter:
        async def counter(name: str, request: Request) -> int:
            replies = [
                await self._http.call("POST", path, body, within_s=self._within_s) for body in _bodies(name, request)
            ]
            return sum(map(find, replies))

        return counter


def _bodies(name: str, request: Request) -> list[dict[str, Any]]:
    """A text is the `prompt` to vLLM's tokenizer, and the `content` to llama-server's."""
    if not request.embed:
        return [chat_body(name, request)]
    return [
        {"model": name, "prompt": message.content, "content": message.content, "add_special": True}
        for message in request.messages
    ]


class _Completion(msgspec.Struct, frozen=True):
    usage: Counted | None = None


class _Count(msgspec.Struct, frozen=True):
    count: int


class _Tokens(msgspec.Struct, frozen=True):
    tokens: tuple[int, ...]


class _InputTokens(msgspec.Struct, frozen=True):
    input_tokens: int


# Where servers count a conversation's tokens: vLLM, and llama-server.
_TOKENIZERS: dict[str, Callable[[bytes], int]] = {
    "/tokenize": lambda reply: read_reply(reply, _Count).count,
    "/v1/chat/completions/input_tokens": lambda reply: read_reply(reply, _InputTokens).input_tokens,
}
# The same for a text. The tokens themselves are there, whether or not they are counted.
_TEXT_TOKENIZERS: dict[str, Callable[[bytes], int]] = {
    "/tokenize": lambda reply: len(read_reply(reply, _Tokens).tokens)
}


async def _estimate(_: str, request: Request) -> int:
    """Half the bytes and room for a template: twice what ordinary text has, and no more than clients let pass."""
    await trio.lowlevel.checkpoint()
    return sum(16 + -(-len(message.content.encode()) // 2) for message in request.messages)
