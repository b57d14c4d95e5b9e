from __future__ import annotations

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import memory_stream_one_way_pair

from inference import link
from inference.engine import Delta, Finished, Message, Request, Usage
from inference.errors import BadRequest, BadSettings, ContextOverflow, EngineDied, EngineError, ModelMissing
from inference.frames import MAX_FRAME_BYTES, Inbox, encode
from inference.llamacpp import GgufFile, LlamaCpp
from inference.scripted import SCRIPTED_MODEL, Scripted

REQUEST = Request(model="m", messages=(Message("user", "🦋"),), max_tokens=3, stop=("a",))
decoder: msgspec.msgpack.Decoder[link.ToWorker | link.FromWorker] = msgspec.msgpack.Decoder(
    link.ToWorker | link.FromWorker
)


async def receive(data: bytes) -> list[link.ToWorker | link.FromWorker]:
    """All messages in `data`, which arrives in pieces of five bytes."""
    sender, receiver = memory_stream_one_way_pair()
    for at in range(0, len(data), 5):
        await sender.send_all(data[at : at + 5])
    await sender.aclose()
    inbox = Inbox(receiver, decoder)
    messages = []
    while (message := await inbox.next()) is not None:
        messages.append(message)
    return messages


@pytest.mark.parametrize(
    "message",
    [
        link.Open(Scripted(fail_after=3)),
        link.Open(LlamaCpp(model=GgufFile("/a.gguf", "me/own", "llama"))),
        link.Health(1),
        link.Count(2, REQUEST),
        link.Prefill(3, REQUEST, 64),
        link.Generate(4, REQUEST),
        link.Cancel(4),
        link.Ready((SCRIPTED_MODEL,), 4),
        link.Piece(4, Delta("🦋", 3)),
        link.Done(4, Finished("stop", Usage(1, 2, 3))),
        link.Value(2, 7),
        link.Failed(1, "engine", "why"),
        link.Cancelled(4),
    ],
)
async def test_every_message_arrives_as_it_was(message: link.ToWorker | link.FromWorker) -> None:
    assert await receive(encode(message) * 3) == [message] * 3


@pytest.mark.parametrize(
    "error",
    [
        EngineError("a"),
        EngineDied("a"),
        BadSettings("a"),
        ModelMissing("a"),
        BadRequest("a"),
        ContextOverflow(3000, 2048),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_arrives_as_the_same_kind(error: EngineError) -> None:
    arrived = link.raised(link.failed(1, error))
    # A death inside the worker is only a failure to its owner, whose worker lives.
    assert type(arrived) is (EngineError if isinstance(error, EngineDied) else type(error))
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)


@given(st.binary(min_size=1, max_size=40))
def test_garbage_is_refused(body: bytes) -> None:
    async def main() -> None:
        with pytest.raises(EngineDied, match="no message"):
            await receive(len(body).to_bytes(4, "big") + body)

    trio.run(main)


async def test_a_frame_cut_short_is_the_end() -> None:
    frame = encode(link.Health(1))
    for length in range(len(frame)):
        assert await receive(frame + frame[:length]) == [link.Health(1)]


async def test_a_huge_length_is_refused_before_anything_is_kept() -> None:
    with pytest.raises(EngineDied, match="too large"):
        await receive((MAX_FRAME_BYTES + 1).to_bytes(4, "big"))


def test_what_cannot_be_sent_is_the_requests_fault() -> None:
    huge = msgspec.structs.replace(REQUEST, messages=(Message("user", "a" * MAX_FRAME_BYTES),))
    with pytest.raises(BadRequest, match="too large"):
        encode(link.Generate(1, huge))
    with pytest.raises(BadRequest, match="malformed"):
        encode(link.Count(1, msgspec.structs.replace(REQUEST, messages=(Message("user", "\ud800"),))))
