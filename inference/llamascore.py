"""Core: how llama-server is made to read a text of somebody else's, and what its chunks say of each token.

It has no call for that (`echo` is refused). So it is let to answer under a grammar that knows only this text, and tells
for each token the likelihood that it had before the grammar ruled. The grammar names tokens, those that the tokenizer
makes of the text: left to spell it, a model takes shorter ones where a word surprises it. Only what several tokens make
a character of, it spells itself, because llama.cpp's grammars know no halves of characters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import msgspec

from inference.engine import Figures, Request, Scored
from inference.errors import BadRequest
from inference.llamachunks import check_chunk, completion_body

# The likeliest tokens, told apart; the rest of the vocabulary counts as one outcome. Each costs time, and of a greedy
# answer only the very likeliest matter.
_TOLD_APART, _TOLD_APART_GREEDILY = 64, 8
_LOGPROB_MIN = -50.0  # what is said of a token of which there is no trace


class Piece(msgspec.Struct, frozen=True):
    """A token of a text, as llama-server's `/tokenize` names it: its bytes where they are no whole characters."""

    id: int
    piece: str | list[int]

    @property
    def bytes_(self) -> bytes:
        return self.piece.encode() if isinstance(self.piece, str) else bytes(self.piece)


class Reading:
    """One text read after a prompt: what is asked of llama-server, and the figures from the chunks of its answer."""

    def __init__(self, request: Request, pieces: Sequence[Piece]) -> None:
        self._temperature = request.temperature
        self._pieces = pieces[: request.max_tokens]
        self._whole = len(self._pieces) == len(pieces)
        self._text = b"".join(one.bytes_ for one in pieces)
        self._at = 0  # in the text, of what is read
        self._astray_to = 0  # up to where our tokens may not be those that the model drew
        self._figures: list[Figures] = []
        self._end: Figures | None = None
        self.done = False

    def body(self, prompt: Sequence[int], slot: int) -> dict[str, Any]:
        """Raises `BadRequest` where there is not one character to be read."""
        grammar = " ".join(_grammar(self._pieces))
        if not grammar:
            raise BadRequest("a text to be scored must have a character")
        return completion_body(prompt, slot) | {
            "n_predict": 1 + sum(len(one.bytes_) for one in self._pieces),  # at most, and the end
            "grammar": f"root ::= {grammar}",
            "temperature": 0.0,
            "n_probs": _TOLD_APART if self._temperature else _TOLD_APART_GREEDILY,
            "post_sampling_probs": False,
        }

    def feed(self, chunk: dict[str, Any]) -> None:
        """Raises `EngineError`."""
        check_chunk(chunk)
        choice = chunk["choices"][0]
        for token in (choice["logprobs"] or {}).get("content", ()):
            best = [one["logprob"] for one in token["top_logprobs"]]
            spelling = self._likeliest_spelling(token)
            found = figures(best, spelling["logprob"], self._temperature)
            if token["token"]:
                self._figures.append(self._unless_astray(found))
                self._go_on(len(token["bytes"]), len(spelling["bytes"]))
            elif self._whole:
                self._end = found
        self.done = choice["finish_reason"] is not None

    def _likeliest_spelling(self, token: dict[str, Any]) -> dict[str, Any]:
        """This token, or a likelier one that spells the same text in another way.

        What a model drew as two line feeds at an answer's end, say, is one token to who has but the text.
        """
        if not token["token"]:  # the end
            return token
        left = self._text[self._at :]
        spellings = [one for one in token["top_logprobs"] if one["bytes"] and left.startswith(bytes(one["bytes"]))]
        return max([token, *spellings], key=itemgetter("logprob"))

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
        return Scored(len(self._pieces), tuple(self._figures), self._end)


def _grammar(pieces: Sequence[Piece]) -> list[str]:
    """These tokens one after the other, in llama.cpp's notation. A character that is begun at the end is left out."""
    spelt, begun = [], b""
    for one in pieces:
        if isinstance(one.piece, str) and not begun:
            spelt.append(f"<[{one.id}]>")
            continue
        begun += one.bytes_
        try:
            spelt.append(_quoted(begun.decode()))
        except UnicodeDecodeError:
            continue
        begun = b""
    return spelt


def _quoted(text: str) -> str:
    escaped = (f"\\x{ord(one):02x}" if one < " " or one in '"\\\x7f' else one for one in text)
    return f'"{"".join(escaped)}"'


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
