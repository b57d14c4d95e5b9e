"""The same load for any engine: some streams, each of which asks again as soon as its answer is over."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import trio

from inference.engine import Delta, Engine, Finished, Message, Request
from inference.errors import EngineError

_WORDS = ("silk", "moth", "river", "lamp", "stone", "cloud", "seven", "north", "paper", "green", "salt", "wheel")


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """How much is asked: answers of up to `tokens` tokens to prompts of so many words, for so long."""

    streams: int
    tokens: int = 128
    prompt_words: int = 64
    seconds: float = 15.0


class Times(NamedTuple):
    """A middle and a bad case, in milliseconds; 0 where nothing was timed."""

    p50_ms: float
    p99_ms: float


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a load. `between` is from one piece of an answer to the next; a piece is mostly one token."""

    streams: int
    tokens_per_s: float
    answers: int
    first: Times
    between: Times


class _Clocked:
    """What the streams of one load have received so far."""

    def __init__(self) -> None:
        self.tokens = 0
        self.answers = 0
        self.firsts_s: list[float] = []
        self.gaps_s: list[float] = []

    async def ask(self, engine: Engine, request: Request) -> None:
        heard_s = trio.current_time()
        times_s = self.firsts_s
        async with engine.generate(request) as items:
            async for item in items:
                if isinstance(item, Finished):
                    self.answers += 1
                elif isinstance(item, Delta):
                    now_s = trio.current_time()
                    times_s.append(now_s - heard_s)
                    heard_s, times_s = now_s, self.gaps_s
                    self.tokens += item.tokens


async def put_on(engine: Engine, load: Load, heard: Callable[[float], None] = lambda _: None) -> Taken:
    """Ask for `load.seconds`, and leave what is not over by then. `heard` is told now and then how far that is.

    No two prompts begin alike, but for what a template puts before them. Raises `EngineError`.
    """
    clocked, numbers = _Clocked(), itertools.count(1)
    model = engine.models()[0].id

    failed: list[EngineError] = []

    async def stream(scope: trio.CancelScope) -> None:
        try:
            while True:
                await clocked.ask(engine, question(model, load, next(numbers)))
        except EngineError as error:
            failed.append(error)
            scope.cancel()

    began_s = trio.current_time()
    with trio.move_on_after(load.seconds):
        async with trio.open_nursery() as nursery:
            for _ in range(load.streams):
                nursery.start_soon(stream, nursery.cancel_scope)
            while True:
                await trio.sleep(min(0.2, load.seconds / 10))
                heard(min(1.0, (trio.current_time() - began_s) / load.seconds))
    if failed:
        raise failed[0]
    return Taken(
        streams=load.streams,
        tokens_per_s=clocked.tokens / load.seconds,
        answers=clocked.answers,
        first=_times(clocked.firsts_s),
        between=_times(clocked.gaps_s),
    )


def warming(load: Load) -> Load:
    """The same as it begins: what is done once for so many streams is done then."""
    return msgspec.structs.replace(load, tokens=8, seconds=min(1.0, load.seconds))


def question(model: str, load: Load, number: int) -> Request:
    """What a stream asks for; `number` is another for each question."""
    words = itertools.islice(itertools.cycle((f"{number}", *_WORDS)), load.prompt_words)
    title = f"{number} of {load.streams} times {load.tokens}"  # or one load would find the last one's prompts cached
    content = f"{title}. Write a long story with these words in it: {' '.join(words)}."
    return Request(
        model=model, messages=(Message("user", content),), max_tokens=load.tokens, temperature=0.8, seed=number
    )


def _times(seconds: Sequence[float]) -> Times:
    if not seconds:
        return Times(0.0, 0.0)
    ordered = sorted(seconds)
    return Times(*(1000 * ordered[int(len(ordered) * share)] for share in (0.5, 0.99)))
