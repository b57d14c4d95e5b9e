"""TL, the encoding of what passes between a lite-server and its clients, by pytoniq's schemas."""

from __future__ import annotations

from functools import cache
from typing import Any

from pytoniq_core import TlGenerator

_ERROR = bytes.fromhex("bba9e148")[::-1]  # liteServer.error code:int message:string


class Malformed(Exception):
    """The bytes are no TL object that we know."""


def encode(name: str, **fields: object) -> bytes:
    """A boxed object."""
    encoded: bytes = _schemas().serialize(name, fields)
    return encoded


def encode_error(code: int, message: str) -> bytes:
    """A `liteServer.error`, by hand because pytoniq's encoder leaves strings out."""
    text: bytes = _schemas().serialize_field("bytes", message.encode())
    return _ERROR + code.to_bytes(4, "little", signed=True) + text


def decode(data: bytes) -> tuple[str, dict[str, Any], bytes]:
    """Name, fields and the bytes that follow. Raises `Malformed`."""
    try:
        decoded, used = _schemas().deserialize(data)
    except Exception as error:  # the decoder raises many kinds
        raise Malformed("not a TL object") from error
    if not isinstance(decoded, dict):
        raise Malformed("unknown TL constructor")
    if used > len(data):  # the decoder takes what there is and goes on
        raise Malformed("a TL object is cut short")
    return decoded.pop("@type"), decoded, data[used:]


@cache
def _schemas() -> Any:
    schemas = TlGenerator.with_default_schemas().generate()
    schemas._auto_deserialize = False  # else it guesses that bytes which look like TL are TL
    return schemas
