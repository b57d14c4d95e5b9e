"""How fast an engine is right now, as an advert states it."""

from __future__ import annotations

import math
from operator import itemgetter

import msgspec
import trio

from inference.admission import find_model
from inference.engine import Delta, Engine, Message, Request
from inference.errors import EngineError
from inference.nursery import open_background

_TOKENS = 24
_MOST_TOKENS = 1024  # where the first are thoughts, of which nothing is shown
_PROMPT = (Message("user", "Count from one to twenty, in words."),)
# Whoever is kept from running sees pieces come late and then all at once, as if the engine were as fast as that.
_TRIALS = 3
_TICK_S = 0.01
_LATE_S = 0.05


class Measured(msgspec.Struct, frozen=True):
    """Milliseconds to the first token, and tokens per second after it; both at least 1."""

    ttft_ms: int
    tokens_per_s: int


async def measure(engine: Engine, model: str) -> Measured:
    """Time one short answer, alone if nobody else asks; a longer one of a model that thinks first, thoughts included.

    Where this process did not run when it was its turn, that says little: then another is timed, and the one that was
    disturbed least counts. Raises `EngineError`.
    """
    trials: list[tuple[float, Measured]] = []
    while len(trials) < _TRIALS and not any(late_s <= _LATE_S for late_s, _ in trials):
        async with open_background() as background:
            lateness = _Lateness()
            background.start_soon(lateness.watch)
            found = await _trial(engine, model)
        trials.append((lateness.worst_s, found))
    return min(trials, key=itemgetter(0))[1]


async def _trial(engine: Engine, model: str) -> Measured:
    context = find_model(engine.models(), model).context
    for most in (_TOKENS, min(_MOST_TOKENS, context // 2)):
        asked_s = trio.current_time()
        if arrivals := await _arrivals(engine, Request(model=model, messages=_PROMPT, max_tokens=most)):
            break
    else:
        raise EngineError("the engine gave an empty answer")
    first_s, last_s = arrivals[0][0], arrivals[-1][0]
    after_first = sum(tokens for _, tokens in arrivals[1:])
    rate = after_first / max(last_s - first_s, 1e-6)
    return Measured(max(1, math.ceil((first_s - asked_s) * 1000)), max(1, int(rate)))


class _Lateness:
    """How much later than it was due anything ran."""

    def __init__(self) -> None:
        self._due_s = trio.current_time() + _TICK_S
        self._worst_s = 0.0

    @property
    def worst_s(self) -> float:
        return max(self._worst_s, trio.current_time() - self._due_s)

    async def watch(self) -> None:
        while True:
            await trio.sleep_until(self._due_s)
            self._worst_s = self.worst_s
            self._due_s = trio.current_time() + _TICK_S


async def _arrivals(engine: Engine, request: Request) -> list[tuple[float, int]]:
    """When tokens of the answer came, and how many, of the first that are shown."""
    arrivals: list[tuple[float, int]] = []
    async with engine.generate(request) as items:
        async for item in items:
            if isinstance(item, Delta):
                arrivals.append((trio.current_time(), item.tokens))
            if sum(tokens for _, tokens in arrivals) >= _TOKENS:
                break
    return arrivals
