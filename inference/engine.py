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
TOOLS = "tools"
"""A model's feature: it can be given tools, and call them. See `Request.tools`."""
SCHEMA = "schema"
"""A model's feature: its answer can be held to a JSON schema. See `Request.schema`."""
LOGPROBS = "logprobs"
"""A model's feature: it says how likely it found each token. See `Request.top_logprobs`."""
EMBED = "embed"
"""A model's feature: it makes vectors of texts. See `Request.embed`."""


class ToolCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A call that the model made in an earlier turn; `arguments` is the text of a JSON object."""

    id: str
    name: str
    arguments: str


class Tool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the model may call; `parameters` is the text of a JSON schema."""

    name: str
    description: str = ""
    parameters: str = '{"type":"object"}'


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One turn of a conversation. A tool's turn says what came of the call `tool_call_id`."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


class Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One answer to generate. Everything that decides the answer is in here, so that it can be repeated.

    Where the last message is the assistant's, the answer is begun, and it is its continuation that is asked for.

    What an answer holds besides prose, such as calls of tools, it holds as records in its text: `inference.records`.
    """

    model: str
    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float = 0.0  # 0 is greedy
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: Literal["auto", "none", "required"] = "auto"
    tool: str = ""  # the one that is to be called, where that is required
    schema: str = ""  # the text of a JSON schema, to which the answer is held; not with tools
    top_logprobs: int | None = None  # how many likeliest tokens are told with each one's logprob; not with tools
    embed: bool = False  # no answer, but a vector for the content of each message, by itself and without a template

    @property
    def continues(self) -> bool:
        """Whether an answer is to be gone on with."""
        return bool(self.messages) and self.messages[-1].role == "assistant" and not self.embed

    @property
    def needs(self) -> frozenset[str]:
        """The features without which it cannot be answered."""
        needed = {
            CONTINUE: self.continues,
            TOOLS: bool(self.tools),
            SCHEMA: bool(self.schema),
            LOGPROBS: self.top_logprobs is not None,
            EMBED: self.embed,
        }
        return frozenset(feature for feature, needs in needed.items() if needs)

    @property
    def has_records(self) -> bool:
        """Whether there may be more than prose in the answer."""
        return bool(self.needs & {TOOLS, LOGPROBS, EMBED})

    @property
    def can_be_resumed(self) -> bool:
        """Whether another engine could go on with it half way: a grammar would begin anew, and records are no prose."""
        return not (self.schema or self.has_records)

    def rest(self, text: str, tokens: int) -> Request:
        """What is left of it after `text`, of so many tokens, has come; there must be something of both.

        The text is prose alone, and the request one that can be resumed.
        """
        assert text
        assert self.can_be_resumed
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

    async def count(self, request: Request) -> int:
        """The exact number of the request's prompt tokens, those of the chat template included; see `ESTIMATES`."""
        ...

    async def prefill(self, request: Request, tokens: int) -> int:
        """Work through the first `tokens` prompt tokens and keep them cached for `generate`.

        Returns how many are done: `tokens`, or the whole prompt for an engine that cannot stop half way. This lets a
        long prompt be paid in steps. Texts to be embedded are worked through by `generate` alone.
        """
        ...

    def generate(self, request: Request) -> AbstractAsyncContextManager[AsyncIterator[Delta | Finished]]:
        """The answer, piece by piece, ended by one `Finished`. Leaving the context cancels within one token.

        If the last message is the assistant's and the model has the feature `CONTINUE`, what comes is what follows the
        last character of that message, in the same turn: the template neither closes it nor opens another, nothing of
        it is said again, and a word may be begun in one and ended in the other. It is part of the prompt for `count`,
        `prefill` and `usage`; `max_tokens` and `stop` are about what is new.

        A request that needs a feature which the model has not is `BadRequest`.
        """
        ...

    async def score(self, request: Request, text: str) -> Scored:
        """How likely `text` is as the answer to `request`, of which it reads at most `max_tokens` tokens.

        It takes a place and about the time of the answer itself. `stop` and `top_p` play no part. Needs the feature
        `SCORE`; without it, and for a text that is empty or has a NUL in it, `BadRequest`.
        """
        ...
