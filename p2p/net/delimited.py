"""libp2p's small control messages: protobuf behind its length, one at a time.

Not a byte more is read than a message has, because what follows may belong to somebody else.
"""

from __future__ import annotations

from typing import Any

import trio
from google.protobuf.message import DecodeError

from p2p.errors import RemoteError, Unavailable
from p2p.host import Stream

MAX_MESSAGE_BYTES = 4096  # what the specifications of relay and hole punching ask for
ANSWER_TIMEOUT_S = 10.0
_MAX_LENGTH_BYTES = 2


async def send(stream: Stream, message: Any) -> None:
    """Write one message. Raises `Unavailable`."""
    payload = message.SerializeToString()
    await stream.write(_varint(len(payload)) + payload)


async def receive(stream: Stream, kind: type[Any], timeout_s: float = ANSWER_TIMEOUT_S) -> Any:
    """Read one message of the protobuf class `kind`. Raises `RemoteError`, or `Unavailable` if none comes in time."""
    message = kind()
    try:
        with trio.fail_after(timeout_s):
            message.ParseFromString(await _read_exactly(stream, await _read_length(stream)))
    except trio.TooSlowError:
        raise Unavailable(f"no answer within {timeout_s:g} s") from None
    except DecodeError as error:
        raise RemoteError("malformed", f"not a {kind.__name__}") from error
    if not message.HasField("type"):  # a missing one would read as the first of its kinds
        raise RemoteError("malformed", f"a {kind.__name__} without a type")
    return message


async def _read_length(stream: Stream) -> int:
    length = 0
    for position in range(_MAX_LENGTH_BYTES):
        (byte,) = await _read_exactly(stream, 1)
        length |= (byte & 0x7F) << (7 * position)
        if byte < 0x80:
            if length > MAX_MESSAGE_BYTES:
                break
            return length
    raise RemoteError("malformed", "a message over the size limit")


async def _read_exactly(stream: Stream, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = await stream.read(size - len(data))
        if not piece:
            raise Unavailable("the peer closed without an answer")
        data += piece
    return bytes(data)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])
