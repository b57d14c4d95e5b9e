"""What llguidance makes of schemas and texts, with the embedded model's vocabulary."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from folders import tokenizer_json
from gguf import Gguf

from inference.errors import BadRequest, BadSettings
from inference.exllama.backend import Rule, Schema, Words
from inference.exllama.rules import Vocabulary
from inference.models import embedded_model

END = 2  # <|im_end|>


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary(tokenizer_json(Gguf(Path(embedded_model().path)).facts), [END])


def schema(said: dict[str, Any]) -> Schema:
    return Schema(json.dumps(said))


def allowed(rule: Rule) -> list[int]:
    return [token for token, may in enumerate(rule.allowed()) if may]


def drawn(vocabulary: Vocabulary, rule: Rule, dice: Random) -> str:
    """What may be said: any of the tokens that are allowed, each as likely as the others, until one ends it."""
    said = b""
    while (token := dice.choice(allowed(rule))) != END:
        rule.take(token)
        said += vocabulary.spelt(token)
    rule.take(END)
    assert allowed(rule), "the generator asks once more"
    return said.decode()


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "maxLength": 12},
        {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3},
        {"enum": [1, "one", None, {"a": [1]}]},
        {"type": "integer", "minimum": 17, "maximum": 29},
        {"oneOf": [{"const": 1}, {"const": "one"}]},
        {
            "type": "object",
            "properties": {"city": {"$ref": "#/$defs/city"}, "days": {"enum": [1, 2]}},
            "required": ["city", "days"],
            "additionalProperties": False,
            "$defs": {"city": {"type": "string", "pattern": "^[A-Z][a-z]{1,9}$"}},
        },
    ],
    ids=["string", "array", "enum", "integer", "oneOf", "object"],
)
def test_whatever_may_be_said_is_json_of_the_schema(vocabulary: Vocabulary, schema: dict[str, Any]) -> None:
    for seed in range(20):
        assert_is(json.loads(drawn(vocabulary, vocabulary.rule(Schema(json.dumps(schema))), Random(seed))), schema)


def assert_is(value: Any, schema: dict[str, Any]) -> None:
    match schema:
        case {"type": "string"}:
            assert isinstance(value, str)
            assert len(value) <= 12
        case {"type": "array"}:
            assert 2 <= len(value) <= 3
            assert all(isinstance(one, bool) for one in value)
        case {"enum": values}:
            assert value in values
        case {"type": "integer"}:
            assert value in range(17, 30)
        case {"oneOf": _}:
            assert value in (1, "one")
        case _:
            assert value.keys() == {"city", "days"}
            assert value["city"].isalpha()
            assert value["days"] in (1, 2)


@pytest.mark.parametrize("text", ['{"a":1}', '{"a": 1}', '{\n  "a": 1\n}'])
def test_json_may_be_written_in_one_line_or_in_several(vocabulary: Vocabulary, text: str) -> None:
    rule = vocabulary.rule(schema({"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}))
    for token in [*vocabulary.ids(text), END]:
        assert token in allowed(rule)
        rule.take(token)


def test_blanks_come_to_an_end(vocabulary: Vocabulary) -> None:
    rule = vocabulary.rule(schema({"type": "object"}))
    for token in vocabulary.ids("{\n" + 20 * " "):
        rule.take(token)
    assert all(vocabulary.spelt(token).strip() for token in allowed(rule))


@pytest.mark.parametrize("pattern", ["(?=a)b", r"(a)\1", "("])
def test_what_no_grammar_can_be_made_of_is_refused(vocabulary: Vocabulary, pattern: str) -> None:
    with pytest.raises(BadRequest, match=r"cannot be held to that schema$"):
        vocabulary.rule(schema({"type": "string", "pattern": pattern}))


def test_what_is_too_much_may_only_end_and_nothing_is_said_of_it(
    vocabulary: Vocabulary, capfd: pytest.CaptureFixture[str]
) -> None:
    endless = vocabulary.rule(schema({"$ref": "#/$defs/x", "$defs": {"x": {"$ref": "#/$defs/x"}}}))
    assert allowed(endless) == [END]
    astray = vocabulary.rule(schema({"type": "object"}))
    astray.take(vocabulary.ids("secret")[0])
    assert allowed(astray) == [END]
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.parametrize("text", ["Red.", " a 🦋\n\n漢字", "<|im_end|>", "\x7f\t"])
def test_a_text_is_read_as_it_stands(vocabulary: Vocabulary, text: str) -> None:
    ids = vocabulary.ids(text)
    assert END not in ids, "what looks like a mark is none"
    assert b"".join(map(vocabulary.spelt, ids)) == text.encode()
    rule = vocabulary.rule(Words(tuple(ids)))
    for token in [*ids, END]:
        assert allowed(rule) == [token]
        rule.take(token)
    assert allowed(rule) == [END]


def test_a_tokenizer_of_no_known_kind() -> None:
    with pytest.raises(BadSettings, match=r"tokenizer\.json"):
        Vocabulary('{"version": "1.0"}', [END])
