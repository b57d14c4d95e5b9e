"""A model of the user's own, as its files describe it: a GGUF file, or a folder of safetensors with its config.json.

Headers alone are read, and nothing in them names another file: what a folder holds is what lies in it.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import NamedTuple

from inference import gguf_header, safetensors_header
from inference.errors import ModelMissing
from inference.fitting import Architecture, Term


class LocalModel(NamedTuple):
    """What is at a path, and what its weights take."""

    name: str
    architecture: Architecture
    weights: Term


def read_model(path: Path) -> LocalModel:
    """Raises `ModelMissing`, with the path."""
    try:
        read = _folder if path.is_dir() else _gguf
        return read(path)
    except ModelMissing as error:
        raise ModelMissing(f"{path}: {error}") from None
    except OSError as error:
        raise ModelMissing(f"cannot read {path}: {error.strerror}") from None


def _gguf(path: Path) -> LocalModel:
    with path.open("rb") as file:
        size = path.stat().st_size
        if not size:
            raise ModelMissing("the file is empty")
        length = min(size, gguf_header.MAX_HEADER_BYTES)
        with mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as header:
            architecture, weights = gguf_header.read_gguf(header, size)
    return LocalModel(path.name, architecture, Term("weights", weights, "its tensors", "the file's header"))


def _folder(path: Path) -> LocalModel:
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise ModelMissing("there are no .safetensors in the folder, and nothing else is read")
    with (path / "config.json").open("rb") as file:
        architecture = safetensors_header.read_config(file.read(safetensors_header.MAX_CONFIG_BYTES))
    weights = sum(map(_tensors, files))
    how = f"the tensors of {len(files)} files"
    return LocalModel(path.resolve().name, architecture, Term("weights", weights, how, "the files' headers"))


def _tensors(path: Path) -> int:
    with path.open("rb") as file:
        size = path.stat().st_size
        length = int.from_bytes(file.read(8), "little")
        if length > min(size, safetensors_header.MAX_HEADER_BYTES):
            raise ModelMissing(f"the header of {path.name} is cut off, or lies about its length")
        return safetensors_header.read_tensors(file.read(length), size)
