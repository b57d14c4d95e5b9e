"""Core: what an answer holds besides prose: calls of tools, logprobs, embeddings.

They are records in the answer's text, so that they are counted, paid, hashed and passed on as all of it is. A record is
a JSON object between two record separators (U+001E, as in RFC 7464); prose has none where records are asked for.

    {"name": ..., "arguments": {...}}                       a call, as the model wrote it
    {"logprobs": [[token, logprob, [[token, logprob], ...]], ...]}  of the tokens since the last such record
    {"embedding": "..."}                                    a vector: base64 of little-endian 32-bit floats
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Sequence

import msgspec

from inference.errors import EngineError

SEPARATOR = "\x1e"
TOP_LOGPROBS_MAX = 20  # as OpenAI has it
EMBEDDING_BYTES_MAX = 1 << 16  # of a record: some 12,000 dimensions


class Call(msgspec.Struct, frozen=True):
    """`arguments` is a JSON object, as the model wrote it."""

    name: str
    arguments: msgspec.Raw

    @property
    def text(self) -> str:
        """The arguments as JSON."""
        return bytes(self.arguments).decode()


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    """One token of the answer, how likely the model found it, and the likeliest in its place. In nats."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


class Logprobs(msgspec.Struct, frozen=True):
    """Of some tokens, one after the other."""

    logprobs: tuple[TokenLogprob, ...]


class Embedding(msgspec.Struct, frozen=True):
    """One vector, for one text."""

    embedding: str

    @property
    def vector(self) -> tuple[float, ...]:
        """Raises `EngineError` for what is none."""
        try:
            packed = base64.b64decode(self.embedding, validate=True)
            return struct.unpack(f"<{len(packed) // 4}f", packed)
        except (ValueError, struct.error):
            raise EngineError("an embedding that is none") from None


class Begun(msgspec.Struct, frozen=True):
    """The next of a record's own text, before it is known to be one."""

    text: str


Record = Call | Logprobs | Embedding
_SHAPES: dict[str, type[Record]] = {"name": Call, "logprobs": Logprobs, "embedding": Embedding}
_keys = msgspec.json.Decoder(dict[str, msgspec.Raw])


def written(record: Record) -> str:
    """As it stands in an answer's text."""
    return f"{SEPARATOR}{msgspec.json.encode(record).decode()}{SEPARATOR}"


def embedding(vector: Sequence[float]) -> Embedding:
    """The record of a vector."""
    return Embedding(base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode())


def prose(text: str) -> str:
    """A model's words as they may stand beside records."""
    return text.replace(SEPARATOR, "")


class RecordReader:
    """Parts the text of an answer that has records, as it comes."""

    def __init__(self) -> None:
        self._record: list[str] | None = None

    @property
    def unfinished(self) -> str:
        """The text so far of a record whose end has not come."""
        return "".join(self._record or ())

    def feed(self, text: str) -> list[str | Record]:
        """Prose and records that `text` completes, in order. Raises `EngineError` for a record that is none."""
        return [item for item in self.bits(text) if not isinstance(item, Begun)]

    def bits(self, text: str) -> list[str | Begun | Record]:
        """The same, and before each record its text as it comes."""
        items: list[str | Begun | Record] = []
        for at, piece in enumerate(text.split(SEPARATOR)):
            if at:
                items += self._toggled()
            if not piece:
                continue
            if self._record is None:
                items.append(piece)
            else:
                self._record.append(piece)
                items.append(Begun(piece))
        return items

    def _toggled(self) -> Iterable[Record]:
        if self._record is None:
            self._record = []
            return ()
        whole, self._record = self.unfinished, None
        return (_read(whole),)


def _read(text: str) -> Record:
    try:
        keys = _keys.decode(text)
        shape = next(shape for key, shape in _SHAPES.items() if key in keys)
        return msgspec.json.decode(text, type=shape)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, StopIteration):
        raise EngineError("a record in the answer that is none") from None
