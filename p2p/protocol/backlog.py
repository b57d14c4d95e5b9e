"""Core: what the engine gave and the window had no room for yet."""

from __future__ import annotations


class Backlog:
    """Text and the tokens that it stands for, to be handed over in parts of any size."""

    def __init__(self) -> None:
        self._text = b""
        self._tokens = 0

    def __bool__(self) -> bool:
        return bool(self._text or self._tokens)

    def add(self, text: str, tokens: int) -> None:
        """The next output. There may be text without tokens, and tokens without text."""
        self._text += text.encode()
        self._tokens += tokens

    def take(self, most_tokens: int) -> tuple[str, int]:
        """So many tokens at most, and their share of the text, which ends with a whole character."""
        tokens = min(most_tokens, self._tokens)
        end = len(self._text) if tokens == self._tokens else -(-len(self._text) * tokens // self._tokens)
        while end < len(self._text) and self._text[end] & 0xC0 == 0x80:  # in the middle of a character of UTF-8
            end += 1
        text, self._text = self._text[:end].decode(), self._text[end:]
        self._tokens -= tokens
        return text, tokens
