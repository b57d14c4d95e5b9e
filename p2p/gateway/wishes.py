"""Pure: what a caller wants of Bombyx besides an answer, in the body's `bombyx` object or in `x-bombyx-*` headers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

import msgspec

from p2p.budget import Budget
from p2p.gateway.bodies import read
from p2p.gateway.failures import invalid
from p2p.protocol.advert import Tier
from p2p.protocol.market import PRESETS
from p2p.protocol.price import Prices

HEADER = "x-bombyx-"
TOP = 1 << 53  # a price that caps nothing

Nano = Annotated[int, msgspec.Meta(ge=0, le=TOP)]


class Wishes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is not wished for is as the gateway is configured. Prices are nano for a million tokens."""

    price_max_input: Nano | None = None
    price_max_output: Nano | None = None
    cost_max_nano: Nano | None = None  # of the whole answer
    tier: Tier | None = None
    preset: Literal["cheap", "balanced", "fast", "private"] | None = None
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] | None = None  # for the whole answer


class Envelope(Wishes, frozen=True, kw_only=True, forbid_unknown_fields=False, omit_defaults=True):
    """Of any endpoint's body the part that is ours; a wish may also stand beside OpenAI's own fields."""

    bombyx: Wishes | None = None


def wishes_of(body: bytes, headers: Mapping[str, str]) -> Wishes:
    """The body's wishes, and before them those of the headers: `x-bombyx-price-max-output`. Raises `Rejected`."""
    envelope = read(body, Envelope)
    beside = {name: value for name in Wishes.__struct_fields__ if (value := getattr(envelope, name)) is not None}
    said = {
        name.removeprefix(HEADER).replace("-", "_"): value for name, value in headers.items() if name.startswith(HEADER)
    }
    given = beside | msgspec.to_builtins(envelope.bombyx or Wishes())
    try:
        return msgspec.convert(given | said, Wishes, strict=False)
    except msgspec.ValidationError as error:
        raise invalid(f"bombyx: {error}", param="bombyx") from None


def narrowed(budget: Budget, *wanted: Wishes) -> Budget:
    """A budget within which all of these are met; limits only ever become tighter."""
    for one in wanted:
        preset = PRESETS[one.preset] if one.preset else None
        tier = one.tier or (preset.tier if preset else budget.tier)
        budget = replace(
            budget,
            prices_max=_lower(budget.prices_max, one),
            answer_max_nano=_least(budget.answer_max_nano, one.cost_max_nano),
            nano_per_second=preset.nano_per_second if preset else budget.nano_per_second,
            tier="attested" if "attested" in (tier, budget.tier) else "open",
        )
    return budget


def _lower(known: Prices | None, wanted: Wishes) -> Prices | None:
    if known is None and wanted.price_max_input is None and wanted.price_max_output is None:
        return None
    known = known or Prices(TOP, TOP, TOP)
    inputs = _least(known.input, wanted.price_max_input)
    return Prices(inputs, min(known.cached_input, inputs), _least(known.output, wanted.price_max_output))


def _least(known: Any, wanted: int | None) -> Any:
    return wanted if known is None else known if wanted is None else min(known, wanted)
