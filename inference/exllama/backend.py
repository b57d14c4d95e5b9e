"""SEAM: what the adapter asks of ExLlama. `v2` and `v3` give it, each for one release of one library.

A back end is made and used by one thread. It deals in token ids alone: what they spell is not its business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import msgspec


class Schema(msgspec.Struct, frozen=True, tag="schema"):
    """An answer that is JSON of a schema, the text of which this is."""

    text: str


class Words(msgspec.Struct, frozen=True, tag="words"):
    """An answer that is these ids, and then ends."""

    ids: tuple[int, ...]


Held = Schema | Words
"""What an answer can be held to."""


class Rule(Protocol):
    """Has one answer held. Used by one thread at a time, and never raises: the other answers would suffer."""

    def allowed(self) -> bytes:
        """A byte for each id: 0 where it may not come next. Ids beyond may not, either. One at least may."""
        ...

    def take(self, token: int) -> None:
        """This one came."""
        ...


class Sampling(NamedTuple):
    """How tokens are drawn. Temperature 0 is greedy. All else is as OpenAI has it: no penalties, no top-k."""

    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    top_logprobs: int | None = None  # how many of the likeliest are told with each token; None: no logprobs at all
    held: Held | None = None


class Likely(NamedTuple):
    """How likely the model finds a token, and the likeliest in its place, best first: logprobs at temperature 1."""

    logprob: float
    top: tuple[tuple[int, float], ...]


End = Literal["", "stop", "length", "failed"]


class Step(NamedTuple):
    """What a turn gave for one job: ids that will not be taken back.

    A token that stops the answer is not among `tokens`. After any end the job is forgotten; `failed` is about it alone.
    """

    job: int
    tokens: tuple[int, ...]
    end: End = ""
    cached_tokens: int = 0  # of the prompt, those that needed no work
    likely: tuple[Likely, ...] = ()  # where they were asked for: one for each token, and for one that stops the answer


class Backend(Protocol):
    """A loaded model and its generator. Any method may raise anything; then the generator is in no known state."""

    def start(self, job: int, prompt: Sequence[int], sampling: Sampling, rule: Rule | None) -> None:
        """Queue a job; it begins when there is room in the batch and in the cache. `rule` is what it is held by."""
        ...

    def cancel(self, job: int) -> None:
        """Forget a job, if it is still known, and free its pages."""
        ...

    def turn(self) -> list[Step]:
        """One token, or a few guessed right, for each job under way, or a chunk of a prompt."""
        ...

    def rebuild(self) -> None:
        """Make the generator anew, without jobs and with an empty cache; the model stays loaded."""
        ...


def is_cuda_error(error: BaseException) -> bool:
    """Whether the GPU's context may be broken. CUDA's errors stick: only a new process gets rid of them.

    Torch has a class for them from 2.3 on, and before that says it in the text alone; so do the libraries' own calls.
    Memory that does not suffice breaks nothing.
    """
    name, text = type(error).__name__, str(error)
    return name != "OutOfMemoryError" and (name == "AcceleratorError" or "CUDA" in text or "CUBLAS" in text)
