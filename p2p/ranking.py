"""How providers were ranked for one question, as a table and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from rich.markup import escape

from p2p.buying import Deal
from p2p.protocol.market import Candidate, Score
from p2p.protocol.price import FREE
from p2p.story import short

# The terms are nano; their sum decides, and the lowest is the best.
HEADINGS = ("provider", "tokens", "opening", "time", "risk", "sum", "first token", "whole", "fails", "tier", "note")


def rows(deal: Deal) -> Sequence[Sequence[str]]:
    """A line for each provider that was found: those compared with every term, best first, then the others."""
    compared = [_compared(score, deal) for score in deal.ranked]
    blank = ("-",) * 7
    others = [
        (short(one.peer), *blank, _fails(one), one.tier, escape(why))
        for one, why in deal.left_out
        if one.peer not in {score.candidate.peer for score in deal.ranked}
    ]
    return [*compared, *others]


def _compared(score: Score, deal: Deal) -> tuple[str, ...]:
    one = score.candidate
    terms = (score.tokens_nano, score.opening_nano, score.time_nano, score.risk_nano, score.total_nano)
    return (
        short(one.peer),
        *(f"{term:,}" for term in terms),
        f"{score.ttft_ms} ms",
        f"{score.expected_ms} ms",
        _fails(one),
        one.tier,
        _note(score, deal),
    )


def _fails(one: Candidate) -> str:
    return f"{one.standing.failure_permille / 10:g} %"


def _note(score: Score, deal: Deal) -> str:
    one = score.candidate
    notes = [f"taken: {deal.why}"] if one.peer == deal.provider else []
    notes += ["free"] if one.prices == FREE else []
    notes += [escape(why) for left_out, why in deal.left_out if left_out.peer == one.peer]
    notes += ["has the conversation"] if one.warm else []
    notes += ["standing quote"] if one.standing_quote else []
    return "; ".join(notes)


def as_json(deal: Deal) -> list[dict[str, Any]]:
    """The same for programs: `why` is there for those that were left out, and the terms for the others."""
    compared = {score.candidate.peer: _terms(score) for score in deal.ranked}
    left_out = {one.candidate.peer: {"why": one.why, **_plain(one.candidate)} for one in deal.left_out}
    peers = [*compared, *(peer for peer in left_out if peer not in compared)]
    return [left_out.get(peer, {}) | compared.get(peer, {}) | {"taken": peer == deal.provider} for peer in peers]


def _terms(score: Score) -> dict[str, Any]:
    return {
        **_plain(score.candidate),
        "tokens_nano": score.tokens_nano,
        "opening_nano": score.opening_nano,
        "time_nano": score.time_nano,
        "risk_nano": score.risk_nano,
        "total_nano": score.total_nano,
        "expected_ttft_ms": score.ttft_ms,
        "expected_ms": score.expected_ms,
    }


def _plain(one: Candidate) -> dict[str, Any]:
    return {
        "peer": one.peer,
        "prices": msgspec.structs.asdict(one.prices),
        "rtt_ms": one.rtt_ms,
        "slots_free": one.slots_free,
        "tier": one.tier,
        "features": list(one.features),
        "has_conversation": one.warm,
        "standing_quote": one.standing_quote,
        **one.standing._asdict(),
    }
