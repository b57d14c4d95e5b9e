"""How a provider is doing: a table in a terminal that is drawn anew every second, a line now and then for programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import trio
from trio.to_thread import run_sync

from chain.keeper import BookKeeper
from chain.records import of_day
from inference.gpu import Gpu, in_words
from p2p.console import Session
from p2p.foreign import translated
from p2p.manners import STOPPING, Pause
from p2p.story import for_so_long, gram
from p2p.takings import Sold

DRAW_EVERY_S = 1.0
TELL_EVERY_S = 60.0


@dataclass(frozen=True)
class Snapshot:
    """A provider right now."""

    models: Sequence[str]
    slots: int
    answering: int  # of the slots, so many
    sold: Sold
    peers: int
    pause: Pause | None
    gpus: Sequence[Gpu]


def rows(now: Snapshot) -> Iterator[tuple[str, str]]:
    """For a person."""
    sold = now.sold
    yield "serving", ", ".join(now.models)
    yield "state", _state(now)
    yield "slots", f"{now.answering} of {now.slots} in use"
    yield "speed", f"{sold.tokens_per_s} tokens/s"
    yield "answers", f"{sold.answers_today} today, {sold.answers} in all"
    yield "earned", f"{gram(sold.earned_today_nano)} today, {gram(sold.earned_nano)} in all"
    yield "peers", str(now.peers)
    for number, gpu in enumerate(now.gpus):
        yield f"GPU {number}", in_words(gpu)


def _state(now: Snapshot) -> str:
    if now.pause is None:
        return "serving"
    if now.pause is STOPPING:
        return f"draining: {now.answering} answers under way may end, nothing new begins"
    return f"paused: {now.pause.why}{for_so_long(now.pause.for_s)}"


def fields(now: Snapshot) -> dict[str, Any]:
    """For programs: memory in bytes, power in watts, money in nano."""
    return {
        "slots": now.slots,
        "slots_used": now.answering,
        **now.sold._asdict(),
        "peers": now.peers,
        "paused": now.pause and now.pause.reason,
        "gpus": [{name: value for name, value in gpu._asdict().items() if name != "pids"} for gpu in now.gpus],
    }


async def sold_before(keeper: BookKeeper, now: float) -> Sold:
    """What the book has at that unix time. Raises `LocalError`."""
    with translated():
        earned = await keeper.do(lambda book: book.earnings())
    today = of_day(earned, now)
    return Sold(
        sum(each.answers for each in today),
        sum(each.answers for each in earned),
        sum(each.earned_nano for each in today),
        sum(each.earned_nano for each in earned),
    )


async def kept_up_to_date(session: Session, look: Callable[[], Snapshot]) -> None:
    """Until cancelled, by what `look` says. A pipe without `--json` has the lines of what happens, and no table."""
    if session.options.json:
        await _tell(session, look)
    elif session.story.console.is_terminal:
        await _draw(session, look)


async def _draw(session: Session, look: Callable[[], Snapshot]) -> None:
    with session.story.standing() as draw:
        while True:
            # A terminal that is held (Ctrl-S) takes nothing: that must not hold the answers.
            await run_sync(draw, list(rows(look())))
            await trio.sleep(DRAW_EVERY_S)


async def _tell(session: Session, look: Callable[[], Snapshot]) -> None:
    """Only what is news."""
    told: dict[str, Any] = {}
    while True:
        now = fields(look())
        if now != told:
            session.trace("status", **now)
            told = now
        await trio.sleep(TELL_EVERY_S)
