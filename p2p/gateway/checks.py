"""What was looked into of one part of an answer, what came of it, and what nobody looked into: never one verdict."""

from __future__ import annotations

from typing import Literal

from p2p.answer import Answer
from p2p.protocol.reputation import LATE_FACTOR, LATE_SLACK_MS, SLOW_FACTOR
from p2p.track_record import evidence_from

Result = Literal["passed", "failed", "not_checked"]
Check = dict[str, str]
"""`what` was looked into, with which `result`, and the `detail`."""


def checks_of(part: Answer) -> list[Check]:
    """Of a part that is over; nothing before."""
    if part.receipt is None and part.error is None:
        return []
    return [_identity(), _quote(part), _receipt(part), _speed(part), _counts(), _model(part), _machine()]


def _check(what: str, result: Result, detail: str) -> Check:
    return {"what": what, "result": result, "detail": detail}


def _identity() -> Check:
    return _check("Identity", "passed", "the connection was encrypted to the key that is the provider's id")


def _quote(part: Answer) -> Check:
    quote = part.deal.quote
    terms = "for nothing" if quote.unpaid else f"{quote.prices.input} and {quote.prices.output} nano a million tokens"
    return _check("Quote", "passed", f"signed by the provider, and within your limits: {terms}")


def _receipt(part: Answer) -> Check:
    if part.error is not None:
        return _check("Receipt", "failed", f"the answer was not delivered whole: {part.error}")
    return _check("Receipt", "passed", "signed by the provider, with the counts, prices and hashes of what arrived")


def _speed(part: Answer) -> Check:
    seen = evidence_from(part, part.deal.rtt_ms, 0)
    if seen is None or not seen.tokens:
        return _check("Promised speed", "not_checked", "too little came")
    latest_ms = LATE_FACTOR * seen.promised_ttft_ms + LATE_SLACK_MS
    said = (
        f"first token after {seen.ttft_ms} ms, promised after {seen.promised_ttft_ms}, kept up to {latest_ms}; "
        f"{seen.tokens_per_s:.0f} tokens a second, promised {seen.promised_tokens_per_s}, "
        f"kept from {seen.promised_tokens_per_s / SLOW_FACTOR:.0f}"
    )
    return _check("Promised speed", "failed" if seen.late or seen.slow else "passed", said)


def _counts() -> Check:
    return _check(
        "Token counts", "not_checked", "the provider's own, within what the text allows; only audits count anew"
    )


def _model(part: Answer) -> Check:
    return _check("Model", "not_checked", f"that these are words of {part.deal.quote.model} is the provider's claim")


def _machine() -> Check:
    return _check("Machine", "not_checked", "without evidence about it, its owner can read the prompt")
