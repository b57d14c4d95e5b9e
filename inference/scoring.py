"""Core: how a model finds a text of somebody else's, made of the likelihoods that it gave each of its tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import itemgetter
from typing import NamedTuple

import msgspec

from inference.engine import Figures, Request, Scored

# The likeliest tokens, told apart; the rest of the vocabulary counts as one outcome. Each costs time, and of a greedy
# answer only the very likeliest matter.
_TOLD_APART, _TOLD_APART_GREEDILY = 64, 8
_LOGPROB_MIN = -50.0  # what is said of a token of which there is no trace


def told_apart(request: Request) -> int:
    """How many of the likeliest tokens an engine is to tell in the place of each."""
    return _TOLD_APART if request.temperature else _TOLD_APART_GREEDILY


class Told(NamedTuple):
    """A token that was read, and the likeliest in its place, best first: what it spells, and logprobs at temperature 1.

    The end of an answer spells nothing.
    """

    spelt: bytes
    logprob: float
    best: Sequence[tuple[bytes, float]]


class TextReading:
    """One text read after a prompt, token by token."""

    def __init__(self, request: Request, pieces: Sequence[bytes]) -> None:
        """`pieces` are what the text's tokens spell; only as many are read as the answer may have."""
        self._temperature = request.temperature
        self._tokens = min(len(pieces), request.max_tokens)
        self._whole = self._tokens == len(pieces)
        self._text = b"".join(pieces)
        self._at = 0  # in the text, of what is read
        self._astray_to = 0  # up to where our tokens may not be those that the model drew
        self._figures: list[Figures] = []
        self._end: Figures | None = None

    def heard(self, token: Told) -> None:
        """Of the next token."""
        spelt, logprob = self._likeliest_spelling(token)
        found = figures([one for _, one in token.best], logprob, self._temperature)
        if token.spelt:
            self._figures.append(self._unless_astray(found))
            self._go_on(len(token.spelt), len(spelt))
        elif self._whole:
            self._end = found

    def _likeliest_spelling(self, token: Told) -> tuple[bytes, float]:
        """This token, or a likelier one that spells the same text in another way.

        What a model drew as two line feeds at an answer's end, say, is one token to who has but the text.
        """
        own = (token.spelt, token.logprob)
        if not token.spelt:  # the end
            return own
        left = self._text[self._at :]
        spellings = [one for one in token.best if one[0] and left.startswith(one[0])]
        return max([own, *spellings], key=itemgetter(1))

    def _go_on(self, size: int, drawn: int) -> None:
        """Past a token of `size` bytes, in whose place the model likes one best that has `drawn`."""
        was_astray, own_end = self._is_astray, self._at + drawn
        self._at += size
        if not was_astray:
            self._astray_to = self._at + 1 if own_end < self._at else own_end

    @property
    def _is_astray(self) -> bool:
        """Whether a greedy model that spells as it likes may have no token that begins here."""
        return self._temperature == 0 and self._at < self._astray_to

    def _unless_astray(self, found: Figures) -> Figures:
        """After what it would not have said, what a model finds of the next token says nothing."""
        return msgspec.structs.replace(found, logprob=found.best) if self._is_astray else found

    @property
    def scored(self) -> Scored:
        return Scored(self._tokens, tuple(self._figures), self._end)


def figures(best: Sequence[float], logprob: float, temperature: float) -> Figures:
    """The figures of a token for a request of `temperature`, from log-probabilities at 1: its own and the `best`.

    For a token that was drawn all that are not among the best are one outcome. At temperature 1 its probability is what
    is left over; at others it is taken to consist of tokens as likely as the last of the best, which is too much below
    1 and too little above.
    """
    best = [max(one, _LOGPROB_MIN) for one in best]
    exponent = 1 / (temperature or 1)
    powers = [math.exp((one - best[0]) * exponent) for one in best]
    left_over = max(0.0, 1 - sum(math.exp(one) for one in best))
    powers.append(left_over / math.exp(best[-1]) * powers[-1])
    logs = [math.log(power / sum(powers)) for power in powers if power > 0]
    mean = sum(math.exp(log) * log for log in logs)
    variance = sum(math.exp(log) * (log - mean) ** 2 for log in logs)
    if temperature == 0:
        return Figures(max(logprob, _LOGPROB_MIN), best[0], mean, variance)
    known = logs[0] + (logprob - best[0]) * exponent if logprob >= best[-1] else logs[-1]
    return Figures(max(known, _LOGPROB_MIN), logs[0], mean, variance)
