from __future__ import annotations

import json
from typing import Any

import pytest

from inference.errors import BadRequest
from inference.schemas import MAX_BYTES, MAX_ITEMS, MAX_LENGTH, read_object, read_schema

TREE = {
    "type": "object",
    "properties": {"title": {"type": "string"}, "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
    "required": ["title"],
    "additionalProperties": False,
}
DEEP = '{"items":' * 40 + "{}" + "}" * 40


def test_what_binds_is_kept_and_what_describes_is_left_out() -> None:
    described: dict[str, Any] = TREE | {"title": "A tree", "$schema": "x", "default": {}, "x-hint": 1}
    assert read_schema(json.dumps(described)) == TREE
    assert read_schema('{"format": "uri"}') == {}
    numbers = {"type": ["integer", "null"], "minimum": -1, "multipleOf": 2, "format": "email", "const": None}
    assert read_schema(json.dumps(numbers)) == numbers
    lists = {"type": "array", "prefixItems": [{"enum": [None]}, True], "items": False, "maxItems": MAX_ITEMS}
    assert read_schema(json.dumps(lists)) == lists
    text = {"type": "string", "maxLength": MAX_LENGTH, "pattern": "^[a-z]{1,999}$"}
    assert read_schema(json.dumps(text)) == text


@pytest.mark.parametrize(
    "schema",
    [
        "secret",
        "[]",
        DEEP,
        json.dumps({"title": "s" * MAX_BYTES}),
        '{"maxItems": 4097}',
        '{"minItems": -1}',
        '{"minItems": true}',
        '{"minItems": 1.5}',
        '{"maxLength": 65537}',
        '{"items": {"anyOf": [{"maxItems": 1000000000}]}}',
        '{"minimum": 1e300}',
        '{"minimum": "secret"}',
        '{"type": "secret"}',
        '{"type": []}',
        '{"type": [["object"]]}',
        '{"enum": []}',
        '{"enum": {"secret": 1}}',
        '{"required": "secret"}',
        '{"properties": ["secret"]}',
        '{"properties": {"a": "secret"}}',
        '{"anyOf": []}',
        '{"$ref": "http://secret"}',
        '{"pattern": 5}',
        '{"pattern": "a{1,9999}"}',
        json.dumps({"pattern": "s" * 257}),
        '{"uniqueItems": true}',
        '{"$defs": {"a": {"not": {}}}}',
    ],
)
def test_what_no_grammar_is_made_of_is_refused_without_quoting_it(schema: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read_schema(schema)
    assert "secret" not in str(caught.value)


def test_an_object_may_say_anything_that_is_not_too_large() -> None:
    assert read_object('{"uniqueItems": 5}', "it") == {"uniqueItems": 5}
    with pytest.raises(BadRequest, match="it: nested"):
        read_object(DEEP, "it")
