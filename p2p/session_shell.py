"""Runs a session core over a stream: carries out its events in order and keeps its time.

One step at a time: a message, a tick or a piece of the engine's output goes into the core, and what comes out is
carried out before the next step. What must be saved is on disk before a later event of that step is touched. Messages
go through an outbox with one writer, so that a slow peer never keeps us from hearing it; whoever produces output waits
for room.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

import msgspec
import trio

from p2p.errors import EngineError, Error, Unavailable
from p2p.protocol.session import Event, Failed, Save, Send
from p2p.stream import MessageStream

# The end frame is worth a moment's wait; a peer that does not read it is not.
FLUSH_TIMEOUT_S = 5.0
# A peer that takes nothing for so long must not keep an engine's slot by its heartbeats.
STALL_TIMEOUT_S = 30.0
# A session has a handful of frames under way; a peer that provokes more than it reads is up to no good.
MAX_WAITING = 256


class Core(Protocol):
    """What `ClientSession` and `ProviderSession` have in common."""

    def receive(self, message: Any, now: float) -> list[Event]: ...
    def lost(self, now: float) -> list[Event]: ...
    def deadline(self) -> float | None: ...
    def tick(self, now: float) -> list[Event]: ...


class Outbox:
    """Frames waiting to be written, and one task that writes them together."""

    def __init__(self, stream: MessageStream[Any]) -> None:
        self._stream = stream
        self._messages: list[msgspec.Struct] = []
        self._more = trio.Event()
        self._empty = trio.Event()
        self._empty.set()

    def put(self, message: msgspec.Struct) -> None:
        """Queue a message. Raises `Unavailable` when too many are waiting."""
        if len(self._messages) >= MAX_WAITING:
            raise Unavailable("the peer does not read")
        self._messages.append(message)
        self._more.set()
        if self._empty.is_set():
            self._empty = trio.Event()

    async def drained(self) -> None:
        """Wait until everything is written, or nothing can be written any more."""
        if not self._empty.is_set():  # waiting for what is there already costs a turn of the scheduler
            await self._empty.wait()

    async def run(self) -> None:
        """Write for ever. Raises `Unavailable`, or `LocalError` for a message that is too large."""
        try:
            while True:
                await self._more.wait()
                self._more = trio.Event()
                messages, self._messages = self._messages, []
                with trio.fail_after(STALL_TIMEOUT_S):
                    await self._stream.send(*messages)
                if not self._messages:
                    self._empty.set()
        except trio.TooSlowError:
            raise Unavailable("the peer does not read") from None
        finally:
            self._empty.set()


class SessionShell:
    """One session under way.

    `save` puts a batch of save events on disk. `act` carries out every event that is not about saving, sending or
    failing; it must not block for long and may call `start_soon` to begin work that ends with the session. What either
    raises of `p2p.errors` ends the session.
    """

    def __init__(
        self,
        core: Core,
        stream: MessageStream[Any],
        *,
        save: Callable[[Sequence[Save]], Awaitable[None]],
        act: Callable[[Event], Awaitable[None]],
        clock: Callable[[], float],
    ) -> None:
        self._core = core
        self._stream = stream
        self._save = save
        self._act = act
        self._clock = clock
        self._turn = trio.Lock()
        self._rescheduled = trio.Event()
        self._look_at = math.inf  # when time is looked at next, if nothing makes that earlier
        self._over = trio.Event()
        self._nursery: trio.Nursery
        self.outbox = Outbox(stream)
        self.error: Error | None = None

    async def run(self, first: Callable[[float], list[Event]]) -> None:
        """Carry the session from its first step to its end. Raises the session's error if it failed."""
        try:
            await self._run(first)
        finally:
            self._core.lost(self._clock())  # also one that was cancelled gives up its place on the channel

    async def _run(self, first: Callable[[float], list[Event]]) -> None:
        async with trio.open_nursery() as self._nursery:
            for task in (self._listen, self._keep_time, self._write):
                self._nursery.start_soon(task)
            await self.step(first)
            await self._over.wait()
            # Whoever is at fault for a session's end was told nothing; if it was our engine, we said so.
            if self.error is None or isinstance(self.error, EngineError):
                with trio.move_on_after(FLUSH_TIMEOUT_S):
                    await self.outbox.drained()
            self._nursery.cancel_scope.cancel()
        if self.error is None:
            await self._stream.close()
            return
        if isinstance(self.error, EngineError):
            await self._stream.finish(FLUSH_TIMEOUT_S)  # a reset could overtake what we said
        await self._stream.reset()
        raise self.error

    def start_soon(self, work: Callable[..., Awaitable[None]], *args: object) -> None:
        """Begin work that is cancelled when the session ends."""
        self._nursery.start_soon(work, *args)

    async def step(self, make: Callable[[float], list[Event]]) -> None:
        """Put something into the core and carry out what it says."""
        try:
            self._turn.acquire_nowait()  # to wait for what is free costs a turn of the scheduler
        except trio.WouldBlock:
            await self._turn.acquire()
        try:
            await self._carry_out(make(self._clock()))
        except Error as error:
            # Our own disk gave way under an event: there is nothing sound left to do but end.
            with suppress(Error):
                await self._carry_out(self._core.lost(self._clock()))
            self.error = error
        finally:
            self._turn.release()
        self._reschedule()

    def _reschedule(self) -> None:
        deadline = self._core.deadline()
        if deadline is None:
            self._over.set()
        elif deadline < self._look_at:
            self._rescheduled.set()

    async def _carry_out(self, events: Sequence[Event]) -> None:
        unsaved: list[Save] = []
        for event in events:
            if isinstance(event, Save):
                unsaved.append(event)
                continue
            if unsaved:
                await self._save(unsaved)
                unsaved = []
            match event:
                case Send(message):
                    self.outbox.put(message)
                case Failed(error):
                    self.error = error
                case _:
                    await self._act(event)
        if unsaved:
            await self._save(unsaved)

    async def _listen(self) -> None:
        try:
            while (message := await self._stream.receive()) is not None:
                await self.step(partial(self._core.receive, message))
        except Error as error:
            await self._lose(error)
        else:
            await self.step(self._core.lost)

    async def _lose(self, error: Error) -> None:
        """The stream is of no use any more. What an ended stream means, the core says best."""
        if isinstance(error, Unavailable):
            await self.step(self._core.lost)
        else:
            await self.fail(error)

    async def fail(self, error: Error) -> None:
        """End the session, and say that this is why."""
        await self.step(lambda now: [Failed(error) if isinstance(e, Failed) else e for e in self._core.lost(now)])

    async def _write(self) -> None:
        try:
            await self.outbox.run()
        except Error as error:
            await self._lose(error)

    async def _keep_time(self) -> None:
        """Look at the time when the deadline comes that there was; most are put off meanwhile, and then it is early."""
        while True:
            self._rescheduled = trio.Event()
            deadline = self._core.deadline()
            self._look_at = math.inf if deadline is None else deadline
            with trio.move_on_after(max(0.0, self._look_at - self._clock())) as patience:
                await self._rescheduled.wait()
            if patience.cancelled_caught:
                await self.step(self._core.tick)
