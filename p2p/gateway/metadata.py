"""What Bombyx says of an answer besides its text: the `bombyx` object of a body, and the `x-bombyx-*` headers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from p2p.answer import Answer
from p2p.gateway.checks import Audits, checks_of
from p2p.protocol.reputation import Evidence

Object = dict[str, Any]
NONE: Audits = MappingProxyType({})


def of_parts(parts: Sequence[Answer], audits: Audits = NONE) -> Object:
    """Of one answer: who gave its last part on what terms, what all parts cost, and what can be shown for it.

    `audits` are those of its providers, as far as they are known by now. `receipt` names the last part's: the session's
    id, under which `receipts` lists it. Amounts are nano, prices nano for a million tokens.
    """
    last = parts[-1]
    deal = last.deal
    timing = last.timing
    return {
        "provider": deal.provider,
        "model": deal.quote.model,
        "tier": tier_of(last),
        "price": _price(last),
        "free": deal.quote.free,
        "cost_nano": sum(part.cost_nano for part in parts),
        "receipt": receipt_of(last),
        "failovers": len({part.deal.provider for part in parts}) - 1,
        "why": deal.why,
        "ttft_ms": timing.ttft_ms,
        "tokens_per_s": round(timing.tokens_per_s, 1),
        "parts": [_part(part, audits.get(part.deal.provider, ())) for part in parts],
    }


def tier_of(part: Answer) -> str:
    """The one that was proven when the provider was chosen."""
    ranked = part.deal.ranked
    return next((one.candidate.tier for one in ranked if one.candidate.peer == part.deal.provider), "open")


def receipt_of(part: Answer) -> str | None:
    return None if part.receipt is None else part.receipt.session.hex()


def merged(several: Sequence[Object]) -> Object:
    """Of many answers to one call: the first one's, with the cost of all, and each under `choices`."""
    if len(several) == 1:
        return several[0]
    total = {name: sum(one[name] for one in several) for name in ("cost_nano", "failovers")}
    return {**several[0], **total, "choices": list(several)}


def headers(bombyx: Mapping[str, Any], *, over: bool) -> dict[str, str]:
    """As far as things are known: until it is `over`, the terms only."""
    price = bombyx["price"]
    known = {
        "x-bombyx-provider": bombyx["provider"],
        "x-bombyx-tier": bombyx["tier"],
        "x-bombyx-price": f"{price['input']}/{price['output']}",
    }
    if over:
        known |= {
            "x-bombyx-cost-nano": str(bombyx["cost_nano"]),
            "x-bombyx-receipt": bombyx["receipt"] or "",
            "x-bombyx-failovers": str(bombyx["failovers"]),
        }
    return known


EXPOSED = (
    "x-bombyx-provider",
    "x-bombyx-tier",
    "x-bombyx-price",
    "x-bombyx-cost-nano",
    "x-bombyx-receipt",
    "x-bombyx-failovers",
    "retry-after",
    "x-should-retry",
)
"""What a web page of another origin may read, if it may call at all."""


def _part(part: Answer, audits: Sequence[Evidence]) -> Object:
    return {
        "provider": part.deal.provider,
        "price": _price(part),
        "prompt_tokens": part.prompt_tokens,
        "completion_tokens": part.completion_tokens,
        "cost_nano": part.cost_nano,
        "receipt": receipt_of(part),
        "checks": checks_of(part, audits),
    }


def _price(part: Answer) -> Object:
    prices = part.deal.quote.prices
    return {"input": prices.input, "output": prices.output}
