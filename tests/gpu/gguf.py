"""Reads a GGUF file of the kind that the embedded model comes in: its facts, and its tensors as plain numbers.

After llama.cpp's description of the format. Of its kinds of numbers only what that file has is known, and F16.
"""

from __future__ import annotations

import math
import mmap
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_F32, _F16, _Q4_1, _Q8_0 = 0, 1, 3, 8
_BLOCK = 32  # numbers that share a scale


class Gguf:
    """An open file."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._at = 0
        magic, version, tensors, facts = self._read("4sIQQ")
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError(f"{path} is no GGUF file of version 2 or 3")
        self.facts: dict[str, Any] = {self._text(): self._value(*self._read("I")) for _ in range(facts)}
        self._tensors = {self._text(): self._shape() for _ in range(tensors)}
        aligned = self.facts.get("general.alignment", 32)
        self._data = -(-self._at // aligned) * aligned

    def names(self) -> list[str]:
        return [*self._tensors]

    def tensor(self, name: str) -> Array:
        """Its numbers as float32, in the shape that PyTorch would give it."""
        shape, kind, offset = self._tensors[name]
        count, start = math.prod(shape), self._data + offset
        return _whole(self._bytes, start, count, kind).reshape(shape)

    def _read(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{layout}", self._bytes, self._at)
        self._at += struct.calcsize(f"<{layout}")
        return values

    def _text(self) -> str:
        (length,) = self._read("Q")
        self._at += length
        return self._bytes[self._at - length : self._at].decode("utf-8", "surrogateescape")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY:
            inner, length = self._read("IQ")
            return [self._value(inner) for _ in range(length)]
        return self._read(_SCALARS[kind])[0]

    def _shape(self) -> tuple[tuple[int, ...], int, int]:
        (dimensions,) = self._read("I")
        shape = self._read(f"{dimensions}Q")[::-1]
        kind, offset = self._read("IQ")
        return shape, kind, offset


def _whole(source: mmap.mmap, start: int, count: int, kind: int) -> Array:
    import numpy as np

    def blocks(layout: list[tuple[str, str, int] | tuple[str, str]]) -> Array:
        return np.frombuffer(source, np.dtype(layout), count // _BLOCK, start)

    if kind in (_F32, _F16):
        return np.frombuffer(source, "<f4" if kind == _F32 else "<f2", count, start).astype(np.float32)
    if kind == _Q8_0:
        read = blocks([("scale", "<f2"), ("values", "i1", _BLOCK)])
        return (read["scale"].astype(np.float32)[:, None] * read["values"]).ravel()
    if kind == _Q4_1:
        read = blocks([("scale", "<f2"), ("least", "<f2"), ("values", "u1", _BLOCK // 2)])
        values = np.concatenate([read["values"] & 15, read["values"] >> 4], axis=1).astype(np.float32)
        return (values * read["scale"].astype(np.float32)[:, None] + read["least"].astype(np.float32)[:, None]).ravel()
    raise ValueError(f"numbers of kind {kind} are not known here")
