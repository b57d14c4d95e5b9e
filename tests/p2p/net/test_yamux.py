"""The Yamux core: two of them back to back, and one against a peer that breaks the rules."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from p2p.net.yamux import (
    KEEP_ALIVE_INTERVAL_S,
    KEEP_ALIVE_TIMEOUT_S,
    MAX_BODY_BYTES,
    MAX_QUEUED_BYTES,
    WINDOW_BYTES,
    Closed,
    ConnectionEnded,
    Event,
    Opened,
    Readable,
    Reset,
    Stream,
    StreamEnded,
    StreamReset,
    Writable,
    Yamux,
)

HEADER = struct.Struct(">BBHII")
DATA, WINDOW_UPDATE, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8


def pair() -> tuple[Yamux, Yamux]:
    return Yamux(initiator=True, now=0.0), Yamux(initiator=False, now=0.0)


def frame(kind: int, flags: int, stream_id: int, length: int, body: bytes = b"", version: int = 0) -> bytes:
    return HEADER.pack(version, kind, flags, stream_id, length) + body


def frames(data: bytes) -> Iterator[tuple[int, int, int, int, bytes]]:
    while data:
        _, kind, flags, stream_id, length = HEADER.unpack_from(data)
        size = length if kind == DATA else 0
        yield kind, flags, stream_id, length, data[HEADER.size : HEADER.size + size]
        data = data[HEADER.size + size :]


def carry(source: Yamux, target: Yamux) -> list[Event]:
    return target.receive(source.data_to_send(), 0.0)


def opened(events: list[Event]) -> Stream:
    return next(event.stream for event in events if isinstance(event, Opened))


def connected() -> tuple[Yamux, Yamux, Stream, Stream]:
    a, b = pair()
    here = a.open()
    there = opened(carry(a, b))
    carry(b, a)
    return a, b, here, there


def test_the_bytes_on_the_wire() -> None:
    a, b = pair()
    stream = a.open()
    assert a.write(stream, memoryview(b"hi")) == 2
    a.end(stream)
    first = a.data_to_send()
    assert first == bytes.fromhex(
        "00 01 0001 00000001 0000000000 00 0000 00000001 00000002 686900 01 0004 00000001 00000000"
    )
    there = opened(b.receive(first, 0.0))
    assert (b.read(there, 10), b.read(there, 10)) == (b"hi", b"")
    assert b.data_to_send() == bytes.fromhex("00 01 0002 00000001 00000000")
    assert b.open().id == 2
    assert b.open().id == 4


def test_both_ways_half_close_and_end() -> None:
    a, b, here, there = connected()
    a.write(here, memoryview(b"question"))
    a.end(here)
    assert carry(a, b) == [Readable(there), Readable(there)]
    assert b.read(there, 3) == b"que"
    assert b.read(there, 100) == b"stion"
    assert b.read(there, 100) == b""
    assert a.read(here, 1) is None
    b.write(there, memoryview(b"answer"))
    b.end(there)
    carry(b, a)
    assert a.read(here, 100) == b"answer"
    assert a.read(here, 100) == b""
    with pytest.raises(StreamEnded):
        a.write(here, memoryview(b"more"))
    a.reset(here)
    assert a.bytes_queued == 0, "both ends had finished: there is nothing left to reset"


def test_a_writer_stops_at_the_window_and_goes_on_when_it_grows() -> None:
    a, b, here, there = connected()
    data = memoryview(bytes(WINDOW_BYTES + 10))
    sent = 0
    while taken := a.write(here, data[sent:]):
        assert taken <= MAX_BODY_BYTES
        sent += taken
    assert sent == WINDOW_BYTES
    carry(a, b)
    read = 0
    while read < WINDOW_BYTES // 2:
        assert b.bytes_queued == 0, "the window is given back by halves"
        read += len(b.read(there, 4096) or b"")
    assert carry(b, a) == [Writable(here)]
    assert a.write(here, data[sent:]) == 10


def test_a_reset_tells_the_peer_and_drops_what_was_not_read() -> None:
    a, b, here, there = connected()
    a.write(here, memoryview(b"unread"))
    a.reset(here)
    assert carry(a, b)[-1] == Reset(there)
    for end, stream in ((a, here), (b, there)):
        with pytest.raises(StreamReset):
            end.read(stream, 1)
        with pytest.raises(StreamReset):
            end.write(stream, memoryview(b"x"))
        end.end(stream)
        end.reset(stream)
        assert end.bytes_queued == 0


def test_data_under_way_to_a_stream_that_was_reset_is_harmless() -> None:
    a, b, here, there = connected()
    a.write(here, memoryview(b"under way"))
    b.reset(there)
    assert carry(a, b) == []
    assert b.closed is None


def test_the_end_of_the_connection_leaves_what_had_arrived() -> None:
    a, b, here, there = connected()
    other = b.open()
    a.write(here, memoryview(b"last words"))
    a.end(here)
    a.go_away()
    a.go_away()
    assert isinstance(carry(a, b)[-1], Closed)
    assert b.read(there, 100) == b"last words"
    assert b.read(there, 100) == b""
    with pytest.raises(StreamReset, match="went away"):
        b.read(other, 1)
    with pytest.raises(StreamReset, match="went away"):
        b.write(there, memoryview(b"x"))
    with pytest.raises(ConnectionEnded):
        b.open()
    assert b.receive(b"anything", 1.0) == []
    assert b.connection_lost("again") == []


def test_a_lost_channel_closes_everything() -> None:
    a, _, here, _ = connected()
    assert a.connection_lost("cut") == [Closed("cut")]
    with pytest.raises(StreamReset, match="cut"):
        a.read(here, 1)


def test_too_many_streams_are_refused_and_places_come_free() -> None:
    a, b = Yamux(initiator=True, now=0.0), Yamux(initiator=False, now=0.0, max_inbound_streams=3)
    ours = [a.open() for _ in range(4)]
    theirs = [event.stream for event in carry(a, b) if isinstance(event, Opened)]
    assert len(theirs) == 3
    assert carry(b, a) == [Reset(ours[3])]
    a.reset(ours[0])
    carry(a, b)
    a.open()
    assert isinstance(carry(a, b)[0], Opened)


def test_pings_are_answered() -> None:
    a, _ = pair()
    a.receive(frame(PING, SYN, 0, 0xDEADBEEF), 0.0)
    assert a.data_to_send() == frame(PING, ACK, 0, 0xDEADBEEF)
    a.receive(frame(PING, ACK, 0, 7), 0.0)
    assert a.data_to_send() == b""


def test_a_silent_peer_is_asked_and_then_given_up() -> None:
    a, b = pair()
    assert a.deadline() == KEEP_ALIVE_INTERVAL_S
    assert a.tick(KEEP_ALIVE_INTERVAL_S - 0.1) == []
    assert a.bytes_queued == 0
    assert a.tick(KEEP_ALIVE_INTERVAL_S) == []
    b.receive(a.data_to_send(), KEEP_ALIVE_INTERVAL_S)
    assert a.deadline() == KEEP_ALIVE_INTERVAL_S + KEEP_ALIVE_TIMEOUT_S
    answered_at = KEEP_ALIVE_INTERVAL_S + 1.0
    a.receive(b.data_to_send(), answered_at)
    asked_at = answered_at + KEEP_ALIVE_INTERVAL_S
    assert a.deadline() == asked_at
    assert a.tick(asked_at) == []
    assert a.tick(asked_at + KEEP_ALIVE_TIMEOUT_S) == [Closed("the peer fell silent")]


@pytest.mark.parametrize(
    "bad",
    [
        frame(DATA, 0, 1, 0, version=1),
        frame(4, 0, 1, 0),
        frame(255, 0, 1, 0),
        frame(WINDOW_UPDATE, 16, 1, 0),
        frame(WINDOW_UPDATE, SYN, 0, 0),
        frame(WINDOW_UPDATE, SYN, 2, 0),
        frame(WINDOW_UPDATE, SYN, 1, 0) * 2,
        frame(WINDOW_UPDATE, SYN, 1, 0) + frame(WINDOW_UPDATE, 0, 1, 0xFFFFFFFF),
        frame(DATA, SYN | FIN, 1, 1, b"x") + frame(DATA, 0, 1, 1, b"y"),
        frame(DATA, SYN, 1, WINDOW_BYTES + 1),
        frame(DATA, 0, 9, 0xFFFFFFFF),
    ],
)
def test_a_broken_rule_ends_the_connection(bad: bytes) -> None:
    core = Yamux(initiator=False, now=0.0)
    events = core.receive(bad + frame(WINDOW_UPDATE, SYN, 3, 0), 0.0)
    assert isinstance(events[-1], Closed)
    assert core.closed
    assert list(frames(core.data_to_send()))[-1][:4] == (GO_AWAY, 0, 0, 1)


def test_more_than_the_window_is_refused_before_it_is_kept() -> None:
    core = Yamux(initiator=False, now=0.0)
    core.receive(frame(WINDOW_UPDATE, SYN, 1, 0), 0.0)
    for _ in range(4):
        core.receive(frame(DATA, 0, 1, WINDOW_BYTES // 4, bytes(WINDOW_BYTES // 4)), 0.0)
    assert core.closed is None
    core.receive(frame(DATA, 0, 1, 1), 0.0)
    assert core.closed == "1 bytes exceed the window of stream 1"


@pytest.mark.parametrize("question", [frame(PING, SYN, 0, 1), frame(WINDOW_UPDATE, SYN, 7, 0)])
def test_a_peer_that_asks_without_reading_is_cut(question: bytes) -> None:
    core = Yamux(initiator=False, now=0.0, max_inbound_streams=0)
    while core.closed is None:
        core.receive(question * 1000, 0.0)
        assert core.bytes_queued < MAX_QUEUED_BYTES + 50_000
    assert core.closed == "the peer does not read"


@given(st.binary(max_size=200), st.booleans())
def test_junk_never_raises(junk: bytes, initiator: bool) -> None:
    core = Yamux(initiator=initiator, now=0.0)
    core.receive(junk, 0.0)
    core.receive(junk, 0.0)


headers = st.builds(
    frame,
    st.sampled_from([DATA, WINDOW_UPDATE, WINDOW_UPDATE, PING, GO_AWAY]),
    st.integers(0, 15),
    st.integers(0, 6),
    st.sampled_from([0, 1, 5, WINDOW_BYTES, 0xFFFFFFFF]),
    st.binary(max_size=5),
)


@given(st.lists(headers, max_size=30))
def test_plausible_frames_never_raise_and_never_buffer_beyond_the_windows(parts: list[bytes]) -> None:
    core = Yamux(initiator=False, now=0.0)
    streams = []
    for part in parts:
        streams += [event.stream for event in core.receive(part, 0.0) if isinstance(event, Opened)]
    for stream in streams:
        assert len(stream.received) + stream.receive_window <= WINDOW_BYTES


class Conversation(RuleBasedStateMachine):
    """Two ends, any interleaving and cuts: a stream delivers exactly what was written, and nobody passes a window."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = pair()
        self.wires = [bytearray(), bytearray()]  # from end 0, from end 1
        self.streams: list[dict[int, Stream]] = [{}, {}]
        self.written: dict[tuple[int, int], bytearray] = {}
        self.read: dict[tuple[int, int], bytearray] = {}

    def pick(self, end: int, index: int) -> Stream | None:
        known = [stream for stream in self.streams[end].values() if not stream.reset]
        return known[index % len(known)] if known else None

    @rule(end=st.integers(0, 1))
    @precondition(lambda self: len(self.streams[0]) < 8)
    def open(self, end: int) -> None:
        stream = self.ends[end].open()
        self.streams[end][stream.id] = stream

    @rule(
        end=st.integers(0, 1),
        index=st.integers(0, 7),
        size=st.sampled_from([1, 100, 70_000, 300_000]),
        fill=st.integers(0, 255),
    )
    def write(self, end: int, index: int, size: int, fill: int) -> None:
        stream = self.pick(end, index)
        if stream is None or stream.ended:
            return
        data = bytes([fill]) * size
        taken = self.ends[end].write(stream, memoryview(data))
        self.written.setdefault((end, stream.id), bytearray()).extend(data[:taken])

    @rule(end=st.integers(0, 1), index=st.integers(0, 7), size=st.sampled_from([1, 1000, 200_000]))
    def read_some(self, end: int, index: int, size: int) -> None:
        stream = self.pick(end, index)
        if stream is None:
            return
        data = self.ends[end].read(stream, size)
        if data:
            assert len(data) <= size
            got = self.read.setdefault((end, stream.id), bytearray())
            got.extend(data)
            assert self.written[1 - end, stream.id].startswith(got)
        elif data == b"":
            assert self.read.get((end, stream.id), b"") == self.written.get((1 - end, stream.id), b"")

    @rule(end=st.integers(0, 1), index=st.integers(0, 7))
    def end_stream(self, end: int, index: int) -> None:
        if stream := self.pick(end, index):
            self.ends[end].end(stream)

    @rule(end=st.integers(0, 1), index=st.integers(0, 7))
    def reset_stream(self, end: int, index: int) -> None:
        if stream := self.pick(end, index):
            self.ends[end].reset(stream)

    @rule(end=st.integers(0, 1), size=st.sampled_from([1, 5, 13, 1000, 100_000, 1_000_000]))
    def deliver(self, end: int, size: int) -> None:
        self.wires[end] += self.ends[end].data_to_send()
        chunk = bytes(self.wires[end][:size])
        del self.wires[end][:size]
        for event in self.ends[1 - end].receive(chunk, 0.0):
            if isinstance(event, Opened):
                self.streams[1 - end][event.stream.id] = event.stream

    @invariant()
    def nobody_broke_a_rule(self) -> None:
        assert [end.closed for end in self.ends] == [None, None]
        for streams in self.streams:
            for stream in streams.values():
                assert len(stream.received) <= WINDOW_BYTES
                assert stream.send_window >= 0
                assert stream.receive_window >= 0


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=40), st.data())
@settings(deadline=None)
def test_any_cut_of_the_same_bytes_gives_the_same(sizes: list[int], data: st.DataObject) -> None:
    a, _ = pair()
    here = a.open()
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
