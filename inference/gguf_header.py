"""Core: the header of a GGUF file: what model it holds, and how large its tensors are.

The layout is that of ggml's `gguf.md`, versions 2 and 3. The file may be anybody's: every count is held against the
bytes that are there before it is believed, so that a header costs no more time and memory than its own length.
"""

from __future__ import annotations

import math
import struct
from typing import Any, NamedTuple

from inference.errors import ModelMissing
from inference.fitting import Architecture

MAX_HEADER_BYTES = 64 << 20  # the tokens of the largest vocabulary, with room
_MAX_KEY_BYTES = 65_535
_MAX_ELEMENTS = 1 << 48  # of a tensor
_MAX_FIGURE = 1 << 32

_STRING, _ARRAY = 8, 9
# By GGUF's numbers: how a value of fixed size is laid out.
_FIXED = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
# By ggml's numbers: elements and bytes of a block.
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84),
    11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 30: (1, 2),
}  # fmt: skip


class _Array(NamedTuple):
    """Contents are skipped: nobody here needs them."""

    length: int


class _Bytes:
    """A place in the header, which moves on as it is read."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self.at = 0

    def fixed(self, layout: str) -> Any:
        size = struct.calcsize(layout)
        return struct.unpack(layout, self.take(size))[0]

    def take(self, size: int) -> memoryview:
        if size > len(self._data) - self.at:
            raise ModelMissing("the file's header is cut off, or lies about its length")
        self.at += size
        return self._data[self.at - size : self.at]

    def text(self, longest: int = MAX_HEADER_BYTES) -> str:
        size = self.fixed("<Q")
        if size > longest:
            raise ModelMissing("a name in the file's header is too long")
        return bytes(self.take(size)).decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return self._skip_array()
        if kind not in _FIXED:
            raise ModelMissing(f"the file's header has values of an unknown kind, {kind}")
        return self.fixed(_FIXED[kind])

    def _skip_array(self) -> _Array:
        kind, count = self.fixed("<I"), self.fixed("<Q")
        if kind in _FIXED:
            self.take(count * struct.calcsize(_FIXED[kind]))
        elif kind == _STRING:
            for _ in range(count):  # each takes eight bytes at least, so it ends with the header
                self.take(self.fixed("<Q"))
        else:
            raise ModelMissing("the file's header has arrays of an unknown kind")
        return _Array(count)


def read_gguf(header: memoryview, file_bytes: int) -> tuple[Architecture, int]:
    """What the file holds, and its tensors' size in bytes. `header` is its beginning, at most `MAX_HEADER_BYTES`.

    Raises `ModelMissing` for what is no GGUF file, is not whole, or says what cannot be.
    """
    data = _Bytes(header)
    if bytes(data.take(4)) != b"GGUF" or data.fixed("<I") not in {2, 3}:
        raise ModelMissing("not a GGUF file of version 2 or 3")
    tensors, pairs = data.fixed("<Q"), data.fixed("<Q")
    said: dict[str, Any] = {}
    for _ in range(pairs):  # a pair takes bytes, so this ends with the header
        key = data.text(_MAX_KEY_BYTES)
        said[key] = data.value(data.fixed("<I"))
    size, names = _tensors(data, tensors, file_bytes)
    return _architecture(said, tied="output.weight" not in names), size


def _tensors(data: _Bytes, count: int, file_bytes: int) -> tuple[int, set[str]]:
    size, names = 0, set()
    for _ in range(count):
        name = data.text(_MAX_KEY_BYTES)
        dimensions = data.fixed("<I")
        if dimensions > 4:
            raise ModelMissing("a tensor has more than four dimensions")
        elements = math.prod(data.fixed("<Q") for _ in range(dimensions))
        kind, _offset = data.fixed("<I"), data.fixed("<Q")
        if kind not in _BLOCKS:
            raise ModelMissing(f"tensors of ggml's kind {kind} are not known here")
        if elements > _MAX_ELEMENTS:
            raise ModelMissing("a tensor is larger than can be")
        per_block, block_bytes = _BLOCKS[kind]
        size += -(-elements // per_block) * block_bytes
        names.add(name)
    if data.at + size > file_bytes:
        raise ModelMissing("the file is shorter than its tensors: it is not whole")
    return size, names


def _architecture(said: dict[str, Any], *, tied: bool) -> Architecture:
    prefix = said.get("general.architecture")

    def figure(name: str, default: int | None = None) -> int:
        value = said.get(f"{prefix}.{name}", default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_FIGURE:
            raise ModelMissing(f"the file's header has no good {name}")
        return value

    heads, hidden = figure("attention.head_count"), figure("embedding_length")
    if not heads or not hidden:
        raise ModelMissing("the file's header says that the model has no heads")
    return Architecture(
        layers=figure("block_count"),
        heads=heads,
        kv_heads=figure("attention.head_count_kv", heads),
        head_dim=figure("attention.key_length", hidden // heads),
        hidden=hidden,
        feed_forward=figure("feed_forward_length", 0),
        vocab=figure("vocab_size", _length(said.get("tokenizer.ggml.tokens"))),
        context=figure("context_length"),
        tied=tied,
        experts=figure("expert_count", 0),
        experts_used=figure("expert_used_count", 0),
        expert_feed_forward=figure("expert_feed_forward_length", 0),
    )


def _length(tokens: Any) -> int | None:
    return tokens.length if isinstance(tokens, _Array) else None
