"""Core: answers that are a pure function of the request, for tests and the simulator. A token is a word."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest

import msgspec

from inference.engine import Delta, Figures, Finished, Request, Scored, Tool, Usage
from inference.instance import instance
from inference.records import Call, Embedding, Logprobs, TokenLogprob, embedding, written
from inference.stopping import StopFilter

SHORTEST_TOKENS = 64
"""No answer ends by itself before this many tokens, so a smaller `max_tokens` is always reached exactly."""

_LONGEST_TOKENS = 320
_VOCABULARY = (
    "silk moth leaf thread river stone cloud ember field harbour lantern meadow needle orchard pebble quarry "
    "ribbon saddle timber umbra valley willow amber basin cedar delta elder fable garnet hollow island juniper "
    "kernel lagoon marble nectar oyster pillar quill reed sparrow thistle upland velvet walnut yarrow anchor "
    "bramble bronze candle dapple echo fathom glade heron indigo jasper kestrel linden mirror north opal prairie rain"
)
_WORDS = _VOCABULARY.split()
_TOKEN = re.compile(r" ?[^ ]+| ")
_EXPECTED_LOGPROB, _OTHER_LOGPROB = -0.7, -8.0
_DIMENSIONS = 16


def count_tokens(request: Request) -> int:
    """One token per word, and one per message for its role, which a text that is embedded has not."""
    said = sum(len(message.content.split()) for message in request.messages)
    called = sum(2 for message in request.messages for _ in message.tool_calls)
    tools = sum(1 + len(f"{tool.description} {tool.parameters}".split()) for tool in request.tools)
    return said + called + tools + (0 if request.embed else len(request.messages))


def answer(request: Request, cached_tokens: int = 0) -> Iterator[Delta | Finished]:
    """The whole answer, item by item, as an engine gives it.

    Requests that differ only in `max_tokens` or `stop` share one text and end it at different places.
    """
    words = [] if request.embed else _words(request)
    filtered = StopFilter(request.stop)
    delivered = 0
    if request.embed:
        yield from (Delta(written(_embedding(message.content)), 0) for message in request.messages)
    for delta in _deltas(words[: request.max_tokens], filtered):
        told = "" if request.top_logprobs is None else _logprobs(words[delivered:][: delta.tokens], request)
        delivered += delta.tokens
        yield Delta(delta.text + told, delta.tokens)
    ended = filtered.stopped or request.embed or len(words) <= request.max_tokens - _open_ended(request)
    yield Finished("stop" if ended else "length", Usage(count_tokens(request), cached_tokens, delivered))


def scored(request: Request, text: str) -> Scored:
    """How an engine finds a text: a word is likely where the answer has it, and hardly to be thought of elsewhere."""
    expected = _words(request)
    given = _TOKEN.findall(text)
    read = given[: request.max_tokens]
    found = tuple(_figures(request, word, word == own) for word, own in zip_longest(read, expected[: len(read)]))
    end = _figures(request, "", len(given) == len(expected)) if read == given else None
    return Scored(len(read), found, end)


def _figures(request: Request, word: str, expected: bool) -> Figures:
    """What is drawn is the one or the other of two words, of which every second word of the vocabulary is the likelier.

    They differ by one nat, and are drawn as often: that makes no sense of one word, but the sum is what it should be.
    """
    logprob = _EXPECTED_LOGPROB if expected else _OTHER_LOGPROB
    if request.temperature == 0:
        return Figures(logprob, _EXPECTED_LOGPROB, _EXPECTED_LOGPROB, 0.0)
    likelier = _WORDS.index(word.strip()) % 2 if word.strip() in _WORDS else 0
    drawn = logprob + (0.5 if likelier else -0.5)
    return Figures(drawn, _EXPECTED_LOGPROB + 0.5, _EXPECTED_LOGPROB, 0.25)


def _deltas(words: Sequence[str], filtered: StopFilter) -> Iterator[Delta]:
    for word in words:
        if (delta := filtered.feed(word, 1)) is not None:
            yield delta
        if filtered.stopped:
            return
    if (rest := filtered.flush()) is not None:
        yield rest


def _words(request: Request) -> list[str]:
    """The answer without limits; of one that is begun the rest, from the character on at which it breaks off."""
    if request.continues:
        *before, last = request.messages
        whole = _drawn(msgspec.structs.replace(request, messages=tuple(before)))
        if "".join(whole).startswith(last.content):
            return _after(whole, len(last.content))
    return _drawn(request)


def _after(words: Sequence[str], characters: int) -> list[str]:
    for at, word in enumerate(words):
        if characters < len(word):
            return [word[characters:], *words[at + 1 :]]
        characters -= len(word)
    return []


def _open_ended(request: Request) -> bool:
    """Whether it is prose, which has an end token."""
    return not (request.schema or _called(request))


def _called(request: Request) -> Tool | None:
    """The tool that is called: the one that must be, or one that is named in the question."""
    if not request.tools:
        return None
    asked = request.messages[-1]
    if request.tool_choice == "required":
        return next(tool for tool in request.tools if request.tool in ("", tool.name))
    if request.tool_choice == "none" or asked.role != "user":
        return None
    return next((tool for tool in request.tools if tool.name in asked.content), None)


def _logprobs(words: Sequence[str], request: Request) -> str:
    assert request.top_logprobs is not None
    others = tuple((word, _OTHER_LOGPROB) for word in _WORDS[: max(0, request.top_logprobs - 1)])
    tops = [((word, _EXPECTED_LOGPROB), *others)[: request.top_logprobs] for word in words]
    told = (TokenLogprob(word, _EXPECTED_LOGPROB, top) for word, top in zip(words, tops, strict=True))
    return written(Logprobs(tuple(told)))


def _embedding(text: str) -> Embedding:
    """Of length one; texts that share words are near to each other."""
    vector = [0.0] * _DIMENSIONS
    for word in re.findall(r"\w+", text.lower()):
        for at, byte in enumerate(hashlib.shake_256(word.encode()).digest(_DIMENSIONS)):
            vector[at] += byte - 127.5
    length = math.hypot(*vector) or 1.0
    return embedding([part / length for part in vector])


def _drawn(request: Request) -> list[str]:
    """JSON where that is asked for, else prose."""
    if request.schema:
        return _TOKEN.findall(json.dumps(instance(json.loads(request.schema))))
    if (tool := _called(request)) is not None:
        call = Call(tool.name, msgspec.Raw(json.dumps(instance(json.loads(tool.parameters))).encode()))
        return _TOKEN.findall(written(call))
    return _prose(request)


def _prose(request: Request) -> list[str]:
    """A hash of all that decides the answer gives its length (two bytes) and each word (one)."""
    decides = (request.model, request.messages, request.temperature, request.top_p, request.seed)
    drawn = hashlib.shake_256(msgspec.msgpack.encode(decides)).digest(2 + _LONGEST_TOKENS)
    length = SHORTEST_TOKENS + int.from_bytes(drawn[:2], "big") % (_LONGEST_TOKENS - SHORTEST_TOKENS)
    return [("" if at == 0 else " ") + _WORDS[byte % len(_WORDS)] for at, byte in enumerate(drawn[2 : 2 + length])]
