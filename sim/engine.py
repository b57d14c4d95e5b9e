"""The scripted engine's answers (`inference.script`) at the pace of a simulated machine, a few tokens to an event."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple, Protocol

from inference.engine import Delta, FinishReason, Request
from inference.script import answer
from sim.kernel import Action, Kernel


class Pace(NamedTuple):
    """How fast one slot works."""

    tokens_per_s: int
    prefill_tokens_per_s: int
    chunk_tokens: int


class Listener(Protocol):
    """Whom a job tells what came of it."""

    def prefilled(self, tokens: int) -> None: ...
    def produced(self, text: str, tokens: int) -> None: ...
    def generated(self, reason: FinishReason) -> None: ...


class Job:
    """One answer on one slot. Nothing is heard of it once it is stopped."""

    def __init__(self, kernel: Kernel, pace: Pace, request: Request, prompt_tokens: int, listener: Listener) -> None:
        self._kernel = kernel
        self._pace = pace
        self._prompt_tokens = prompt_tokens
        self._prefilled = 0
        self._pieces = pieces(request, pace.chunk_tokens)
        self._listener = listener
        self._stopped = False
        self._held = False
        self._due: Action | None = None  # what came up while held

    def prefill(self, tokens: int) -> None:
        """Work through this many prompt tokens in all."""
        self._later(self._prefill_s(tokens), partial(self._listener.prefilled, tokens))
        self._prefilled = tokens

    def generate(self) -> None:
        """Work through the rest of the prompt, then answer."""
        self._give_after(self._prefill_s(self._prompt_tokens))

    def hold(self) -> None:
        """Give nothing until `resume`."""
        self._held = True

    def resume(self) -> None:
        """Go on, at once with what is ready."""
        self._held = False
        if self._due is not None:
            due, self._due = self._due, None
            self._later(0.0, due)

    def stop(self) -> None:
        """Leave the slot."""
        self._stopped = True

    def _prefill_s(self, tokens: int) -> float:
        return (tokens - self._prefilled) / self._pace.prefill_tokens_per_s

    def _give_after(self, delay_s: float) -> None:
        piece = next(self._pieces)
        if isinstance(piece, Delta):
            self._later(delay_s + piece.tokens / self._pace.tokens_per_s, partial(self._give, piece))
        else:
            self._later(delay_s, partial(self._listener.generated, piece))

    def _give(self, piece: Delta) -> None:
        self._listener.produced(piece.text, piece.tokens)
        self._give_after(0.0)

    def _later(self, delay_s: float, action: Action) -> None:
        self._kernel.after(delay_s, partial(self._unless_idle, action))

    def _unless_idle(self, action: Action) -> None:
        if self._held and not self._stopped:
            self._due = action
        elif not self._stopped:
            action()


def pieces(request: Request, chunk_tokens: int) -> Iterator[Delta | FinishReason]:
    """The scripted answer: its first token alone, then up to `chunk_tokens` at once, then why it ended."""
    text, tokens, most = "", 0, 1
    for item in answer(request):
        if isinstance(item, Delta):
            text, tokens = text + item.text, tokens + item.tokens
        if tokens >= most or (tokens and not isinstance(item, Delta)):
            yield Delta(text, tokens)
            text, tokens, most = "", 0, chunk_tokens
        if not isinstance(item, Delta):
            yield item.reason
