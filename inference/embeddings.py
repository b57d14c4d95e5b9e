"""Vectors of an OpenAI-compatible server: `POST /v1/embeddings`, a few texts at once, so that no reply is long.

https://platform.openai.com/docs/api-reference/embeddings/create
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import msgspec

from inference.completions import Counted, read_reply
from inference.engine import Request
from inference.errors import EngineError
from inference.records import Embedding, embedding

if TYPE_CHECKING:
    from inference.upstream_http import UpstreamHttp

EMBEDDINGS = "/v1/embeddings"
TEXTS_AT_ONCE = 16
WIDTH_MAX = 12_000  # so that a record has room for it, see `EMBEDDING_BYTES_MAX`
_NUMBER_MAX_BYTES = 32  # in JSON, with what stands between two
REPLY_MAX_BYTES = TEXTS_AT_ONCE * WIDTH_MAX * _NUMBER_MAX_BYTES


class _Vector(msgspec.Struct, frozen=True):
    index: int
    embedding: Annotated[tuple[float, ...], msgspec.Meta(min_length=1, max_length=WIDTH_MAX)]


class _Reply(msgspec.Struct, frozen=True):
    data: Annotated[tuple[_Vector, ...], msgspec.Meta(max_length=TEXTS_AT_ONCE)]
    usage: Counted | None = None


async def embed_texts(
    http: UpstreamHttp, name: str, request: Request, *, within_s: float
) -> tuple[list[Embedding], int]:
    """A vector of length one for each text, and how many tokens they have together: 0 if the server does not say.

    The server has `within_s` for each few texts. Raises `ServerRefused` or `EngineError`.
    """
    texts, found, tokens = [message.content for message in request.messages], list[Embedding](), list[int]()
    for at in range(0, len(texts), TEXTS_AT_ONCE):
        some = texts[at : at + TEXTS_AT_ONCE]
        body = {"model": name, "input": some, "encoding_format": "float"}
        reply = await http.call("POST", EMBEDDINGS, body, within_s=within_s, reply_max_bytes=REPLY_MAX_BYTES)
        vectors, told = read_embeddings(reply, len(some))
        found += vectors
        tokens.append(told)
    return found, sum(tokens) if all(tokens) else 0


def read_embeddings(reply: bytes, texts: int) -> tuple[list[Embedding], int]:
    """The vectors of so many texts, and their tokens, 0 if the reply does not say. Raises `EngineError`."""
    read = read_reply(reply, _Reply)
    ordered = sorted(read.data, key=lambda one: one.index)
    if [one.index for one in ordered] != [*range(texts)] or len({len(one.embedding) for one in ordered}) != 1:
        raise EngineError("the server's vectors are not one for each text, all as long")
    tokens = max(0, read.usage.prompt_tokens) if read.usage else 0
    return [embedding(_of_length_one(one.embedding)) for one in ordered], tokens


def _of_length_one(vector: Sequence[float]) -> Sequence[float]:
    length = math.hypot(*vector)
    if not (math.isfinite(length) and length):
        raise EngineError("the server's vector has no direction")
    return [part / length for part in vector]
