"""Yamux frames by hand, and two cores back to back."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from p2p.net.yamux import Event, Opened, Yamux
from p2p.net.yamux_stream import Stream

HEADER = struct.Struct(">BBHII")
DATA, WINDOW_UPDATE, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8


def frame(kind: int, flags: int, stream_id: int, length: int, body: bytes = b"", version: int = 0) -> bytes:
    return HEADER.pack(version, kind, flags, stream_id, length) + body


def frames(data: bytes) -> Iterator[tuple[int, int, int, int, bytes]]:
    while data:
        _, kind, flags, stream_id, length = HEADER.unpack_from(data)
        size = length if kind == DATA else 0
        yield kind, flags, stream_id, length, data[HEADER.size : HEADER.size + size]
        data = data[HEADER.size + size :]


def pair() -> tuple[Yamux, Yamux]:
    return Yamux(initiator=True, now=0.0), Yamux(initiator=False, now=0.0)


def carry(source: Yamux, target: Yamux) -> list[Event]:
    return target.receive(source.data_to_send(), 0.0)


def new_stream(core: Yamux) -> Stream:
    stream = core.open()
    assert stream is not None
    return stream


def opened(events: list[Event]) -> Stream:
    return next(event.stream for event in events if isinstance(event, Opened))


def connected() -> tuple[Yamux, Yamux, Stream, Stream]:
    a, b = pair()
    here = new_stream(a)
    there = opened(carry(a, b))
    carry(b, a)
    return a, b, here, there
