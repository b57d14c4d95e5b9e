"""Pure: `/v1/completions`, the older endpoint: a prompt in place of messages, which here is one turn of the user's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from inference.engine import Message, Request
from p2p.gateway.bodies import MAX_CHOICES, NOT_YET, ChoicesBody, Positive, read, refuse
from p2p.gateway.calls import DONE, Call, Defaults, Outcome, Piece, data
from p2p.gateway.chat import usage_of
from p2p.gateway.failures import Failure, invalid

MAX_TOKENS = 16  # of an answer of which the caller does not say how long it may be, as OpenAI has it
MAX_LOGPROBS = 5


class CompletionBody(ChoicesBody, frozen=True, kw_only=True):
    """What is looked at of the body."""

    prompt: str | Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=MAX_CHOICES)]
    max_tokens: Positive | None = None
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=MAX_LOGPROBS)] | None = None
    best_of: int | None = None
    echo: bool | None = None
    suffix: str | None = None


class Completion:
    """How its answer is said. See `calls.Dialect`."""

    def __init__(self, body: CompletionBody, defaults: Defaults) -> None:
        self._body = body
        self._id = f"cmpl-{defaults.answer_id}"
        self._created = defaults.created
        self._usage = body.wants_usage

    def whole(self, outcome: Outcome) -> dict[str, Any]:
        choices = [self._choice(index, one.whole, one.finish_reason) for index, one in enumerate(outcome.choices)]
        return self._said(choices) | {"usage": usage_of(outcome), "bombyx": outcome.bombyx}

    def opening(self) -> Sequence[bytes]:
        return []

    def piece(self, index: int, piece: Piece) -> Sequence[bytes]:
        return [data(self._said([self._choice(index, piece, None)]))]

    def begun(self, index: int, bombyx: Mapping[str, Any]) -> Sequence[bytes]:
        return []

    def closing(self, outcome: Outcome) -> Sequence[bytes]:
        said = {"bombyx": outcome.bombyx}
        events = [
            data(self._said([self._choice(index, Piece(), one.finish_reason)]) | said)
            for index, one in enumerate(outcome.choices)
        ]
        if self._usage:
            events.append(data(self._said([]) | {"usage": usage_of(outcome)} | said))
        return [*events, DONE]

    def failed(self, failure: Failure) -> Sequence[bytes]:
        return [data(failure.body), DONE]

    def _choice(self, index: int, piece: Piece, reason: str | None) -> dict[str, Any]:
        logprobs = None if self._body.logprobs is None else _said_logprobs(piece)
        return {"index": index, "text": piece.text, "logprobs": logprobs, "finish_reason": reason}

    def _said(self, choices: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "text_completion",
            "created": self._created,
            "model": self._body.model,
            "choices": choices,
        }


def read_completion(body: bytes, defaults: Defaults) -> tuple[Call, Completion]:
    """What is wanted. Raises `Rejected`."""
    asked = read(body, CompletionBody)
    more = (asked.best_of or 1) > (asked.n or 1)
    refuse({"best_of": more, "echo": asked.echo, "suffix": asked.suffix}, NOT_YET)
    asked.refuse_penalties()
    prompts = (asked.prompt,) if isinstance(asked.prompt, str) else asked.prompt
    if len(prompts) * (asked.n or 1) > MAX_CHOICES:
        raise invalid(f"{MAX_CHOICES} answers at most", param="n")
    requests = tuple(request for prompt in prompts for request in asked.choices(_request(asked, prompt), defaults.seed))
    return Call(requests, bool(asked.stream)), Completion(asked, defaults)


def _request(asked: CompletionBody, prompt: str) -> Request:
    return Request(
        model=asked.model,
        messages=(Message("user", prompt),),
        max_tokens=asked.max_tokens or MAX_TOKENS,
        top_logprobs=asked.logprobs,
    )


def _said_logprobs(piece: Piece) -> dict[str, Any]:
    told = piece.logprobs
    return {
        "tokens": [one.token for one in told],
        "token_logprobs": [one.logprob for one in told],
        "top_logprobs": [dict(one.top) for one in told],
        "text_offset": [],
    }
