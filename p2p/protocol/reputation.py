"""Core: what a client has seen of a provider, and how much that counts.

Only the client's own experience counts: what was promised in a quote against what came. It fades with time, and no
single event moves a standing by more than `STEP_MAX_PERMILLE`. Receipts that others show could be self-dealt, so they
raise nobody's standing.

What is audited is a sample: a share of it that fails says the same of all that was not audited. So audits are reckoned
by themselves, and any number of answers that came in time do not make up for what was found in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple

import msgspec

from p2p.protocol.market import STRANGER, Standing
from p2p.protocol.wire import Name, Nat, Signed

HALF_LIFE_S = 7 * 86_400
# What everybody begins with: a failure's half in 25 answers, and five answers that were as fast as promised.
ASSUMED_FAILURES, ASSUMED_ANSWERS = STRANGER.failure_permille * 25 / 1000, 25
ASSUMED_TIMINGS = 5
# A timing counts within these bounds, as a part of what was promised.
RATIO_MIN, RATIO_MAX = 0.25, 4.0
# A promise is broken beyond these; our own machine and the way between us are not always at their best.
LATE_FACTOR, LATE_SLACK_MS = 3, 1000
SLOW_FACTOR = 2
RATE_TOKENS_MIN = 8  # fewer tell nothing of a rate
MISCOUNTS = frozenset({"overcount", "undercount", "bad_progress", "bad_receipt"})


class Kind(StrEnum):
    """What happened."""

    ANSWERED = "answered"
    BROKE_OFF = "broke_off"
    ENGINE_FAILED = "engine_failed"
    BROKE_RULES = "broke_rules"
    MISCOUNTED = "miscounted"
    AUDIT_PASSED = "audit_passed"
    AUDIT_FAILED = "audit_failed"
    AUDIT_UNCLEAR = "audit_unclear"


AUDITS = frozenset({Kind.AUDIT_PASSED, Kind.AUDIT_FAILED, Kind.AUDIT_UNCLEAR})

# As so many failed answers each counts. What only bad will or a bad program explains counts more.
FAILURES: dict[Kind, float] = {
    Kind.ANSWERED: 0,
    Kind.BROKE_OFF: 1,
    Kind.ENGINE_FAILED: 1,
    Kind.BROKE_RULES: 3,
    Kind.MISCOUNTED: 5,
    Kind.AUDIT_PASSED: 0,
    Kind.AUDIT_FAILED: 5,
    Kind.AUDIT_UNCLEAR: 0,
}
BROKEN_PROMISE = 0.5
# What an audit found, by its code.
AUDITED = {
    "unlikely": "another model's words, or an answer to another prompt",
    "too_likely": "words that were not drawn from the model",
    "prompt_count": "the prompt has another number of tokens than was paid for",
    "answer_count": "the answer has fewer tokens than were paid for",
    "unlikely_in_all": "in this answer and those before it too many words that are not the model's first choice",
}
STEP_MAX_PERMILLE = 1000 * max(FAILURES.values()) / (ASSUMED_ANSWERS + max(FAILURES.values()))


class Evidence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that a provider did, as it is kept. Times are what we saw less two round trips."""

    at: Nat  # unix seconds
    kind: Kind
    code: Name = ""  # of the rule that was broken
    tokens: Nat = 0
    ttft_ms: Nat = 0
    promised_ttft_ms: Nat = 0
    tokens_per_s: float = 0
    promised_tokens_per_s: Nat = 0
    strain_permille: Nat | None = None  # of an audit that was greedy: see `audit.with_earlier`
    verdict: Signed | None = None  # of an audit that came to its end

    @property
    def late(self) -> bool:
        """Whether the first token came long after it was promised."""
        return self.tokens > 0 and self.ttft_ms > LATE_FACTOR * self.promised_ttft_ms + LATE_SLACK_MS

    @property
    def slow(self) -> bool:
        """Whether the others came at less than half the promised rate."""
        return self.tokens >= RATE_TOKENS_MIN and self.tokens_per_s * SLOW_FACTOR < self.promised_tokens_per_s

    @property
    def failures(self) -> float:
        """How many failed answers it counts as, while it is fresh."""
        return FAILURES[self.kind] or (BROKEN_PROMISE if self.late or self.slow else 0)

    def said(self) -> str:
        """In plain words."""
        match self.kind:
            case Kind.ANSWERED:
                return self._answered()
            case Kind.BROKE_OFF:
                return f"went away or stalled in the middle of an answer, after {self.tokens} tokens"
            case Kind.ENGINE_FAILED:
                return f"its engine failed in the middle of an answer, after {self.tokens} tokens"
            case Kind.BROKE_RULES:
                return f"broke the protocol ({self.code})"
            case Kind.MISCOUNTED:
                return f"its counts were not true ({self.code})"
            case Kind.AUDIT_PASSED:
                return f"audited: {self.tokens} tokens were as they should be"
            case Kind.AUDIT_FAILED:
                return f"audited: {AUDITED.get(self.code, self.code)}, over {self.tokens} tokens"
            case Kind.AUDIT_UNCLEAR:
                return f"audited, to no end ({self.code})"

    def _answered(self) -> str:
        said = f"answered {self.tokens} tokens"
        if self.tokens:
            said += f", the first after {self.ttft_ms} ms (promised {self.promised_ttft_ms})"
        if self.tokens >= RATE_TOKENS_MIN:
            said += f", then {self.tokens_per_s:.0f} a second (promised {self.promised_tokens_per_s})"
        faults = [name for name, found in (("late", self.late), ("slow", self.slow)) if found]
        return f"{said}: {' and '.join(faults)}" if faults else said


