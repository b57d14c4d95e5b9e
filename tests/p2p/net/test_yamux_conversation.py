"""Two Yamux cores back to back: any order of calls, any interleaving, any cuts of the bytes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from yamux_wire import GO_AWAY, frame, new_stream, pair

from p2p.net.yamux import KEEP_ALIVE_INTERVAL_S, KEEP_ALIVE_TIMEOUT_S, ConnectionEnded, GoAway, Opened, Yamux
from p2p.net.yamux_stream import WINDOW_BYTES, State, Stream, StreamEnded, StreamReset

MAX_INBOUND, MAX_UNREAD_BYTES = 3, 3 * WINDOW_BYTES // 2
ENDS = st.integers(0, 1)
STREAMS = st.integers(0, 5)

# How a stream may stand at the other end when nothing is under way.
AGREED = {
    State.OPEN: State.OPEN,
    State.LOCAL_CLOSED: State.REMOTE_CLOSED,
    State.REMOTE_CLOSED: State.LOCAL_CLOSED,
    State.CLOSED: State.CLOSED,
    State.RESET: State.RESET,
}


def talks(conversation: Conversation) -> bool:
    return conversation.talking


class Conversation(RuleBasedStateMachine):
    """A stream delivers exactly what was written, nobody passes a limit, and an honest peer is never blamed."""

    def __init__(self) -> None:
        super().__init__()
        self.begin()

    @precondition(lambda self: not self.talking)
    @rule()
    def begin(self) -> None:
        """A connection; a new one once the last has ended."""
        self.now = 0.0
        self.ends = tuple(
            Yamux(initiator=first, now=0.0, max_inbound_streams=MAX_INBOUND, max_unread_bytes=MAX_UNREAD_BYTES)
            for first in (True, False)
        )
        self.wires = (bytearray(), bytearray())  # from end 0, from end 1
        self.streams: tuple[dict[int, Stream], dict[int, Stream]] = ({}, {})
        self.written: dict[tuple[int, int], bytearray] = {}
        self.read: dict[tuple[int, int], bytearray] = {}
        self.left = [False, False]  # whether each end said that it goes
        self.talking = True

    def pick(self, end: int, index: int) -> Stream | None:
        known = list(self.streams[end].values())[-6:]
        return known[index % len(known)] if known else None

    def carry(self, end: int, size: int | None = None) -> bool:
        """Bytes of `end` reach the other; whether there were any."""
        wire = self.wires[end]
        wire += self.ends[end].data_to_send()
        chunk = bytes(wire[:size])
        del wire[: len(chunk)]
        for event in self.ends[1 - end].receive(chunk, self.now) if chunk else ():
            if isinstance(event, Opened):
                self.streams[1 - end][event.stream.id] = event.stream
        return bool(chunk)

    @precondition(talks)
    @rule(end=ENDS)
    def open(self, end: int) -> None:
        if self.left[1 - end] and self.ends[end].left:
            with pytest.raises(ConnectionEnded):
                self.ends[end].open()
        elif len(self.streams[0]) < 8:
            stream = new_stream(self.ends[end])
            self.streams[end][stream.id] = stream

    @precondition(talks)
    @rule(end=ENDS, index=STREAMS, size=st.sampled_from([0, 1, 100, 70_000, 300_000]), fill=st.integers(0, 255))
    def write(self, end: int, index: int, size: int, fill: int) -> None:
        stream = self.pick(end, index)
        if stream is None:
            return
        data = memoryview(bytes([fill]) * size)
        if stream.state in (State.LOCAL_CLOSED, State.CLOSED, State.RESET):
            with pytest.raises(StreamReset if stream.reset else StreamEnded):
                self.ends[end].write(stream, data)
            return
        while taken := self.ends[end].write(stream, data):
            self.written.setdefault((end, stream.id), bytearray()).extend(data[:taken])
            data = data[taken:]
        assert not data or stream.send_window == 0, "a write stops at the window and nowhere else"

    @precondition(talks)
    @rule(end=ENDS, index=STREAMS, size=st.sampled_from([1, 1000, 200_000]))
    def read_some(self, end: int, index: int, size: int) -> None:
        stream = self.pick(end, index)
        if stream is None:
            return
        if stream.reset:
            with pytest.raises(StreamReset):
                self.ends[end].read(stream, size)
            return
        data = self.ends[end].read(stream, size)
        if data:
            assert len(data) <= size
            got = self.read.setdefault((end, stream.id), bytearray())
            got.extend(data)
            assert self.written[1 - end, stream.id].startswith(got)
        elif data == b"":
            assert self.read.get((end, stream.id), b"") == self.written.get((1 - end, stream.id), b"")

    @precondition(talks)
    @rule(end=ENDS, index=STREAMS)
    def end_stream(self, end: int, index: int) -> None:
        if stream := self.pick(end, index):
            self.ends[end].end(stream)

    @precondition(talks)
    @rule(end=ENDS, index=STREAMS)
    def reset_stream(self, end: int, index: int) -> None:
        if stream := self.pick(end, index):
            self.ends[end].reset(stream)

    @precondition(talks)
    @rule(end=ENDS, size=st.sampled_from([1, 5, 13, 1000, 100_000, 1_000_000]))
    def deliver(self, end: int, size: int) -> None:
        self.carry(end, size)

    @precondition(talks)
    @rule(wait_s=st.sampled_from([1.0, KEEP_ALIVE_INTERVAL_S, 40.0]))
    def wait(self, wait_s: float) -> None:
        """Both ends hear each other while time goes by in small steps, so nobody is given up."""
        until = self.now + wait_s
        while self.now < until:
            self.settle()
            self.now = min(until, self.now + KEEP_ALIVE_TIMEOUT_S / 2)
            for end in self.ends:
                end.tick(self.now)
        self.settle()

    @precondition(talks)
    @rule()
    def settle(self) -> None:
        """Once all has arrived, the ends agree on every stream and every window."""
        while any([self.carry(0), self.carry(1)]):
            pass
        if any(end.closed for end in self.ends):
            return
        for stream_id in self.streams[0].keys() | self.streams[1].keys():
            ours, theirs = (streams.get(stream_id) for streams in self.streams)
            if ours is None or theirs is None:  # one too many, which was refused
                assert (ours or theirs).reset  # type: ignore[union-attr]
            elif ours.reset or theirs.reset:
                assert {ours.state, theirs.state} <= {State.RESET, State.CLOSED}
            else:
                assert theirs.state is AGREED[ours.state]
                for end, (sender, taker) in enumerate(((ours, theirs), (theirs, ours))):
                    got = self.read.get((1 - end, stream_id), bytearray()) + taker.received
                    assert got == self.written.get((end, stream_id), b"")
                    if not taker.remote_closed:
                        assert sender.send_window == taker.receive_window

    @precondition(lambda self: self.talking and not any(self.left))
    @rule(end=ENDS)
    def leave(self, end: int) -> None:
        """In good order, as some peers do: no new streams, and the others finish. Ours would close at once."""
        self.wires[end].extend(self.ends[end].data_to_send() + frame(GO_AWAY, 0, 0, GoAway.NORMAL))
        self.left[end] = True

    @precondition(talks)
    @rule(end=ENDS, code=st.sampled_from(GoAway))
    def close(self, end: int, code: GoAway) -> None:
        """The last thing that happens: what was sent before still arrives, and the reason with it."""
        self.ends[end].close("enough", code)
        other = self.ends[1 - end]
        while self.carry(end, 5000):
            pass
        if code is GoAway.NORMAL:
            assert other.left == "the peer went away"
            other.close("the channel was closed")
        assert other.closed
        for stream_id, stream in self.streams[1 - end].items():
            if not stream.reset and stream_id in self.streams[end]:
                got = self.read.get((1 - end, stream_id), bytearray())
                while piece := stream.received and other.read(stream, 1000):
                    got += piece
                assert got == self.written.get((end, stream_id), b"")
        self.talking = False

    @precondition(talks)
    @rule(end=ENDS)
    def fall_silent(self, end: int) -> None:
        self.settle()
        other = self.ends[1 - end]
        other.tick(self.now + KEEP_ALIVE_INTERVAL_S)
        other.tick(self.now + KEEP_ALIVE_INTERVAL_S + KEEP_ALIVE_TIMEOUT_S)
        assert other.closed in ("the peer fell silent", "the peer went away")
        self.talking = False

    @invariant()
    def nobody_is_blamed(self) -> None:
        if not self.talking:
            return
        for end, core in enumerate(self.ends):
            assert core.closed in ((None, "the peer went away") if any(self.left) else (None,))
            if core.closed:
                self.talking = False  # the last stream of a connection that was left has ended
                assert all(stream.state in (State.CLOSED, State.RESET) for stream in self.streams[end].values())

    @invariant()
    def nobody_passes_a_limit(self) -> None:
        for core, streams in zip(self.ends, self.streams, strict=True):
            live = [stream for stream in streams.values() if not (stream.reset or stream.over)]
            for stream in streams.values():
                assert len(stream.received) <= WINDOW_BYTES
                assert stream.send_window >= 0
                assert stream.receive_window >= 0
            if core.closed is None:
                assert {*core._streams} == {stream.id for stream in live}
                assert core._inbound_streams == sum(stream.id % 2 == core._peer_parity for stream in live)
                assert core._inbound_streams <= MAX_INBOUND
                assert core._unacknowledged == sum(not stream.acknowledged for stream in live)
                assert core.unread_bytes == sum(len(stream.received) for stream in streams.values())
                assert core.unread_bytes <= MAX_UNREAD_BYTES


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=40), st.data())
@settings(max_examples=30, deadline=None)
def test_any_cut_of_the_same_bytes_gives_the_same(sizes: list[int], data: st.DataObject) -> None:
    a, _ = pair()
    here = new_stream(a)
    for size in sizes:
        a.write(here, memoryview(bytes([size % 256]) * size))
    a.end(here)
    wire = a.data_to_send()

    def result(cuts: Callable[[int], int]) -> bytes:
        core, at, got = Yamux(initiator=False, now=0.0), 0, bytearray()
        there: Stream | None = None
        while at < len(wire):
            step = cuts(len(wire) - at)
            for event in core.receive(wire[at : at + step], 0.0):
                there = event.stream if isinstance(event, Opened) else there
            at += step
        assert there is not None
        while piece := core.read(there, 10_000):
            got += piece
        assert piece == b""
        return bytes(got)

    whole = result(lambda rest: rest)
    assert whole == b"".join(bytes([size % 256]) * size for size in sizes)
    assert result(lambda rest: data.draw(st.integers(1, min(rest, 5000)))) == whole
