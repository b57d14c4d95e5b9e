"""Core: makes the pieces of an answer, or the figures of a text, of the token ids that a generator gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from inference.engine import Delta, Finished, FinishReason, Request, Scored, Usage
from inference.exllama.backend import Likely, Step
from inference.form import Calls, HeldToJson, ToldLogprobs
from inference.records import TokenLogprob
from inference.scoring import TextReading, Told
from inference.stopping import StopFilter


class Spelling(NamedTuple):
    """How ids read."""

    spell: Callable[[int], str]
    """What became readable with the next id of the answer, which is nothing while that ends inside a character."""
    alone: Callable[[int], str]
    """An id by itself."""
    hidden: frozenset[int]
    """Ids that stand for no text, such as the marks between turns."""


class Reading:
    """One answer. Stop strings and the limit are found here, so that they mean the same as for any other engine."""

    def __init__(self, request: Request, prompt_tokens: int, spelling: Spelling) -> None:
        self._prompt_tokens = prompt_tokens
        self._left = request.max_tokens
        self._spelling = spelling
        self._filter = StopFilter(request.stop)
        self._held = HeldToJson(request)
        self._calls = Calls(request)
        self._logprobs = ToldLogprobs(request)
        self._completion_tokens = 0
        self.done = False

    def feed(self, step: Step) -> list[Delta | Finished]:
        """What a step brings. Once `done` the job may be called off, and more steps bring nothing.

        Raises `EngineError`.
        """
        if self.done:
            return []
        pieces = [self._take(step, at) for at in range(len(step.tokens))]
        reason: FinishReason | None = None
        if step.end or not self._left:  # what was guessed ahead may go beyond the limit, an end included
            reason = "stop" if step.end == "stop" and self._left else "length"
        self._held.heard("", reason)
        if self._filter.stopped:
            reason = "stop"
        elif reason:
            pieces.append(self._filter.flush())
        return [*self._joined(self._calls.found(pieces, reason)), *self._finished(reason, step.cached_tokens)]

    def _take(self, step: Step, at: int) -> Delta | None:
        token = step.tokens[at]
        if self._filter.stopped or not self._left:
            return None
        self._left -= 1
        if token in self._spelling.hidden:
            return None
        if step.likely:
            self._logprobs.heard([self._told(token, step.likely[at])])
        text = self._spelling.spell(token)
        self._held.heard(text)
        return self._filter.feed(text, 1)

    def _told(self, token: int, likely: Likely) -> TokenLogprob:
        alone = self._spelling.alone
        return TokenLogprob(alone(token), likely.logprob, tuple((alone(other), found) for other, found in likely.top))

    def _joined(self, pieces: list[Delta]) -> list[Delta]:
        if not pieces:
            return []
        pieces = [self._logprobs.behind(piece) for piece in pieces]
        tokens = sum(piece.tokens for piece in pieces)
        self._completion_tokens += tokens
        return [Delta("".join(piece.text for piece in pieces), tokens)]

    def _finished(self, reason: FinishReason | None, cached_tokens: int) -> list[Finished]:
        if reason is None:
            return []
        self.done = True
        # The last token of a prompt is always worked on, or there would be nothing to draw the first from.
        cached = min(cached_tokens, self._prompt_tokens - 1)
        return [Finished(reason, Usage(self._prompt_tokens, cached, self._completion_tokens))]


class NoReading:
    """Of what the generator says only because it must."""

    def __init__(self) -> None:
        self.done = False

    def feed(self, step: Step) -> list[Delta]:
        self.done = bool(step.end)
        return []


class ScoreReading:
    """One text that the generator was made to say."""

    def __init__(self, request: Request, ids: Sequence[int], spelt: Callable[[int], bytes]) -> None:
        self._reading = TextReading(request, [spelt(one) for one in ids])
        self._spelt = spelt
        self.done = False

    def feed(self, step: Step) -> list[Scored]:
        """All of it, with the last step."""
        for token, told in zip(step.tokens, step.likely, strict=False):
            self._heard(self._spelt(token), told)
        for told in step.likely[len(step.tokens) :]:  # of what ended it
            self._heard(b"", told)
        self.done = bool(step.end)
        return [self._reading.scored] if self.done else []

    def _heard(self, spelt: bytes, told: Likely) -> None:
        self._reading.heard(Told(spelt, told.logprob, [(self._spelt(other), found) for other, found in told.top]))
