"""Pure: `/v1/embeddings`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec

from inference.engine import Message, Request
from p2p.gateway.bodies import NOT_YET, read, refuse
from p2p.gateway.calls import Call, Defaults, Outcome, Piece
from p2p.gateway.failures import Failure

MAX_TEXTS = 64  # each may be answered with a vector of some 16 KiB

Text = Annotated[str, msgspec.Meta(min_length=1)]


class EmbeddingsBody(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked at of the body."""

    model: str
    input: Text | Annotated[tuple[Text, ...], msgspec.Meta(min_length=1, max_length=MAX_TEXTS)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


class Embeddings:
    """How the vectors are said: it is one answer, and never streamed. See `calls.Dialect`."""

    def __init__(self, body: EmbeddingsBody) -> None:
        self._body = body

    def whole(self, outcome: Outcome) -> dict[str, Any]:
        encoded = self._body.encoding_format == "base64"
        (choice,) = outcome.choices
        vectors = [one.embedding if encoded else one.vector for one in choice.whole.embeddings]
        return {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)
            ],
            "model": self._body.model,
            "usage": {"prompt_tokens": outcome.prompt_tokens, "total_tokens": outcome.prompt_tokens},
            "bombyx": outcome.bombyx,
        }

    def opening(self) -> Sequence[bytes]:
        return []

    def piece(self, index: int, piece: Piece) -> Sequence[bytes]:
        return []

    def begun(self, index: int, bombyx: Mapping[str, Any]) -> Sequence[bytes]:
        return []

    def closing(self, outcome: Outcome) -> Sequence[bytes]:
        return []

    def failed(self, failure: Failure) -> Sequence[bytes]:
        return []


def read_embeddings(body: bytes, _defaults: Defaults) -> tuple[Call, Embeddings]:
    """What is wanted. Raises `Rejected`."""
    asked = read(body, EmbeddingsBody)
    refuse({"dimensions": asked.dimensions}, NOT_YET)
    texts = (asked.input,) if isinstance(asked.input, str) else asked.input
    messages = tuple(Message("user", text) for text in texts)
    return Call((Request(model=asked.model, messages=messages, max_tokens=1, embed=True),)), Embeddings(asked)
