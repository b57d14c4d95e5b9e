"""Core: how llama-server is made to read a text of somebody else's, and what its chunks say of each token.

It has no call for that (`echo` is refused). So it is let to answer under a grammar that knows only this text, and tells
for each token the likelihood that it had before the grammar ruled. The grammar names tokens, those that the tokenizer
makes of the text: left to spell it, a model takes shorter ones where a word surprises it. Only what several tokens make
a character of, it spells itself, because llama.cpp's grammars know no halves of characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from inference.engine import Request, Scored
from inference.errors import BadRequest
from inference.llamachunks import check_chunk, completion_body
from inference.scoring import TextReading, Told, told_apart


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
        self._told_apart = told_apart(request)
        self._pieces = pieces[: request.max_tokens]
        self._reading = TextReading(request, [one.bytes_ for one in pieces])
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
            "n_probs": self._told_apart,
            "post_sampling_probs": False,
        }

    def feed(self, chunk: dict[str, Any]) -> None:
        """Raises `EngineError`."""
        check_chunk(chunk)
        choice = chunk["choices"][0]
        for token in (choice["logprobs"] or {}).get("content", ()):
            self._reading.heard(_told(token))
        self.done = choice["finish_reason"] is not None

    @property
    def scored(self) -> Scored:
        return self._reading.scored


def _told(token: dict[str, Any]) -> Told:
    """What comes without text is the end."""
    spelt = bytes(token["bytes"]) if token["token"] else b""
    return Told(spelt, token["logprob"], [(bytes(one["bytes"]), one["logprob"]) for one in token["top_logprobs"]])


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
