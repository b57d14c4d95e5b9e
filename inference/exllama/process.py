"""The generator's process, as the engine has it: `generator` is the other end."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import msgspec
import trio

from inference import link
from inference.errors import EngineDied
from inference.exllama.orders import Broken, Open, Order, Ready, Report
from inference.frames import Inbox, drain, encode
from inference.nursery import open_background
from inference.pipes import spawn

_PROGRAM = ("-m", "inference.exllama.generator")
_from_generator: msgspec.msgpack.Decoder[Ready | link.Failed | Report] = msgspec.msgpack.Decoder(
    Ready | link.Failed | Report
)


class Generator(Protocol):
    """What takes orders, and reports to whoever opened it."""

    def order(self, order: Order) -> None: ...


class _Process:
    def __init__(self, frames: trio.MemorySendChannel[bytes]) -> None:
        self._frames = frames

    def order(self, order: Order) -> None:
        """Each job has two at most, so that places bound how many wait."""
        self._frames.send_nowait(encode(order))


@asynccontextmanager
async def open_generator(
    opening: Open, report: Callable[[Report], None], program: Sequence[str] = _PROGRAM
) -> AsyncIterator[Generator]:
    """Load a model in a process of its own. `report` is called with what it says; `Broken` where it ended.

    Raises `BadSettings`, `EngineError`, or `EngineDied` where it ends as it starts.
    """
    process = await spawn(program)
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        inbox = Inbox(process.stdout, _from_generator)
        await _greet(process.stdin, inbox, opening)
        outbox, frames = trio.open_memory_channel[bytes](math.inf)
        async with open_background() as nursery:
            nursery.start_soon(drain, frames, process.stdin)
            nursery.start_soon(_hear, inbox, report)
            yield _Process(outbox)
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()


async def _greet(stdin: trio.abc.SendStream, inbox: Inbox[Ready | link.Failed | Report], opening: Open) -> None:
    try:
        await stdin.send_all(encode(opening))
    except trio.BrokenResourceError:
        raise EngineDied("the generator's process ended while it started") from None
    match await inbox.next():
        case Ready():
            return
        case link.Failed() as failed:
            raise link.raised(failed)
        case _:
            raise EngineDied("the generator's process ended while it started")


async def _hear(inbox: Inbox[Ready | link.Failed | Report], report: Callable[[Report], None]) -> None:
    try:
        while (said := await inbox.next()) is not None:
            if isinstance(said, Ready | link.Failed):
                break
            report(said)
    except EngineDied:
        pass
    finally:  # also where we are no longer to hear: jobs wait for an end
        report(Broken("its process's end", frozenset(), over=True))
