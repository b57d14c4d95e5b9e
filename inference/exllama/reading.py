"""Core: makes the pieces of an answer of the token ids that a generator gives."""

from __future__ import annotations

from collections.abc import Callable

from inference.engine import Delta, Finished, FinishReason, Request, Usage
from inference.exllama.backend import Step
from inference.stopping import StopFilter

Spell = Callable[[int], str]
"""What became readable with an id, which is nothing while that ends inside a character."""


class Reading:
    """One answer. Stop strings and the limit are found here, so that they mean the same as for any other engine."""

    def __init__(self, request: Request, prompt_tokens: int, spell: Spell, hidden: frozenset[int]) -> None:
        """`hidden` are ids that stand for no text, such as the marks between turns."""
        self._prompt_tokens = prompt_tokens
        self._left = request.max_tokens
        self._spell = spell
        self._hidden = hidden
        self._filter = StopFilter(request.stop)
        self._completion_tokens = 0
        self.done = False

    def feed(self, step: Step) -> list[Delta | Finished]:
        """What a step brings. Once `done` the job may be called off, and more steps bring nothing."""
        if self.done:
            return []
        pieces = [piece for token in step.tokens if (piece := self._take(token))]
        reason: FinishReason | None = None
        if self._filter.stopped:
            reason = "stop"
        elif step.end or not self._left:  # what was guessed ahead may go beyond the limit, an end included
            reason = "stop" if step.end == "stop" and self._left else "length"
            pieces += [piece for piece in (self._filter.flush(),) if piece]
        return [*self._joined(pieces), *self._finished(reason, step.cached_tokens)]

    def _take(self, token: int) -> Delta | None:
        if self._filter.stopped or not self._left:
            return None
        self._left -= 1
        if token in self._hidden:
            return None
        return self._filter.feed(self._spell(token), 1)

    def _joined(self, pieces: list[Delta]) -> list[Delta]:
        if not pieces:
            return []
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
