"""Core: answers that are a pure function of the request, for tests and the simulator. A token is a word."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import msgspec

from inference.engine import Delta, Finished, Message, Request, Usage
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


def count_tokens(messages: tuple[Message, ...]) -> int:
    """One token per word and one per message for its role."""
    return sum(1 + len(message.content.split()) for message in messages)


def answer(request: Request, cached_tokens: int = 0) -> Iterator[Delta | Finished]:
    """The whole answer, item by item, as an engine gives it.

    Requests that differ only in `max_tokens` or `stop` share one text and end it at different places.
    """
    words = _words(request)
    filtered = StopFilter(request.stop)
    delivered = 0
    for delta in _deltas(words[: request.max_tokens], filtered):
        delivered += delta.tokens
        yield delta
    ended = filtered.stopped or len(words) < request.max_tokens
    usage = Usage(count_tokens(request.messages), cached_tokens, delivered)
    yield Finished("stop" if ended else "length", usage)


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


def _drawn(request: Request) -> list[str]:
    """A hash of all that decides the answer gives its length (two bytes) and each word (one)."""
    decides = (request.model, request.messages, request.temperature, request.top_p, request.seed)
    drawn = hashlib.shake_256(msgspec.msgpack.encode(decides)).digest(2 + _LONGEST_TOKENS)
    length = SHORTEST_TOKENS + int.from_bytes(drawn[:2], "big") % (_LONGEST_TOKENS - SHORTEST_TOKENS)
    return [("" if at == 0 else " ") + _WORDS[byte % len(_WORDS)] for at, byte in enumerate(drawn[2 : 2 + length])]
