"""The order of things in a session: what is saved comes before what is said, and every end is an end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from memory_host import WINDOW_BYTES, MemoryHost, open_memory_network
from trio.testing import MockClock

from p2p.errors import EngineError, Error, LocalError, RemoteError, Unavailable
from p2p.host import Stream
from p2p.protocol.negotiate import Refusal
from p2p.protocol.session import Event, Failed, Hold, Resume, Save, SaveDelivered, Send, ToClient
from p2p.protocol.wire import frame
from p2p.session_shell import FLUSH_TIMEOUT_S, MAX_WAITING, STALL_TIMEOUT_S, Outbox, SessionShell
from p2p.stream import MessageStream

PROTOCOL = "/bombyx/test/1"


class Puppet:
    """A core that says what it is told to."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.ended = False
        self.due: float | None = None
        self.on_tick: Callable[[], list[Event]] = list

    def receive(self, message: Any, now: float) -> list[Event]:
        self.heard.append(message)
        return []

    def lost(self, _now: float) -> list[Event]:
        return [] if self.ended else self.end(Unavailable("the peer went away"))

    def end(self, error: Error | None = None) -> list[Event]:
        self.ended = True
        return [SaveDelivered(bytes(32), 7), *([Failed(error)] if error else [])]

    def deadline(self) -> float | None:
        return None if self.ended else (self.due or 1e9)

    def tick(self, now: float) -> list[Event]:
        return self.on_tick()


class Stage:
    """A shell around a puppet; `log` is what it did, in order."""

    def __init__(self, stream: Stream) -> None:
        self.core = Puppet()
        self.log: list[object] = []
        self.disk_error: Error | None = None
        self.shell = SessionShell(
            self.core, MessageStream(stream, ToClient), save=self._save, act=self._act, clock=trio.current_time
        )

    async def _save(self, events: Sequence[Save]) -> None:
        await trio.sleep(0.01)
        if self.disk_error is not None:
            raise self.disk_error
        self.log.append(len(events))

    async def _act(self, event: Event) -> None:
        self.log.append(event)

    async def play(self, *events: Event) -> None:
        await self.shell.run(lambda _: list(events))


@asynccontextmanager
async def staged() -> AsyncIterator[tuple[Stage, Stream, MemoryHost]]:
    """A stage, and the other end of its stream."""
    async with open_memory_network() as network:
        us, them = await network.join("us"), await network.join("them")
        theirs: list[Stream] = []

        async def keep(stream: Stream) -> None:
            theirs.append(stream)
            await trio.sleep_forever()

        them.serve(PROTOCOL, keep)
        stream = await us.open("them", PROTOCOL)
        await trio.testing.wait_all_tasks_blocked()
        yield Stage(stream), theirs[0], us


SAVE = SaveDelivered(bytes(32), 1)
NO = Refusal(reason="no")


async def test_saves_are_batched_and_done_before_what_follows(autojump_clock: MockClock) -> None:
    async with staged() as (stage, theirs, _):
        stage.core.ended = True
        await stage.play(SAVE, SAVE, Hold(), SAVE, Send(NO), Resume(), SAVE)
        assert stage.log == [2, Hold(), 1, Resume(), 1]
        assert await theirs.read(100) == frame(NO)
        assert await theirs.read(100) == b""


async def test_a_disk_that_fails_lets_nothing_out_and_ends_the_session(autojump_clock: MockClock) -> None:
    async with staged() as (stage, theirs, _):
        stage.disk_error = LocalError("the disk is full")
        with pytest.raises(LocalError, match="the disk is full"):
            await stage.play(SAVE, Send(NO), Hold())
        assert stage.log == []
        assert stage.core.ended
        with pytest.raises(Unavailable):
            await theirs.read(100)


@pytest.mark.parametrize(
    ("error", "heard"), [(EngineError("cuda"), True), (RemoteError("malformed"), False), (LocalError("disk"), False)]
)
async def test_only_our_engines_fault_is_told_to_the_end(autojump_clock: MockClock, error: Error, heard: bool) -> None:
    async with staged() as (stage, theirs, _):
        said = bytearray()

        async def read() -> None:
            await trio.sleep(FLUSH_TIMEOUT_S / 2)
            try:
                while data := await theirs.read(100):
                    said.extend(data)
            except Unavailable:
                pass
            await theirs.close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            stage.core.ended = True
            with pytest.raises(type(error)):
                await stage.play(Send(NO), Failed(error))
        assert bytes(said) == (frame(NO) if heard else b"")


