"""What was looked into of one part of an answer, what came of it, and what nobody looked into: never one verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from chain.records import day_of
from p2p.answer import Answer
from p2p.protocol.reputation import LATE_FACTOR, LATE_SLACK_MS, SLOW_FACTOR, Evidence, Kind
from p2p.story import per_million
from p2p.track_record import evidence_from

Result = Literal["passed", "failed", "not_checked"]
Check = dict[str, str]
"""`what` was looked into, with which `result`, and the `detail`."""


Audits = Mapping[str, Sequence[Evidence]]
"""By provider, what audits of it came to: the oldest first."""


def checks_of(part: Answer, audits: Sequence[Evidence] = ()) -> list[Check]:
    """Of a part that is over; nothing before. `audits` are those of its provider."""
    if part.receipt is None and part.error is None:
        return []
    checks = [_identity(), _quote(part), _receipt(part), _speed(part), _counts(), _model(part), _audits(audits)]
    return [*checks, _machine()]


def _check(what: str, result: Result, detail: str) -> Check:
    return {"what": what, "result": result, "detail": detail}


def _identity() -> Check:
    return _check("Identity", "passed", "the connection was encrypted to the key that is the provider's id")


def _quote(part: Answer) -> Check:
    quote = part.deal.quote
    terms = "for nothing" if quote.unpaid else per_million(quote.prices.input, quote.prices.output)
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


def _audits(audits: Sequence[Evidence]) -> Check:
    """Of the provider, and not of this answer: an audit is a question of its own."""
    clear = [one for one in audits if one.kind in (Kind.AUDIT_PASSED, Kind.AUDIT_FAILED)]
    if not clear:
        return _check("Audits", "not_checked", "this home has audited no answer of this provider's to an end")
    passed = sum(one.kind is Kind.AUDIT_PASSED for one in clear)
    said = f"of its other answers {passed} of {len(clear)} audits passed; the last on {day_of(clear[-1].at)}: "
    return _check("Audits", "passed" if passed == len(clear) else "failed", said + clear[-1].said().partition(": ")[2])


def _machine() -> Check:
    return _check("Machine", "not_checked", "without evidence about it, its owner can read the prompt")