class Weighed(NamedTuple):
    """Evidence, and how much of it still counts: from 1 when it is fresh down to 0."""

    evidence: Evidence
    weight: float


def weigh(evidence: Iterable[Evidence], now: float) -> Sequence[Weighed]:
    """The newest first. Evidence from the future, as after a clock was set back, counts as fresh."""
    newest = sorted(evidence, key=lambda one: one.at)[::-1]  # of the same second too, the last one first
    return [Weighed(one, 0.5 ** (max(0.0, now - one.at) / HALF_LIFE_S)) for one in newest]


def standing(weighed: Iterable[Weighed]) -> Standing:
    """What all of it says: with no evidence, that of a stranger."""
    answers, audits = _Share(ASSUMED_FAILURES), _Share(0)
    firsts, rates = _Mean(), _Mean()
    for one, weight in weighed:
        if one.kind in AUDITS:
            if one.kind is not Kind.AUDIT_UNCLEAR:
                audits.add(one.failures, weight)
            continue
        answers.add(one.failures, weight)
        if one.tokens and one.promised_ttft_ms:
            firsts.add(one.ttft_ms / one.promised_ttft_ms, weight)
        if one.tokens >= RATE_TOKENS_MIN and one.promised_tokens_per_s:
            rates.add(one.tokens_per_s / one.promised_tokens_per_s, weight)
    failing = 1 - (1 - answers.failing) * (1 - audits.failing)
    return Standing(round(1000 * failing), firsts.percent, rates.percent)


class _Share:
    """Of answers that fail, with some that are assumed."""

    def __init__(self, assumed_failures: float) -> None:
        self._failures, self._answers = assumed_failures, float(ASSUMED_ANSWERS)

    def add(self, failures: float, weight: float) -> None:
        self._failures += weight * failures
        self._answers += weight * max(1, failures)

    @property
    def failing(self) -> float:
        return self._failures / self._answers


class _Mean:
    """Of ratios, with some that are assumed to be as promised."""

    def __init__(self) -> None:
        self._sum = self._weights = float(ASSUMED_TIMINGS)

    def add(self, ratio: float, weight: float) -> None:
        self._sum += weight * min(max(ratio, RATIO_MIN), RATIO_MAX)
        self._weights += weight

    @property
    def percent(self) -> int:
        return round(100 * self._sum / self._weights)
