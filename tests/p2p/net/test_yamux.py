"""The Yamux core: two of them back to back, and one against a peer that breaks the rules."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yamux_wire import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    carry,
    connected,
    frame,
    frames,
    new_stream,
    opened,
    pair,
)

from p2p.net.yamux import (
    KEEP_ALIVE_INTERVAL_S,
    KEEP_ALIVE_TIMEOUT_S,
    MAX_BODY_BYTES,
    MAX_QUEUED_BYTES,
    MAX_UNACKNOWLEDGED_STREAMS,
    Closed,
    ConnectionEnded,
    GoAway,
    Opened,
    Readable,
    Reset,
    Writable,
    Yamux,
)
from p2p.net.yamux_stream import MOVES, WINDOW_BYTES, Move, State, Stream, StreamEnded, StreamReset


def test_the_bytes_on_the_wire() -> None:
    a, b = pair()
    stream = new_stream(a)
    assert a.write(stream, memoryview(b"hi")) == 2
    a.end(stream)
    first = a.data_to_send()
    assert first == bytes.fromhex(
        "00 01 0001 00000001 0000000000 00 0000 00000001 00000002 686900 01 0004 00000001 00000000"
    )
    there = opened(b.receive(first, 0.0))
    assert (b.read(there, 10), b.read(there, 10)) == (b"hi", b"")
    assert b.data_to_send() == bytes.fromhex("00 01 0002 00000001 00000000")
    assert new_stream(b).id == 2
    assert new_stream(b).id == 4


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


def test_a_frame_without_a_body_is_no_data() -> None:
    _, b, _, there = connected()
    assert b.receive(frame(DATA, 0, there.id, 0), 0.0) == []
    assert b.read(there, 1) is None
    assert b.receive(frame(DATA, FIN, there.id, 0), 0.0) == [Readable(there)]
    assert b.read(there, 1) == b""


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
    other = new_stream(b)
    a.write(here, memoryview(b"last words"))
    a.end(here)
    assert a.close("enough") == [Closed("enough")]
    assert a.close("again") == []
    carry(a, b)
    assert b.closed is None, "the peer left in good order, and a stream is still open"
    assert b.close("the peer closed the connection") == [Closed("the peer closed the connection")]
    assert b.read(there, 100) == b"last words"
    assert b.read(there, 100) == b""
    for call in (lambda: b.read(other, 1), lambda: b.write(other, memoryview(b"x"))):
        with pytest.raises(StreamReset, match="the peer closed"):
            call()
    with pytest.raises(ConnectionEnded):
        b.open()
    b.end(there)
    b.reset(other)
    assert b.receive(b"anything", 1.0) == []
    assert b.tick(1000.0) == []
    assert [kind for kind, *_ in frames(b.data_to_send())][-1] == GO_AWAY, "nothing is said after it"


@pytest.mark.parametrize("code", [GoAway.PROTOCOL_ERROR, GoAway.INTERNAL_ERROR, 0x1005])
def test_a_peer_that_fails_ends_everything_and_says_why(code: int) -> None:
    a, _, here, _ = connected()
    (closed,) = a.receive(frame(GO_AWAY, 0, 0, code) + frame(PING, SYN, 0, 1), 0.0)
    assert closed == Closed(f"the peer went away, code {code}")
    assert list(frames(a.data_to_send())) == [(GO_AWAY, 0, 0, GoAway.NORMAL, b"")]
    with pytest.raises(StreamReset, match=f"code {code}"):
        a.read(here, 1)


def test_our_code_reaches_the_peer() -> None:
    a, b, *_ = connected()
    a.close("a fault of ours", GoAway.INTERNAL_ERROR)
    assert carry(a, b) == [Closed("the peer went away, code 2")]


def test_a_peer_that_leaves_lets_the_streams_finish() -> None:
    a, b, here, there = connected()
    assert a.receive(frame(GO_AWAY, 0, 0, GoAway.NORMAL), 0.0) == []
    with pytest.raises(ConnectionEnded, match="went away"):
        a.open()
    b.write(there, memoryview(b"still working"))
    b.end(there)
    assert carry(b, a) == [Readable(here), Readable(here)]
    assert a.read(here, 100) == b"still working"
    a.end(here)
    assert a.closed is None
    assert a.receive(frame(PING, ACK, 0, 1), 0.0) == [Closed("the peer went away")]


def test_a_connection_that_was_left_and_is_not_used_ends_by_itself() -> None:
    a, _ = pair()
    assert a.receive(frame(GO_AWAY, 0, 0, GoAway.NORMAL), 0.0) == [Closed("the peer went away")]
    a, _, here, _ = connected()
    a.receive(frame(GO_AWAY, 0, 0, GoAway.NORMAL), 0.0)
    a.reset(here)
    assert a.tick(KEEP_ALIVE_INTERVAL_S) == [Closed("the peer went away")]


def test_the_ids_of_a_connection_are_used_up_some_day() -> None:
    a, _ = pair()
    a._next_id = 0xFFFF_FFFF
    new_stream(a)
    with pytest.raises(ConnectionEnded, match="used up"):
        a.open()


def test_too_many_streams_are_refused_and_places_come_free() -> None:
    a, b = Yamux(initiator=True, now=0.0), Yamux(initiator=False, now=0.0, max_inbound_streams=3)
    ours = [new_stream(a) for _ in range(4)]
    theirs = [event.stream for event in carry(a, b) if isinstance(event, Opened)]
    assert len(theirs) == 3
    assert carry(b, a) == [Reset(ours[3])]
    a.reset(ours[0])
    carry(a, b)
    new_stream(a)
    assert isinstance(carry(a, b)[0], Opened)


@pytest.mark.parametrize("sign", ["ack", "data", "end", "reset", "our reset"])
def test_streams_that_the_peer_has_not_taken_are_bounded(sign: str) -> None:
    a, _ = pair()
    ours = [new_stream(a) for _ in range(MAX_UNACKNOWLEDGED_STREAMS)]
    assert a.open() is None
    first = ours[0]
    if sign == "our reset":
        a.reset(first)
    else:
        body = {"data": b"taken"}.get(sign, b"")
        flags = {"ack": ACK, "end": FIN, "reset": RST}.get(sign, 0)
        a.receive(frame(DATA if body else WINDOW_UPDATE, flags, first.id, len(body), body), 0.0)
    assert a.open() is not None
    assert a.open() is None


def test_what_all_streams_may_leave_unread_is_bounded() -> None:
    a = Yamux(initiator=True, now=0.0)
    b = Yamux(initiator=False, now=0.0, max_unread_bytes=1000)
    ours = [new_stream(a) for _ in range(3)]
    theirs = [event.stream for event in carry(a, b) if isinstance(event, Opened)]
    for stream, size in zip(ours, (600, 400, 1), strict=True):
        a.write(stream, memoryview(bytes(size)))
    a.end(ours[2])
    assert carry(a, b) == [Readable(theirs[0]), Readable(theirs[1]), Reset(theirs[2])]
    assert carry(b, a)[-1] == Reset(ours[2])
    both = opened(b.receive(frame(DATA, SYN | FIN, 7, 1, b"x"), 0.0))
    assert repr(both) == "Stream(7, RESET)"
    assert b.read(theirs[0], 600) == bytes(600)
    a.write(ours[1], memoryview(bytes(600)))
    assert carry(a, b) == [Readable(theirs[1])]
    b.reset(theirs[1])
    a.write(ours[0], memoryview(bytes(1000)))
    assert carry(a, b) == [Readable(theirs[0])]


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


PEERS_WAYS = {
    Move.HEAR: frame(DATA, 0, 1, 1, b"x"),
    Move.HEAR_CLOSE: frame(WINDOW_UPDATE, FIN, 1, 0),
    Move.HEAR_RESET: frame(WINDOW_UPDATE, RST, 1, 0),
}


def standing(state: State) -> tuple[Yamux, Stream]:
    """A core whose one stream, opened by the peer, stands there with a byte unread."""
    core = Yamux(initiator=False, now=0.0)
    stream = opened(core.receive(frame(DATA, SYN, 1, 1, b"x"), 0.0))
    if state in (State.REMOTE_CLOSED, State.CLOSED):
        core.receive(PEERS_WAYS[Move.HEAR_CLOSE], 0.0)
    if state in (State.LOCAL_CLOSED, State.CLOSED):
        core.end(stream)
    if state is State.RESET:
        core.reset(stream)
    assert stream.state is state
    core.data_to_send()
    return core, stream


@pytest.mark.parametrize("move", Move)
@pytest.mark.parametrize("state", State)
def test_every_turn_is_that_of_the_table(state: State, move: Move) -> None:
    core, stream = standing(state)
    after = MOVES.get((state, move))
    if move in PEERS_WAYS:
        core.receive(PEERS_WAYS[move], 0.0)
        assert (core.closed is None) is (after is not None or state is State.RESET)
    elif move is Move.WRITE and after is None:
        with pytest.raises(StreamReset if state is State.RESET else StreamEnded):
            core.write(stream, memoryview(b"x"))
    else:
        ways: dict[Move, Callable[[], object]] = {
            Move.WRITE: lambda: core.write(stream, memoryview(b"x")),
            Move.CLOSE: lambda: core.end(stream),
            Move.RESET: lambda: core.reset(stream),
        }
        ways[move]()
        news = after is not state or move is Move.WRITE
        assert bool(core.bytes_queued) is (news and state is not State.CLOSED), "the peer hears what is news, once"
    assert stream.state is (after or state)
    if stream.state is not State.RESET:
        assert core.read(stream, 1) == b"x"


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
