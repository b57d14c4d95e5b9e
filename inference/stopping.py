"""Core: ends an answer at its first stop string, and counts the tokens that were delivered up to there."""

from __future__ import annotations

from inference.engine import Delta


class StopFilter:
    """Passes an answer through, holding back text that may be the beginning of a stop string.

    A token is delivered, and so counted, when some of its text is; tokens that lie wholly in the stop string are not.
    """

    def __init__(self, stop: tuple[str, ...]) -> None:
        self._stop = stop
        self._held: list[Delta] = []
        self.stopped = False

    def feed(self, text: str, tokens: int) -> Delta | None:
        """Take the next piece of the answer; return what became final with it, if anything did."""
        if not self._stop:  # nothing is ever held back
            return Delta(text, tokens) if text or tokens else None
        self._held.append(Delta(text, tokens))
        held = "".join(piece.text for piece in self._held)
        found = [at for at in (held.find(stop) for stop in self._stop) if at >= 0]
        if found:
            self.stopped = True
            return self._release(min(found))
        return self._release(len(held) - self._unsure(held))

    def flush(self) -> Delta | None:
        """What is left at an end that is no stop string."""
        return self._release(sum(len(piece.text) for piece in self._held))

    def _unsure(self, held: str) -> int:
        """How many characters at the end of `held` may begin a stop string."""
        longest = max((len(stop) for stop in self._stop), default=1)
        return next(
            (size for size in range(min(longest - 1, len(held)), 0, -1) if held.endswith(self._beginnings(size))), 0
        )

    def _beginnings(self, size: int) -> tuple[str, ...]:
        return tuple(stop[:size] for stop in self._stop if len(stop) > size)

    def _release(self, length: int) -> Delta | None:
        """Let `length` characters go, with every token that begins in them."""
        texts: list[str] = []
        tokens = 0
        while self._held and (length or not self._held[0].text):
            piece = self._held.pop(0)
            texts.append(piece.text[:length])
            tokens += piece.tokens
            if len(piece.text) > length:
                self._held.insert(0, Delta(piece.text[length:], 0))
            length = max(0, length - len(piece.text))
        return Delta("".join(texts), tokens) if tokens or any(texts) else None
