"""What is simulated: typed, read from TOML, and refused where it makes no sense. Amounts are nano, times seconds."""

from __future__ import annotations

import math
import random
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from sim.errors import ScenarioError

Count = Annotated[int, Meta(ge=1)]
Nano = Annotated[int, Meta(ge=0)]
Percent = Annotated[float, Meta(ge=0, le=100)]
Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]


class _Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Lognormal(_Strict, frozen=True):
    """A skewed quantity: half of all draws are below `median`, none is above `most` or below 1."""

    median: Positive
    sigma: NotNegative
    most: Positive

    def draw(self, chance: random.Random) -> int:
        return max(1, round(min(self.most, chance.lognormvariate(math.log(self.median), self.sigma))))


class Range(_Strict, frozen=True):
    """Anything between two bounds, equally likely."""

    least: NotNegative
    most: NotNegative

    def __post_init__(self) -> None:
        if self.least > self.most:
            raise ValueError("`least` is above `most`")

    def draw(self, chance: random.Random) -> float:
        return chance.uniform(self.least, self.most)


class Clients(_Strict, frozen=True):
    """Those who ask. Each asks one question at a time; the next one waits."""

    count: Count
    wallet_nano: Nano
    deposit_nano: Nano  # into a new channel, or more where one answer could cost more
    channels: Count  # open at once
    requests_per_hour: Positive  # of each client, Poisson
    prompt_tokens: Lognormal
    answer_tokens: Lognormal  # the most that a question wants; an answer may be shorter
    probes: Count  # adverts pulled before each question, from a random sample
    quotes: Count  # asked for, from the best of those
    attempts: Count  # at one question, each over all its quotes
    nano_per_second: Nano  # what a second of waiting is worth
    answers_per_channel: Count  # over which the opening fee is shared when offers are compared
    haggler_percent: Percent  # of clients use `AskForLess`, the others `TakeIt`
    ask_for_less_percent: Annotated[int, Meta(ge=0, le=99)]


class Providers(_Strict, frozen=True):
    """Those who sell."""

    count: Count
    wallet_nano: Nano
    output_price: Lognormal  # nano per million tokens
    input_price_percent: Percent  # of the output price
    flexible_percent: Percent  # of providers use `UtilisationPrice`, the others `FixedPrice`
    discount_percent: Annotated[int, Meta(ge=0, le=99)]
    slots: Annotated[tuple[Count, ...], Meta(min_length=1)]  # one of these, equally likely
    tokens_per_s: Lognormal
    prefill_tokens_per_s: Lognormal
    chunk_tokens: Count  # in one frame; the first token of an answer travels alone
    window_cap_nano: Count
    deposit_min_nano: Nano
    challenge_period_s: Count
    settle_at_nano: Count  # unsettled, before it is carried to the chain
    readvertise_s: Positive


class Links(_Strict, frozen=True):
    """What the region matrix does not know."""

    jitter_percent: Percent  # at most so much longer than the matrix says
    last_mile_ms: Range  # one way
    lookup_s: NotNegative  # what finding providers in the DHT takes


class Faults(_Strict, frozen=True):
    """Providers that die in the middle of an answer and come back with what they had saved."""

    dying_percent: Percent
    silent_percent: Percent  # of those: the machine dies too, so that nobody is told
    downtime_s: NotNegative


class Scenario(_Strict, frozen=True):
    """A whole simulated world."""

    name: str
    seed: int
    duration_s: Positive  # how long questions come; what has begun is then brought to its end
    model: str
    confirm_s: Range  # how long the chain takes for an operation
    regions: Annotated[dict[str, Positive], Meta(min_length=1)]  # weights
    clients: Clients
    providers: Providers
    links: Links
    faults: Faults


def known_scenarios() -> list[str]:
    """The names that come with the simulator."""
    return sorted(entry.name.removesuffix(".toml") for entry in files("sim").joinpath("data/scenarios").iterdir())


def load_scenario(name: str) -> Scenario:
    """The scenario of that name, or in the file of that name where it ends in `.toml`. Raises `ScenarioError`."""
    if name.endswith(".toml"):
        try:
            return parse_scenario(Path(name).read_bytes(), name)
        except OSError as error:
            raise ScenarioError(f"cannot read {name}: {error.strerror}") from error
    if name not in known_scenarios():
        raise ScenarioError(f"unknown scenario {name!r}: take one of {', '.join(known_scenarios())}, or a .toml file")
    return parse_scenario(files("sim").joinpath(f"data/scenarios/{name}.toml").read_bytes(), name)


def parse_scenario(text: bytes, source: str) -> Scenario:
    """`source` is for the message. Raises `ScenarioError`."""
    try:
        return msgspec.toml.decode(text, type=Scenario)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ScenarioError(f"{source}: {error}") from error
