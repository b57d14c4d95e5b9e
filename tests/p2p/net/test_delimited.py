"""Small control messages, from honest and from hostile peers."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, PeerId

from p2p.errors import RemoteError, Unavailable
from p2p.net.delimited import MAX_MESSAGE_BYTES, receive, send


class Tape:
    """One end of a stream, with all that the other end will ever say; it comes in pieces of a few bytes."""

    peer = source = "somebody"

    def __init__(self, heard: bytes = b"", piece: int = 3) -> None:
        self.heard = heard
        self.said = b""
        self._piece = piece

    async def read(self, max_bytes: int) -> bytes:
        size = min(max_bytes, self._piece)
        data, self.heard = self.heard[:size], self.heard[size:]
        return data

    async def write(self, data: bytes) -> None:
        self.said += data

    async def close(self) -> None: ...

    async def reset(self) -> None: ...


def message(size: int) -> Any:
    return HopMessage(type=HopMessage.CONNECT, peer=PeerId(id=bytes(size)))


@pytest.mark.parametrize("size", [0, 100, 130, 4000])
async def test_what_is_sent_is_received_and_not_a_byte_more(size: int) -> None:
    tape = Tape()
    await send(tape, message(size))
    back = Tape(tape.said + b"the circuit")
    assert await receive(back, HopMessage) == message(size)
    assert back.heard == b"the circuit"


@pytest.mark.parametrize(
    ("heard", "code"),
    [
        (b"\xff\xff\x01", "over the size limit"),
        (
            bytes([(MAX_MESSAGE_BYTES + 1) & 0x7F | 0x80, (MAX_MESSAGE_BYTES + 1) >> 7]) + bytes(5000),
            "over the size limit",
        ),
        (b"\x03\xff\xff\xff", "not a HopMessage"),
        (b"\x00", "without a type"),
    ],
)
async def test_what_is_malformed_is_the_peers_fault(heard: bytes, code: str) -> None:
    with pytest.raises(RemoteError, match=code):
        await receive(Tape(heard), HopMessage)


async def test_a_peer_that_closes_or_says_nothing_is_unavailable(autojump_clock: trio.testing.MockClock) -> None:
    for heard in (b"", b"\x05", b"\x05hel"):
        with pytest.raises(Unavailable):
            await receive(Tape(heard), HopMessage)

    class Silence(Tape):
        async def read(self, max_bytes: int) -> bytes:
            await trio.sleep_forever()

    with pytest.raises(Unavailable, match="within 10 s"):
        await receive(Silence(), HopMessage)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_refused(heard: bytes) -> None:
    async def read() -> None:
        try:
            await receive(Tape(heard), HopMessage)
        except (RemoteError, Unavailable):
            return

    trio.run(read)
