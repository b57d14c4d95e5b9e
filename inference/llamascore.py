"""Core: how llama-server is made to read a text of somebody else's, and what its chunks say of each token.

It has no call for that (`echo` is refused). So it is let to answer under a grammar that knows only this text, and tells
for each token the likelihood that it had before the grammar ruled. It spells the text as it likes best itself, which
need not be the spelling of whoever wrote it; the one is about as likely as the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from inference.engine import Figures, Request, Scored
from inference.llamachunks import check_chunk, completion_body

# The likeliest tokens, told apart; the rest of the vocabulary counts as one outcome.
_TOLD_APART = 64
_LOGPROB_MIN = -50.0  # what is said of a token of which there is no trace


def score_body(request: Request, prompt: Sequence[int], slot: int, text: str) -> dict[str, Any]:
    """Read `text` after `prompt`."""
    return completion_body(prompt, slot) | {
        "n_predict": request.max_tokens + 1,  # and the end
        "grammar": _only(text),
        "temperature": 0.0,
        "n_probs": _TOLD_APART,
        "post_sampling_probs": False,
    }


def _only(text: str) -> str:
    """A grammar of this text alone, in llama.cpp's notation."""
    spelt = (f"\\x{ord(one):02x}" if one < " " or one in '"\\\x7f' else one for one in text)
    return f'root ::= "{"".join(spelt)}"'


class ScoreReader:
    """Collects the figures from the chunks of one reading."""

    def __init__(self, request: Request) -> None:
        self._temperature = request.temperature
        self._max_tokens = request.max_tokens
        self._figures: list[Figures] = []
        self._end: Figures | None = None
        self._tokens = 0
        self.done = False

    def feed(self, chunk: dict[str, Any]) -> None:
        """Raises `EngineError`."""
        check_chunk(chunk)
        choice = chunk["choices"][0]
        for token in (choice["logprobs"] or {}).get("content", ()):
            found = figures([one["logprob"] for one in token["top_logprobs"]], token["logprob"], self._temperature)
            if token["token"]:
                self._figures.append(found)
            else:
                self._end = found
        self._tokens = chunk["timings"]["predicted_n"]
        self.done = choice["finish_reason"] is not None

    @property
    def scored(self) -> Scored:
        ended = self._end is not None
        tokens = min(self._tokens - ended, self._max_tokens)
        return Scored(tokens, tuple(self._figures[: self._max_tokens]), self._end)


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
