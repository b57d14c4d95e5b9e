"""Core: one Yamux stream. Where it stands, what arrived and was not read, and how much may still cross each way.

The states are those that HTTP/2 gives its streams. `MOVES` has every turn that a stream may take: for a turn of ours
that is not there the caller gets an error, and a peer that takes one has broken the protocol.
"""

from __future__ import annotations

import enum

WINDOW_BYTES = 256 * 1024  # the initial window that the specification fixes; we never enlarge ours


class YamuxError(Exception):
    """The root of the errors of both modules."""


class StreamReset(YamuxError):
    """One of the ends abandoned the stream, or its connection ended."""


class StreamEnded(YamuxError):
    """A write after we said that nothing more would be written."""


class ProtocolError(YamuxError):
    """The peer broke the protocol. Never leaves `Yamux.receive`."""


class State(enum.Enum):
    """Where a stream stands, as one end sees it."""

    OPEN = enum.auto()
    LOCAL_CLOSED = enum.auto()  # we said that we write no more
    REMOTE_CLOSED = enum.auto()  # the peer said so
    CLOSED = enum.auto()  # both did; what has not been read still can be
    RESET = enum.auto()  # one end abandoned it, and what was not read is gone


class Move(enum.Enum):
    """What we do with a stream, and what we hear of the peer."""

    WRITE = enum.auto()
    CLOSE = enum.auto()
    RESET = enum.auto()
    HEAR = enum.auto()  # data
    HEAR_CLOSE = enum.auto()
    HEAR_RESET = enum.auto()


MOVES: dict[tuple[State, Move], State] = {
    (State.OPEN, Move.WRITE): State.OPEN,
    (State.OPEN, Move.CLOSE): State.LOCAL_CLOSED,
    (State.OPEN, Move.RESET): State.RESET,
    (State.OPEN, Move.HEAR): State.OPEN,
    (State.OPEN, Move.HEAR_CLOSE): State.REMOTE_CLOSED,
    (State.OPEN, Move.HEAR_RESET): State.RESET,
    (State.LOCAL_CLOSED, Move.CLOSE): State.LOCAL_CLOSED,
    (State.LOCAL_CLOSED, Move.RESET): State.RESET,
    (State.LOCAL_CLOSED, Move.HEAR): State.LOCAL_CLOSED,
    (State.LOCAL_CLOSED, Move.HEAR_CLOSE): State.CLOSED,
    (State.LOCAL_CLOSED, Move.HEAR_RESET): State.RESET,
    (State.REMOTE_CLOSED, Move.WRITE): State.REMOTE_CLOSED,
    (State.REMOTE_CLOSED, Move.CLOSE): State.CLOSED,
    (State.REMOTE_CLOSED, Move.RESET): State.RESET,
    (State.REMOTE_CLOSED, Move.HEAR_CLOSE): State.REMOTE_CLOSED,
    (State.REMOTE_CLOSED, Move.HEAR_RESET): State.RESET,
    # Both have finished, so a reset is news to nobody; the peer's does not take back what it sent.
    (State.CLOSED, Move.CLOSE): State.CLOSED,
    (State.CLOSED, Move.RESET): State.RESET,
    (State.CLOSED, Move.HEAR_CLOSE): State.CLOSED,
    (State.CLOSED, Move.HEAR_RESET): State.CLOSED,
    # A peer's frames do not reach a stream that was reset: they may have been under way.
    (State.RESET, Move.CLOSE): State.RESET,
    (State.RESET, Move.RESET): State.RESET,
}

# Tuples of what the table allows, because these two are looked up for every frame.
_WRITES = tuple(state for state in State if (state, Move.WRITE) in MOVES)
_HEARS = tuple(state for state in State if (state, Move.HEAR) in MOVES)


class Stream:
    """One stream. Made by `Yamux.open` or handed over in `Opened`; only `Yamux` changes it."""

    __slots__ = ("acknowledged", "id", "receive_window", "received", "send_window", "state", "uncredited")

    def __init__(self, stream_id: int, *, acknowledged: bool) -> None:
        self.id = stream_id
        self.state = State.OPEN
        self.acknowledged = acknowledged  # that the peer has taken it; a stream that it opened needs no taking
        self.received = bytearray()  # arrived and not yet read
        self.send_window = WINDOW_BYTES  # what the peer will still take
        self.receive_window = WINDOW_BYTES  # what the peer may still send
        self.uncredited = 0  # read, and not yet given back to the peer's window

    def __repr__(self) -> str:
        return f"Stream({self.id}, {self.state.name})"

    def move(self, move: Move) -> None:
        """Follow the table, which has this move."""
        self.state = MOVES[self.state, move]

    @property
    def reset(self) -> bool:
        """Whether an end abandoned it."""
        return self.state is State.RESET

    @property
    def remote_closed(self) -> bool:
        """Whether the peer will write no more."""
        return self.state in (State.REMOTE_CLOSED, State.CLOSED)

    @property
    def over(self) -> bool:
        """Whether nothing can happen on it any more, and all that arrived was read."""
        return self.state is State.CLOSED and not self.received

    def spend(self, size: int) -> int:
        """How many of `size` bytes may be written now, taken from the window. Raises as `Yamux.write` does."""
        if self.state not in _WRITES:
            raise StreamReset("the stream was reset") if self.reset else StreamEnded("we closed the stream")
        size = min(size, self.send_window)
        self.send_window -= size
        return size

    def take_in(self, body: bytes | memoryview) -> None:
        """Keep what the peer sent, which `Yamux` found to fit the window. Raises `ProtocolError`."""
        if self.state not in _HEARS:
            raise ProtocolError(f"data after the end of stream {self.id}")
        self.receive_window -= len(body)
        self.received += body

    def take_out(self, max_bytes: int) -> bytes:
        """Up to `max_bytes` of what arrived."""
        if len(self.received) <= max_bytes:
            data = bytes(self.received)
            self.received.clear()
            return data
        with memoryview(self.received) as view:
            data = bytes(view[:max_bytes])
        del self.received[:max_bytes]
        return data

    def credit(self, size: int) -> int:
        """Note that `size` bytes were read; returns by how much to widen the peer's window now, mostly not at all.

        It is widened by half windows: an update for each read would double the frames.
        """
        self.uncredited += size
        if self.uncredited < WINDOW_BYTES // 2 or self.remote_closed:
            return 0
        granted, self.uncredited = self.uncredited, 0
        self.receive_window += granted
        return granted
