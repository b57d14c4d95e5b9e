"""SEAM: llguidance: which ids may come next in an answer, and the bytes that ids stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from inference.errors import BadRequest, BadSettings
from inference.exllama.backend import Held, Rule, Words

# Between the parts of a JSON text, as llama.cpp's grammars have it: without a bound, a model may fill its answer so.
_JSON: Any = {"whitespace_pattern": r" |\n[ \t]{0,20}", "coerce_one_of": True}
# What it says of a mistake would quote the answer. All else are the library's own limits, under which the worst grammar
# that was tried took a second to make, and 80 ms for a token. Where they are too little, the answer ends.
_LIMITS: dict[str, Any] = {"log_level": 0, "limits": LLParserLimits(verbose_errors=False)}


class Vocabulary:
    """Of a tokenizer, and the ids that end an answer."""

    def __init__(self, tokenizer: str, stop: Sequence[int]) -> None:
        """`tokenizer` is the content of a `tokenizer.json`. Raises `BadSettings` for a kind that is not known."""
        try:
            self._tokenizer = LLTokenizer(tokenizer, eos_token=list(stop))
        except ValueError as error:
            raise BadSettings("the model's tokenizer.json is of a kind that is not known") from error
        self._stop = stop

    def ids(self, text: str) -> list[int]:
        """Of a text in which nothing is a mark, whatever it looks like: no model said that."""
        ids = self._tokenizer.tokenize_str(text)
        if any(map(self._tokenizer.is_special_token, ids)):
            return self._tokenizer.greedy_tokenize(text)
        return ids

    def spelt(self, token: int) -> bytes:
        return self._tokenizer.decode_bytes([token])

    def rule(self, held: Held) -> Rule:
        """Takes a millisecond, and a second at most. Raises `BadRequest` for a schema that no answer can be held to."""
        if isinstance(held, Words):
            return InWords(held.ids, self._stop, self._tokenizer.vocab_size)
        grammar = LLMatcher.grammar_from_json_schema(held.text, overrides=_JSON)
        matcher = LLMatcher(self._tokenizer, grammar, **_LIMITS)
        if matcher.is_error():
            raise BadRequest("an answer cannot be held to that schema")
        return InGrammar(matcher)


class InGrammar:
    """See `inference.exllama.backend.Rule`. What is too much for the matcher may only end, and so is cut off."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def allowed(self) -> bytes:
        return self._matcher.compute_logit_bias()

    def take(self, token: int) -> None:
        self._matcher.consume_token(token)


class InWords:
    """See `inference.exllama.backend.Rule`."""

    def __init__(self, ids: Sequence[int], stop: Sequence[int], size: int) -> None:
        self._ids = ids
        self._stop = stop
        self._size = size
        self._taken = 0

    def allowed(self) -> bytes:
        allowed = bytearray(self._size)
        for one in self._ids[self._taken : self._taken + 1] or self._stop:
            allowed[one] = 1
        return bytes(allowed)

    def take(self, token: int) -> None:  # it can only be the one that was allowed
        self._taken += 1
