"""Pure: what callers ask for, whatever the endpoint, and what there is to tell them afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Protocol, TypeVar

import msgspec

from inference.engine import FinishReason, Request
from p2p.gateway.failures import Failure, invalid

MAX_CHOICES = 8
MAX_STOPS = 16
SEEDS = 1 << 31  # what every engine's random generator takes

Positive = Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]
Temperature = Annotated[float, msgspec.Meta(ge=0, le=2)]
Probability = Annotated[float, msgspec.Meta(gt=0, le=1)]
Stops = str | Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_STOPS)]

T = TypeVar("T", bound=msgspec.Struct)


@dataclass(frozen=True)
class Defaults:
    """What a request does not say."""

    seed: int


@dataclass(frozen=True)
class Call:
    """One HTTP request, understood: `n` answers to `request`, which differ in their seed.

    Its `max_tokens` is 0 where the caller does not say how long an answer may be.
    """

    request: Request
    n: int = 1
    stream: bool = False

    @property
    def requests(self) -> Sequence[Request]:
        """One for each answer."""
        seeds = ((self.request.seed + number) % SEEDS for number in range(self.n))
        return [msgspec.structs.replace(self.request, seed=seed) for seed in seeds]

    def limited(self, max_tokens: int) -> Call:
        """The same with answers of so many tokens at most."""
        return replace(self, request=msgspec.structs.replace(self.request, max_tokens=max_tokens))


@dataclass(frozen=True)
class Choice:
    """One finished answer."""

    text: str
    finish_reason: FinishReason


@dataclass(frozen=True)
class Outcome:
    """All of them, what they took, and what Bombyx has to say of them."""

    choices: Sequence[Choice]
    prompt_tokens: int
    completion_tokens: int
    bombyx: Mapping[str, Any]


class Dialect(Protocol):
    """How one endpoint says it: as one body, or as the data of server-sent events. Without I/O."""

    def whole(self, outcome: Outcome) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        ...

    def opening(self) -> Sequence[bytes]:
        """The events before the first text."""
        ...

    def piece(self, index: int, text: str) -> Sequence[bytes]:
        """More text of one choice."""
        ...

    def closing(self, outcome: Outcome) -> Sequence[bytes]:
        """The events after the last text."""
        ...

    def failed(self, failure: Failure) -> Sequence[bytes]:
        """The last events of a stream that broke off."""
        ...


def read(body: bytes, kind: type[T]) -> T:
    """The JSON of a request. Raises `Rejected` with the place of the first thing that is wrong."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        missing = what.partition("missing required field `")[2].rstrip("`")
        param = (where.strip("`.") + "." + missing).strip(".") or None
        raise invalid(what, param=param, code="missing_required_parameter" if missing else "invalid_value") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise invalid("the body is not valid JSON", code="invalid_json") from None


def stops(stop: Stops | None) -> tuple[str, ...]:
    """One or many. Raises `Rejected` for an empty one."""
    found = () if stop is None else (stop,) if isinstance(stop, str) else stop
    if "" in found:
        raise invalid("a stop string must not be empty", param="stop")
    return found


def refuse(given: Mapping[str, Any], why: str) -> None:
    """Raises `Rejected` for the first that is given: what would be ignored without a word is said instead."""
    for param, value in given.items():
        if value:
            raise invalid(f"{param} {why}", param=param, code="unsupported_parameter")


def data(body: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


DONE = b"data: [DONE]\n\n"