@pytest.mark.parametrize(
    ("data", "code"), [(b"\x00", "malformed"), (frame(NO)[:-1], "malformed"), (b"", None), (None, None)]
)
async def test_however_the_stream_ends_the_core_is_told_and_the_reason_is_kept(
    autojump_clock: MockClock, data: bytes | None, code: str | None
) -> None:
    async with staged() as (stage, theirs, _):
        if data is None:
            await theirs.reset()
        else:
            await theirs.write(data)
            await theirs.close()
        with pytest.raises(RemoteError if code else Unavailable, match=code or "went away"):
            await stage.play()
        assert stage.core.ended
        assert stage.log == [1]


async def test_a_message_that_no_frame_holds_is_told_to_us(autojump_clock: MockClock) -> None:
    async with staged() as (stage, _, _):
        with pytest.raises(LocalError, match="bytes"):
            await stage.play(Send(Refusal(reason="x", detail="y" * (1 << 20))))


async def test_time_passes_for_the_core(autojump_clock: MockClock) -> None:
    async with staged() as (stage, _, _):
        ticks = []

        def tick() -> list[Event]:
            ticks.append(trio.current_time())
            stage.core.due = trio.current_time() + 5
            return stage.core.end() if len(ticks) == 3 else []

        stage.core.due = 5
        stage.core.on_tick = tick
        await stage.play()
        assert ticks == pytest.approx([5, 10, 15])


async def test_an_earlier_deadline_is_noticed(autojump_clock: MockClock) -> None:
    async with staged() as (stage, theirs, _):

        def due_at_once(message: Any, now: float) -> list[Event]:
            stage.core.due = now + 1
            return []

        stage.core.receive = due_at_once  # type: ignore[method-assign]
        stage.core.on_tick = stage.core.end
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.play)
            await trio.sleep(10)
            await theirs.write(frame(NO))
        assert trio.current_time() == pytest.approx(11, abs=0.1)


async def test_work_ends_with_its_session(autojump_clock: MockClock) -> None:
    async with staged() as (stage, _, _):
        ended = trio.Event()

        async def work(after_s: float) -> None:
            try:
                await trio.sleep(after_s)
            finally:
                ended.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.play)
            await trio.sleep(1)
            stage.shell.start_soon(work, 100)
            await trio.sleep(1)
            await stage.shell.step(lambda _: stage.core.end())
        assert ended.is_set()
        assert trio.current_time() < 3


async def test_a_peer_that_does_not_read_is_waited_for_and_given_up(autojump_clock: MockClock) -> None:
    async with staged() as (stage, _, _):
        block = Refusal(reason="x", detail="y" * WINDOW_BYTES)
        with pytest.raises(Unavailable):
            await stage.play(Send(block))
        assert trio.current_time() == pytest.approx(STALL_TIMEOUT_S, abs=1)


async def test_a_peer_that_provokes_more_than_it_reads_is_cut_off(autojump_clock: MockClock) -> None:
    async with staged() as (stage, _, _):
        with pytest.raises(Unavailable, match="does not read"):
            await stage.play(*[Send(NO)] * (MAX_WAITING + 1))


async def test_the_outbox_says_when_it_is_empty_and_when_it_is_broken(autojump_clock: MockClock) -> None:
    async with staged() as (stage, theirs, _), trio.open_nursery() as nursery:
        outbox = Outbox(stage.shell._stream)
        await outbox.drained()
        outbox.put(NO)

        async def write() -> None:
            with pytest.raises(Unavailable):
                await outbox.run()

        nursery.start_soon(write)
        await outbox.drained()
        assert await theirs.read(100) == frame(NO)
        await theirs.reset()
        outbox.put(NO)
        await outbox.drained()


async def test_a_session_that_is_cancelled_leaves_nothing_running(autojump_clock: MockClock) -> None:
    async with staged() as (stage, _, _):
        with trio.move_on_after(5) as scope:
            await stage.play(Send(NO))
        assert scope.cancelled_caught
        assert stage.core.ended, "it gave up its place on the channel"
