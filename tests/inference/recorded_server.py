"""A server in the shape of vLLM's, as its documents and sources have it, over real sockets.

Its model counts, in words, whatever it is asked. The attributes are what differs from server to server, or goes wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import h11
import trio

from inference.nursery import open_background

_TOKEN = r" ?\w+|\W"
WORDS = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
SAYS = re.findall(_TOKEN, WORDS.replace(" ", ", "))
NAME = "counter"
KEY = "sesame"


def tokens_of(text: str) -> int:
    return len(re.findall(_TOKEN, text))


def prompt_tokens_of(messages: list[dict[str, str]]) -> int:
    return sum(4 + tokens_of(message["content"]) for message in messages)


@dataclass
class Recorded:
    """What the server does. `instead` is sent for the answers after the trial at the start, as it stands."""

    counts: str = "running"  # usage in every chunk; or `last`, or `never`
    tokenizer: int | None = 0  # how much `/tokenize` is off; None where there is none
    chunk_tokens: int = 1
    hidden: int = 0  # tokens of reasoning before the answer
    continues: bool = True
    trims: bool = False
    context: int | None = 4096
    embeds: bool = False
    vectors: bytes = b""  # sent for texts as it stands, if there is any
    instead: tuple[bytes, ...] = ()
    status: int = 200
    drops: bool = False  # after `instead`, without ending the reply
    stalls: bool = False  # after `instead`
    asked: list[dict[str, Any]] = field(default_factory=list)
    left: trio.Event = field(default_factory=trio.Event)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        async with open_background() as nursery:
            (listener,) = await nursery.start(partial(trio.serve_tcp, self._connection, 0, host="127.0.0.1"))
            yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}/v1"

    async def _connection(self, stream: trio.SocketStream) -> None:
        http = h11.Connection(h11.SERVER)
        request, body = await self._request(http, stream)
        try:
            await self._reply(http, stream, request, json.loads(body) if body else {})
        except trio.BrokenResourceError:
            self.left.set()

    async def _request(self, http: h11.Connection, stream: trio.SocketStream) -> tuple[h11.Request, bytes]:
        request, body = None, b""
        while not isinstance(event := http.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                http.receive_data(await stream.receive_some())
        assert request is not None
        return request, body

    async def _reply(
        self, http: h11.Connection, stream: trio.SocketStream, request: h11.Request, body: dict[str, Any]
    ) -> None:
        path = request.target.decode()
        self.asked.append({"path": path, "headers": dict(request.headers), **body})
        stray = body.get("stream") and (self.instead or self.status != 200 or self.drops or self.stalls)
        if stray:
            await stream.send_all(_start(http, self.status))
            for piece in self.instead:
                await stream.send_all(http.send(h11.Data(data=piece)) or b"")
            if self.stalls:
                await self._until_left(stream)
            if not self.drops:
                await stream.send_all(http.send(h11.EndOfMessage()) or b"")
            return
        status, reply = (200, self._stream(body)) if body.get("stream") else self._whole(path, request, body)
        await stream.send_all(_start(http, status))
        for piece in reply:
            await stream.send_all(http.send(h11.Data(data=piece)) or b"")
        await stream.send_all(http.send(h11.EndOfMessage()) or b"")

    async def _until_left(self, stream: trio.SocketStream) -> None:
        while await stream.receive_some():
            pass
        self.left.set()

    def _whole(self, path: str, request: h11.Request, body: dict[str, Any]) -> tuple[int, Iterator[bytes]]:
        if (b"authorization", f"Bearer {KEY}".encode()) not in list(request.headers):
            return 401, iter([b'{"error": "Unauthorized"}'])
        match path:
            case "/v1/models":
                reply: dict[str, Any] = {"object": "list", "data": [{"id": NAME, "max_model_len": self.context}]}
            case "/tokenize" if self.tokenizer is not None and "prompt" in body:
                reply = {"count": tokens_of(body["prompt"]), "tokens": [1] * tokens_of(body["prompt"])}
                reply["tokens"] += [1] * self.tokenizer
            case "/tokenize" if self.tokenizer is not None:
                reply = {
                    "count": self._prompt_tokens(body) + self.tokenizer,
                    "max_model_len": self.context,
                    "tokens": [],
                }
            case "/v1/chat/completions":
                reply = {"choices": [{"message": {"content": "one"}, "finish_reason": "length"}]}
                if self.counts != "never":
                    reply["usage"] = {"prompt_tokens": self._prompt_tokens(body), "completion_tokens": 1}
            case "/v1/embeddings" if self.embeds and self.vectors:
                return 200, iter([self.vectors])
            case "/v1/embeddings" if self.embeds:
                vectors = [{"index": at, "embedding": [3.0, 4.0 * len(text)]} for at, text in enumerate(body["input"])]
                reply = {"data": vectors[::-1]}
                if self.counts != "never":
                    reply["usage"] = {"prompt_tokens": sum(map(tokens_of, body["input"]))}
            case _:
                return 404, iter([b'{"detail": "Not Found"}'])
        return 200, iter([json.dumps(reply).encode()])

    def _prompt_tokens(self, body: dict[str, Any]) -> int:
        messages = body["messages"]
        if self.trims:
            messages = [message | {"content": message["content"].strip()} for message in messages]
        return prompt_tokens_of(messages)

    def _stream(self, body: dict[str, Any]) -> Iterator[bytes]:
        said = 0
        if body.get("continue_final_message") and self.continues:
            said = tokens_of(body["messages"][-1]["content"])
        left = SAYS[said:]
        answer, ended = left[: body["max_tokens"] - self.hidden], len(left) < body["max_tokens"]
        prompt, done = self._prompt_tokens(body), 0

        def chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
            usage = {"prompt_tokens": prompt, "completion_tokens": done, "total_tokens": prompt + done}
            told = {"usage": usage} if self.counts == "running" else {}
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
            return event({"object": "chat.completion.chunk", "choices": [choice]} | told)

        yield chunk({"role": "assistant", "content": ""})
        for _ in range(self.hidden):
            done += 1
            yield chunk({"reasoning": "hm", "reasoning_content": "hm"})
        for at in range(0, len(answer), self.chunk_tokens):
            pieces = answer[at : at + self.chunk_tokens]
            done += len(pieces)
            yield chunk({"content": "".join(pieces)})
        done += ended  # the end token counts
        yield chunk({"content": ""}, "stop" if ended else "length")
        if self.counts != "never":
            usage = {"prompt_tokens": prompt, "completion_tokens": done, "prompt_tokens_details": {"cached_tokens": 2}}
            yield event({"object": "chat.completion.chunk", "choices": [], "usage": usage})
        yield b"data: [DONE]\n\n"


def event(payload: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(payload).encode() + b"\n\n"


def piece(text: str, **rest: Any) -> bytes:
    """A chunk with some of an answer."""
    return event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]} | rest)


def _start(http: h11.Connection, status: int) -> bytes:
    response = h11.Response(status_code=status, headers=[("Transfer-Encoding", "chunked"), ("Connection", "close")])
    return http.send(response) or b""
