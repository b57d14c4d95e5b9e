"""Vectors of somebody's server: how texts are sent and counted, and what a hostile one might send instead.

Those of a real llama-server: `test_contract`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from recorded_server import Recorded, tokens_of
from test_upstream import MODEL, collect, key_file, opened, text_of

from inference.embeddings import REPLY_MAX_BYTES, TEXTS_AT_ONCE, WIDTH_MAX, read_embeddings
from inference.engine import CONTINUE, EMBED, ESTIMATES, Capacity, Message, Request, Usage
from inference.errors import BadRequest, ContextOverflow, EngineError
from inference.records import EMBEDDING_BYTES_MAX, Embedding, RecordReader, written

__all__ = ["key_file"]  # a fixture

TEXTS = ("silk", "a moth", "and how it spins")
TOKENS = sum(map(tokens_of, TEXTS))


def of_texts(*texts: str) -> Request:
    return Request(model=MODEL, messages=tuple(Message("user", text) for text in texts), max_tokens=1, embed=True)


async def test_a_few_texts_are_sent_at_once_and_each_gets_its_vector(key_file: Path) -> None:
    recorded = Recorded(embeds=True)
    async with opened(recorded, key_file) as engine:
        assert engine.models()[0].features == (CONTINUE, EMBED)
        texts = ["m" * (1 + at) for at in range(2 * TEXTS_AT_ONCE + 1)]
        recorded.asked.clear()
        deltas, finished = await collect(engine, of_texts(*texts))
        sent = [asked["input"] for asked in recorded.asked if "input" in asked]
        assert list(map(len, sent)) == [TEXTS_AT_ONCE, TEXTS_AT_ONCE, 1]
        vectors = [one.vector for one in RecordReader().feed(text_of(deltas)) if isinstance(one, Embedding)]
        assert [y / x for x, y in vectors] == pytest.approx([4 * len(text) / 3 for text in texts], rel=1e-6)
        assert [math.hypot(*one) for one in vectors] == pytest.approx([1.0] * len(texts))
        assert (finished.reason, finished.usage) == ("stop", Usage(len(texts), 0, 0))
        assert engine.capacity() == Capacity(2, 2)
        with pytest.raises(ContextOverflow):
            await collect(engine, of_texts("word " * 300))


@pytest.mark.parametrize(
    ("counts", "tokenizer", "asks"),
    [("last", 0, 0), ("last", 1, 1), ("last", None, 1), ("never", 0, 0), ("never", None, 0)],
)
async def test_texts_are_counted_as_the_usage_does(
    counts: str, tokenizer: int | None, asks: int, key_file: Path
) -> None:
    recorded = Recorded(counts=counts, tokenizer=tokenizer, embeds=True)
    async with opened(recorded, key_file) as engine:
        told = counts != "never"
        assert (ESTIMATES in engine.models()[0].features) is not told
        recorded.asked.clear()
        counted = await engine.count(of_texts(*TEXTS))
        assert (counted == TOKENS) if told else (counted > TOKENS)
        assert [asked["path"] for asked in recorded.asked].count("/v1/embeddings") == asks
        assert await engine.prefill(of_texts(*TEXTS), 2) == 2
        _, finished = await collect(engine, of_texts(*TEXTS))
        assert finished.usage == Usage(counted, 0, 0)


async def test_without_vectors_it_is_not_offered(key_file: Path) -> None:
    for recorded in (Recorded(), Recorded(embeds=True, vectors=b"{}")):
        async with opened(recorded, key_file) as engine:
            assert EMBED not in engine.models()[0].features
            with pytest.raises(BadRequest, match="makes no embeddings"):
                await collect(engine, of_texts("silk"))


def reply(*vectors: Any, indices: tuple[Any, ...] = (0, 1, 2), **rest: Any) -> bytes:
    data = [{"index": at, "embedding": vector} for at, vector in zip(indices, vectors, strict=True)]
    return json.dumps({"data": data} | rest).encode()


GOOD = ([3.0, 4.0], [1, 0], [0, 1])
FAULTS = {
    "no JSON": b"silk",
    "not UTF-8": b'{"data": "\xff"}',
    "deep nesting": b'{"x": ' + b"[" * 100_000,
    "no list": b'{"data": 1}',
    "too few": reply(*GOOD[:2], indices=(0, 1)),
    "too many": reply(*GOOD, [1, 0], indices=(0, 1, 2, 3)),
    "twice the same": reply(*GOOD, indices=(0, 1, 1)),
    "from one on": reply(*GOOD, indices=(1, 2, 3)),
    "an index that is none": reply(*GOOD, indices=(0, 1, "2")),
    "of two widths": reply([1, 0], [1, 0], [1, 0, 0]),
    "of no width": reply([], [], []),
    "too wide": reply(*[[1.0] * (WIDTH_MAX + 1)] * 3),
    "base64": reply("AACAPw==", "AACAPw==", "AACAPw=="),
    "no number": reply(*GOOD[:2], [float("nan"), 1]),
    "infinite": reply(*GOOD[:2], [float("inf"), 1]),
    "as good as infinite": reply(*GOOD[:2], [1, 2]).replace(b"[1, 2]", b"[1e999, 1]"),
    "longer than there are numbers": reply(*GOOD[:2], [1.7e308, 1.7e308]),
    "of length zero": reply(*GOOD[:2], [0, 0]),
    "a usage that is none": reply(*GOOD, usage={"prompt_tokens": "9"}),
    "too long": reply(*GOOD) + b" " * REPLY_MAX_BYTES,
}


@pytest.mark.parametrize("vectors", FAULTS.values(), ids=FAULTS)
async def test_what_is_wrong_fails_that_request_alone(vectors: bytes, key_file: Path) -> None:
    recorded = Recorded(embeds=True)
    async with opened(recorded, key_file) as engine:
        recorded.vectors = vectors
        with pytest.raises(EngineError, match="the server's") as caught:
            await collect(engine, of_texts(*TEXTS))
        assert "\n" not in str(caught.value)
        assert engine.capacity() == Capacity(2, 2)
        recorded.vectors = b""
        assert (await collect(engine, of_texts(*TEXTS)))[1].usage == Usage(TOKENS, 0, 0)


def test_the_widest_vector_fits_into_a_record() -> None:
    widest = [-1 / 3 - at / 1e5 for at in range(WIDTH_MAX)]
    ((vector,), tokens) = read_embeddings(reply(widest, indices=(0,), usage={"prompt_tokens": -1}), 1)
    assert tokens == 0
    assert len(written(vector).encode()) <= EMBEDDING_BYTES_MAX
