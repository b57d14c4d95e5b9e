"""The models that are known by name, out of `catalogue.toml`."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files

import msgspec

from inference.fitting import Architecture


class Known(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model under its canonical id, and where its figures were looked up."""

    id: str
    family: str
    source: str
    architecture: Architecture


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    models: tuple[Known, ...]


@cache
def catalogue() -> tuple[Known, ...]:
    """In the order of the file: by family, small ones first."""
    text = files("inference").joinpath("catalogue.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), _File).models
