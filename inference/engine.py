"""SEAM: what Bombyx asks of an engine. One file per engine gives it; `worker.py` gives it from a child process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol

import msgspec

FinishReason = Literal["stop", "length"]
CONTINUE = "continue"
"""A model's feature: it goes on with an answer that is begun. See `Engine.generate`."""
SCORE = "score"
"""A model's feature: it says how likely it finds a text of somebody else's. See `Engine.score`."""
ESTIMATES = "estimates"
"""A model's feature, or the lack of one: what runs it does not say how many tokens a text has, so that is estimated."""


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One answer to generate. Everything that decides the answer is in here, so that it can be repeated.

    Where the last message is the assistant's, the answer is begun, and it is its continuation that is asked for.
    """

    model: str
    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float = 0.0  # 0 is greedy
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()

    @property
    def continues(self) -> bool:
        """Whether an answer is to be gone on with."""
        return bool(self.messages) and self.messages[-1].role == "assistant"

    def rest(self, text: str, tokens: int) -> Request:
        """What is left of it after `text`, of so many tokens, has come; there must be something of both."""
        assert text
        messages, said = self.messages, ""
        if self.continues:
            messages, said = self.messages[:-1], self.messages[-1].content
        begun = (*messages, Message("assistant", said + text))
        return msgspec.structs.replace(self, messages=begun, max_tokens=self.max_tokens - tokens)


class Delta(msgspec.Struct, frozen=True, tag="delta"):
    """Text that became final, and how many token ids it stands for (ends and hidden tokens not counted).

    A token that ends inside a character gives its text with a later one, so `tokens` may lead `text`.
    """

    text: str
    tokens: int


class Usage(msgspec.Struct, frozen=True):
    """Token counts of one request. `cached_tokens` are those prompt tokens that needed no work."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """The last item of every answer. `usage.completion_tokens` is the sum of all `Delta.tokens`."""

    reason: FinishReason
    usage: Usage


class Figures(msgspec.Struct, frozen=True, array_like=True):
    """How a model finds one token where it stands. All are in nats, but for the variance, in nats squared.

    They are of the distribution that the request draws from; where it is greedy, of the model's own, at temperature 1.
    """

    logprob: float  # of this token
    best: float  # of the likeliest
    mean: float  # what is to be expected of a token that is drawn: the negative entropy
    variance: float  # of the same


class Scored(msgspec.Struct, frozen=True):
    """How a model finds a text: as its answer to a request.

    `tokens` are as many as it takes to spell it. There are figures for each that completes a character; `end` are those
    of ending there, if the text was read to its end.
    """

    tokens: int
    figures: tuple[Figures, ...]
    end: Figures | None = None


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A model as it is offered. `features` is what not all can do.

    `digest` is the SHA-256 of the weights, in hex; empty where nobody here has seen them.
    """

    id: str
    family: str
    quantisation: str
    digest: str
    context: int
    features: tuple[str, ...] = ()


class Capacity(msgspec.Struct, frozen=True):
    """Answers that can be generated side by side, and how many of those places are free now."""

    free: int
    total: int


class Engine(Protocol):
    """Generates answers. Made by its module's `open_*` async context manager, which loads and unloads it.

    Raises only `inference.errors`: `BadRequest` and `ContextOverflow` for the request's fault, `ModelMissing`,
    `EngineDied` when its process ended, `EngineError` for the rest.
    """

    def models(self) -> tuple[ModelInfo, ...]:
        """What is loaded, the same for the engine's life."""
        ...

    def capacity(self) -> Capacity:
        """Free and total places, right now."""
        ...

    async def health(self) -> None:
        """Return if the engine would take a request now; raise `EngineError` otherwise."""
        ...

    async def count(self, model: str, messages: tuple[Message, ...]) -> int:
        """The exact number of prompt tokens, the chat template's own included; see `ESTIMATES`."""
        ...

    async def prefill(self, request: Request, tokens: int) -> int:
        """Work through the first `tokens` prompt tokens and keep them cached for `generate`.

        Returns how many are done: `tokens`, or the whole prompt for an engine that cannot stop half way.
        This lets a long prompt be paid in steps.
        """
        ...

    def generate(self, request: Request) -> AbstractAsyncContextManager[AsyncIterator[Delta | Finished]]:
        """The answer, piece by piece, ended by one `Finished`. Leaving the context cancels within one token.

        If the last message is the assistant's and the model has the feature `CONTINUE`, what comes is what follows the
        last character of that message, in the same turn: the template neither closes it nor opens another, nothing of
        it is said again, and a word may be begun in one and ended in the other. It is part of the prompt for `count`,
        `prefill` and `usage`; `max_tokens` and `stop` are about what is new. Without the feature such a request is
        `BadRequest`.
        """
        ...

    async def score(self, request: Request, text: str) -> Scored:
        """How likely `text` is as the answer to `request`, of which it reads at most `max_tokens` tokens.

        It takes a place and about the time of the answer itself. `stop` and `top_p` play no part. Needs the feature
        `SCORE`; without it, and for a text that is empty or has a NUL in it, `BadRequest`.
        """
        ...
