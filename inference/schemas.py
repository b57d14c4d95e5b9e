"""Core: JSON schemas that answers can be held to. They come from strangers, and engines make grammars of them.

A grammar grows with the counts in its schema until no memory is left, and what an engine cannot make a grammar of, it
drops without a word. So what would be dropped is refused here, and what only describes is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from inference.errors import BadRequest

MAX_BYTES = 1 << 16
MAX_DEPTH = 32
MAX_ITEMS = 4096
MAX_LENGTH = 1 << 16
MAX_PATTERN = 256
MAX_NUMBER = 1 << 53

_TYPES = {"object", "array", "string", "integer", "number", "boolean", "null"}
# Others are descriptions, says the standard, and llama.cpp's grammars know none that is not here.
_FORMATS = {"date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
_NOT_KEPT_TO = {
    "not",
    "if",
    "contains",
    "dependentRequired",
    "dependentSchemas",
    "patternProperties",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
    "uniqueItems",
}


def read_object(text: str, what: str) -> dict[str, Any]:
    """A JSON object that is neither large nor deep. Raises `BadRequest`."""
    if len(text.encode()) > MAX_BYTES:
        raise BadRequest(f"{what}: {MAX_BYTES} bytes are the most")
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise BadRequest(f"{what} must be a JSON object")
    if _depth(value) > MAX_DEPTH:
        raise BadRequest(f"{what}: nested {MAX_DEPTH} deep at most")
    return value


def read_schema(text: str) -> dict[str, Any]:
    """A schema of which a grammar can be made, without its descriptions. Raises `BadRequest`."""
    return _object(read_object(text, "a schema"))


def _depth(value: Any) -> int:
    """Levels of objects and arrays, looked at one after the other: a hostile one must not fill the stack."""
    level, depth = [value], 0
    while level := [one for one in level if isinstance(one, dict | list)]:
        level = [item for one in level for item in (one.values() if isinstance(one, dict) else one)]
        depth += 1
    return depth


def _object(schema: dict[str, Any]) -> dict[str, Any]:
    for key in sorted(_NOT_KEPT_TO & schema.keys()):
        raise BadRequest(f"an answer cannot be held to a schema with {key}")
    return {key: _READ[key](value) for key, value in schema.items() if key in _READ and _binds(key, value)}


def _binds(key: str, value: Any) -> bool:
    """A format that is not known is a description, too."""
    return key != "format" or (isinstance(value, str) and value in _FORMATS)


def _schema(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    _require(isinstance(value, dict), "a schema in it is none")
    return _object(value)


def _each(value: Any) -> list[Any]:
    _require(isinstance(value, list) and bool(value), "a list of schemas in it is none")
    return [_schema(one) for one in value]


def _named(value: Any) -> dict[str, Any]:
    _require(isinstance(value, dict), "properties in it are none")
    return {name: _schema(one) for name, one in value.items()}


def _type(value: Any) -> Any:
    types = value if isinstance(value, list) else [value]
    _require(bool(types) and all(isinstance(one, str) and one in _TYPES for one in types), "it has an unknown type")
    return value


def _values(value: Any) -> Any:
    _require(isinstance(value, list) and bool(value), "it has an enum that is no list")
    return value


def _names(value: Any) -> Any:
    _require(isinstance(value, list) and all(isinstance(one, str) for one in value), "its required are no names")
    return value


def _pattern(value: Any) -> Any:
    _require(isinstance(value, str) and len(value) <= MAX_PATTERN, f"a pattern has at most {MAX_PATTERN} characters")
    _require(not re.search(r"\d{4}", value), "a pattern repeats at most 999 times")
    return value


def _reference(value: Any) -> Any:
    _require(isinstance(value, str) and value.startswith("#"), "a $ref in it begins with #")
    return value


def _as_it_is(value: Any) -> Any:
    return value


def _number(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    _require(is_number and abs(value) <= MAX_NUMBER, f"its numbers are {MAX_NUMBER} at most")
    return value


def _count(most: int) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        is_count = isinstance(value, int) and not isinstance(value, bool)
        _require(is_count and 0 <= value <= most, f"its counts are {MAX_ITEMS} items and {MAX_LENGTH} characters most")
        return value

    return read


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise BadRequest(f"an answer cannot be held to that schema: {what}")


_READ: dict[str, Callable[[Any], Any]] = {
    "type": _type,
    "enum": _values,
    "const": _as_it_is,
    "properties": _named,
    "required": _names,
    "additionalProperties": _schema,
    "minProperties": _count(MAX_ITEMS),
    "maxProperties": _count(MAX_ITEMS),
    "items": _schema,
    "prefixItems": _each,
    "minItems": _count(MAX_ITEMS),
    "maxItems": _count(MAX_ITEMS),
    "minLength": _count(MAX_LENGTH),
    "maxLength": _count(MAX_LENGTH),
    "pattern": _pattern,
    "format": _as_it_is,
    "minimum": _number,
    "maximum": _number,
    "exclusiveMinimum": _number,
    "exclusiveMaximum": _number,
    "multipleOf": _number,
    "anyOf": _each,
    "oneOf": _each,
    "allOf": _each,
    "$ref": _reference,
    "$defs": _named,
    "definitions": _named,
}
