"""Pure: the bodies of requests, as far as the endpoints have them in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec

from inference.engine import Request, Tool
from p2p.gateway.failures import invalid

MAX_CHOICES = 8
MAX_STOPS = 16
SEEDS = 1 << 31  # what every engine's random generator takes

Positive = Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]
Temperature = Annotated[float, msgspec.Meta(ge=0, le=2)]
Probability = Annotated[float, msgspec.Meta(gt=0, le=1)]
Stops = str | Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_STOPS)]

NOT_YET = "is not supported by this gateway"

T = TypeVar("T", bound=msgspec.Struct)


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """What every body says of an answer's text. `null` is as if it were not there, as OpenAI has it."""

    model: str
    temperature: Temperature | None = None
    top_p: Probability | None = None
    stream: bool | None = None

    @property
    def sampling(self) -> dict[str, Any]:
        """As a `Request` takes it, and as the caller is told of it."""
        return {
            "temperature": 1.0 if self.temperature is None else self.temperature,
            "top_p": 1.0 if self.top_p is None else self.top_p,
        }


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None


class ChoicesBody(Body, frozen=True, kw_only=True):
    """One that may ask for several answers, and for the same ones again."""

    seed: int | None = None
    stop: Stops | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=MAX_CHOICES)] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None

    @property
    def wants_usage(self) -> bool:
        """Whether a stream is to end with what it took."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def choices(self, request: Request, seed: int) -> tuple[Request, ...]:
        """`request` as often as wanted, each with another seed; `seed` is the first one's where the caller has none.

        Raises `Rejected`.
        """
        stop = _stops(self.stop)
        first = seed if self.seed is None else self.seed
        return tuple(
            msgspec.structs.replace(request, seed=(first + number) % SEEDS, stop=stop, **self.sampling)
            for number in range(self.n or 1)
        )

    def refuse_penalties(self) -> None:
        """Raises `Rejected` for what would change the text, and cannot."""
        refuse(
            {
                "frequency_penalty": self.frequency_penalty,
                "presence_penalty": self.presence_penalty,
                "logit_bias": self.logit_bias,
            },
            NOT_YET,
        )


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


def _stops(stop: Stops | None) -> tuple[str, ...]:
    """One or many. Raises `Rejected` for an empty one."""
    found = () if stop is None else (stop,) if isinstance(stop, str) else stop
    if "" in found:
        raise invalid("a stop string must not be empty", param="stop")
    return found


def schema_text(schema: Mapping[str, Any] | None) -> str:
    """A JSON schema as an engine takes it."""
    return msgspec.json.encode(schema or {"type": "object"}).decode()


def tool_of(name: str, description: str | None, parameters: Mapping[str, Any] | None) -> Tool:
    """A tool as an engine takes it."""
    return Tool(name, description or "", schema_text(parameters))


def refuse(given: Mapping[str, Any], why: str) -> None:
    """Raises `Rejected` for the first that is given: what would be ignored without a word is said instead."""
    for param, value in given.items():
        if value:
            raise invalid(f"{param} {why}", param=param, code="unsupported_parameter")
