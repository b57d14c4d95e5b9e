"""Streams between simulated peers: real frames, in order, delayed by where the peers are.

Every message is encoded, framed, cut and decoded again by `p2p.protocol.wire`, so the codec runs as it does between
machines. Between two peers nothing overtakes, as on the one connection that all their streams share. Bandwidth and
loss are not modelled. A peer whose process dies closes its streams; one whose machine dies just falls silent.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

import msgspec

from p2p.protocol.wire import FrameReader, decode, frame
from p2p.trace import HEARD, SAID, Trace, silent
from sim.kernel import Kernel
from sim.process import Gate
from sim.regions import Matrix, Place, one_way_s

T = TypeVar("T")
_STAMP = struct.Struct(">d")


class End:
    """One end of a stream: `send` and `close` it, and `attach` what hears the other end."""

    def __init__(self, network: Network, owner: str, peer: str, protocol: str) -> None:
        self.owner = owner
        self.peer = peer
        self.protocol = protocol
        self.is_open = True
        self._network = network
        self._reader = FrameReader()
        self._hears: Any = None
        self._on_message: Callable[[Any], None]
        self._on_lost: Callable[[], None]

    def attach(self, hears: Any, on_message: Callable[[Any], None], on_lost: Callable[[], None]) -> None:
        """Decode what comes as `hears` and hand it on. `on_lost` is called once if the other end goes first."""
        self._hears, self._on_message, self._on_lost = hears, on_message, on_lost

    def send(self, message: msgspec.Struct) -> None:
        """Write one message; to a stream that has ended it goes nowhere."""
        if self.is_open:
            self._tell(SAID, message)
            self._network.carry(self, frame(message))

    def close(self) -> None:
        """End the stream; the other end learns of it after all that was sent before."""
        if self.is_open:
            self.is_open = False
            self._network.part(self)

    def arrived(self, data: bytes) -> None:
        """Bytes from the other end."""
        if self.is_open:
            for payload in self._reader.feed(data):
                message = decode(payload, self._hears)
                self._tell(HEARD, message)
                self._on_message(message)

    def lost(self) -> None:
        """The other end is gone."""
        if self.is_open:
            self.is_open = False
            self._on_lost()

    def _tell(self, kind: str, message: msgspec.Struct) -> None:
        self._network.trace(kind, by=self.owner, peer=self.peer, message=type(message).__name__)


class Inbox(Generic[T]):
    """An end for a process that takes one message after another."""

    def __init__(self, kernel: Kernel, end: End, hears: Any, *, patience_s: float) -> None:
        self._kernel = kernel
        self._patience_s = patience_s
        self._messages: list[T] = []
        self._lost = False
        self._gate = Gate[None]()
        end.attach(hears, self._arrived, self._gone)

    async def next(self) -> T | None:
        """The next message; `None` once the stream has ended, or when patience has."""
        if not self._messages and not self._lost:
            self._gate = Gate()
            self._kernel.after(self._patience_s, partial(self._gate.open, None))
            await self._gate
        return self._messages.pop(0) if self._messages else None

    def _arrived(self, message: T) -> None:
        self._messages.append(message)
        self._gate.open(None)

    def _gone(self) -> None:
        self._lost = True
        self._gate.open(None)


class Network:
    """Who is reachable, and what is on its way. `traffic` hashes every frame with its time, sender and receiver.

    `trace` is told of each message.
    """

    def __init__(self, kernel: Kernel, matrix: Matrix, *, jitter_percent: float, trace: Trace = silent) -> None:
        self.trace = trace
        self._kernel = kernel
        self._matrix = matrix
        self._jitter = jitter_percent / 100
        self._chance = kernel.stream("latency")
        self._places: dict[str, Place] = {}
        self._accept: dict[str, Callable[[End], None]] = {}
        self._silent: dict[str, bool] = {}  # those who are down: whether nobody is told
        self._ends: dict[str, dict[End, End]] = {}  # each peer's open ends, with the other end of each
        self._last_arrival_s: dict[tuple[str, str], float] = {}
        self.traffic = hashlib.sha256()
        self.messages = 0
        self.bytes = 0

    def join(self, peer: str, place: Place, accept: Callable[[End], None]) -> None:
        """A peer is at this place; `accept` takes the streams that others open to it, and must attach them at once."""
        self._places[peer], self._accept[peer], self._ends[peer] = place, accept, {}

    def connect(self, client: str, server: str, protocol: str) -> End:
        """Open a stream. Attach it at once; if nobody is there it is lost, or hears nothing."""
        near, far = End(self, client, server, protocol), End(self, server, client, protocol)
        self._ends[client][near] = far
        self._kernel.at(self._arrival_s(client, server), partial(self._accepted, near, far))
        return near

    def rtt_ms(self, one: str, other: str) -> int:
        """What a ping would measure, without jitter."""
        return round(2000 * one_way_s(self._matrix, self._places[one], self._places[other]))

    def crash(self, peer: str, *, silent: bool) -> None:
        """The peer is gone with all its streams. `silent`: its machine too, so that nobody is told."""
        self._silent[peer] = silent
        ends, self._ends[peer] = self._ends[peer], {}
        for near, far in ends.items():
            near.is_open = False
            if not silent:
                self._tell(near, far)

    def restore(self, peer: str) -> None:
        """The peer is back and remembers no stream."""
        del self._silent[peer]

    def carry(self, near: End, data: bytes) -> None:
        """Put bytes on their way. Only an `End` calls this."""
        far = self._ends[near.owner].get(near)
        assert far is not None
        self.messages += 1
        self.bytes += len(data)
        self.traffic.update(_STAMP.pack(self._kernel.now) + f"{near.owner}>{near.peer}>".encode() + data)
        self._kernel.at(self._arrival_s(near.owner, near.peer), partial(far.arrived, data))

    def part(self, near: End) -> None:
        """Tell the other end that this one has closed. Only an `End` calls this."""
        self._tell(near, self._ends[near.owner].pop(near))

    def _accepted(self, near: End, far: End) -> None:
        silent = self._silent.get(far.owner)
        if silent is None:
            self._ends[far.owner][far] = near
            self._accept[far.owner](far)
            return
        far.is_open = False
        if not silent:
            self._tell(far, near)

    def _tell(self, near: End, far: End) -> None:
        self._kernel.at(self._arrival_s(near.owner, far.owner), partial(self._lose, far))

    def _lose(self, far: End) -> None:
        self._ends[far.owner].pop(far, None)
        far.lost()

    def _arrival_s(self, sender: str, receiver: str) -> float:
        delay_s = one_way_s(self._matrix, self._places[sender], self._places[receiver])
        arrival_s = self._kernel.now + delay_s * (1 + self._jitter * self._chance.random())
        arrival_s = max(arrival_s, self._last_arrival_s.get((sender, receiver), 0.0))
        self._last_arrival_s[sender, receiver] = arrival_s
        return arrival_s
