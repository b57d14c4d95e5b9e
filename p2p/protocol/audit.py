"""Core: whether an answer is what the model that was paid for says to the prompt that was sent.

Somebody who has the same weights reads the answer and says of each token how likely it was (`Engine.score`). A greedy
answer must be of the likeliest tokens; one that was drawn must be as likely as what is drawn from that model is, on the
whole: less so is another model's answer or one to another prompt, more so is one that was not drawn. Equality is never
asked for: batches and machines round otherwise, and that tips a draw. What is allowed is calibrated for each model,
quantisation and engine that reads: more of one answer, and less of so many tokens that chance evens out.

One verdict is one event in a provider's standing (`reputation`), and convicts nobody.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from inference.engine import Figures, Scored
from p2p.protocol.price import Tokens
from p2p.protocol.receipt import Reason
from p2p.protocol.reputation import AUDITS, Evidence, Kind, Weighed, standing
from p2p.protocol.wire import Bytes32, Name, Nat, PeerVerifier, Signed, SignedBody, open_signed

TOKENS_MIN = 8  # fewer tell nothing
GAP_MAX = 5.0  # nats; one odd token is not the whole answer
# Other tokens may spell the same text, so the counts may differ a little where the answer was drawn.
COUNT_PERCENT, COUNT_SLACK = 10, 4
POOLED_TOKENS = 192  # greedy ones, of as many audits as it takes: enough to show what a single answer hides
FIRST_AUDITED = 3  # of a provider's answers, before it is left to chance


class Outcome(StrEnum):
    """What an audit came to."""

    PASSED = "passed"
    FAILED = "failed"
    UNCLEAR = "unclear"


class Fault(StrEnum):
    """What was found."""

    UNLIKELY = "unlikely"
    TOO_LIKELY = "too_likely"
    PROMPT_COUNT = "prompt_count"
    ANSWER_COUNT = "answer_count"
    UNLIKELY_IN_ALL = "unlikely_in_all"


class Limits(NamedTuple):
    """How far an honest answer goes. See `deviation`."""

    greedy: float  # nats a token, of one answer
    pooled: float  # nats a token, of `POOLED_TOKENS` and more
    low: float  # standard deviations below what is expected of answers that are drawn
    high: float  # and above


class Weights(NamedTuple):
    """What reads an answer: a model, its quantisation, and the engine that runs it."""

    model: str
    quantisation: str
    engine: str


# Measured by `make proof`, on answers of other seeds than the table in docs/BENCHMARKS.md.
CALIBRATED: Mapping[Weights, Limits] = {
    Weights("HuggingFaceTB/SmolLM2-135M-Instruct", "Q4_1", "llamacpp"): Limits(
        greedy=0.1, pooled=0.015, low=4.0, high=4.0
    ),
    Weights("bombyx/scripted", "none", "scripted"): Limits(greedy=0.05, pooled=0.02, low=6.0, high=6.0),
}
UNKNOWN = Limits(greedy=0.3, pooled=0.1, low=8.0, high=8.0)
"""For what nobody has measured: another model still shows, one that was rounded more coarsely may not."""


def limits_of(weights: Weights) -> Limits:
    """What is allowed of those weights."""
    return CALIBRATED.get(weights, UNKNOWN)


def deviation(figures: Iterable[Figures], *, greedy: bool) -> float:
    """How far an answer is from what was to be expected.

    Greedy: the mean of what its tokens lack of the likeliest ones' log-probability, in nats, at most `GAP_MAX` each.
    Drawn: its log-probability less the expected one, in standard deviations of it.
    """
    read = list(figures)
    if greedy:
        return sum(min(one.best - one.logprob, GAP_MAX) for one in read) / max(1, len(read))
    variance = sum(one.variance for one in read)
    difference = sum(one.logprob - one.mean for one in read)
    return difference / math.sqrt(max(variance, 1e-9))


class Delivered(NamedTuple):
    """An answer as it was paid for."""

    greedy: bool
    reason: Reason
    tokens: Tokens  # that were paid


class Finding(NamedTuple):
    """What an audit found: `deviation` is that of `audit.deviation`, over so many tokens."""

    outcome: Outcome
    fault: Fault | None
    tokens: int
    deviation: float


def judge(delivered: Delivered, scored: Scored, prompt_tokens: int, limits: Limits) -> Finding:
    """What an answer is, by what another engine says of its text and counts of its prompt."""
    read = list(scored.figures)
    if delivered.reason == "stop" and scored.end is not None:
        read.append(scored.end)
    found = deviation(read, greedy=delivered.greedy)
    fault = _miscount(delivered.tokens, Tokens(input=prompt_tokens, output=scored.tokens))
    if fault is None and len(read) >= TOKENS_MIN:
        fault = _misfit(found, limits, greedy=delivered.greedy)
    elif fault is None:
        return Finding(Outcome.UNCLEAR, None, len(read), found)
    return Finding(Outcome.FAILED if fault else Outcome.PASSED, fault, len(read), found)


def strain_permille(finding: Finding, limits: Limits) -> int:
    """What a greedy answer lacked, of what is allowed of many. See `with_earlier`."""
    return round(1000 * finding.deviation / limits.pooled)


def with_earlier(finding: Finding, earlier: Iterable[Evidence], limits: Limits) -> Finding:
    """What was found of a greedy answer, or that it is too much together with the audits before it.

    None of them was far off, but together they are further than chance explains. So many count as have `POOLED_TOKENS`,
    from the newest back to one that failed. A provider's models are reckoned together, each by what it is allowed.
    """
    if finding.outcome is Outcome.FAILED:
        return finding
    tokens, strain = finding.tokens, finding.tokens * strain_permille(finding, limits)
    for one in sorted((one for one in earlier if one.kind in AUDITS), key=lambda one: one.at)[::-1]:
        if tokens >= POOLED_TOKENS or one.kind is Kind.AUDIT_FAILED:
            break
        if one.strain_permille is not None:
            tokens += one.tokens
            strain += one.tokens * one.strain_permille
    if tokens < POOLED_TOKENS or strain <= 1000 * tokens:
        return finding
    return Finding(Outcome.FAILED, Fault.UNLIKELY_IN_ALL, tokens, strain / tokens / 1000 * limits.pooled)


def _miscount(paid: Tokens, counted: Tokens) -> Fault | None:
    """A prompt is counted alike by all who have its tokenizer; too low a count is of one that was cut."""
    if abs(paid.input - counted.input) > _slack(counted.input):
        return Fault.PROMPT_COUNT
    if paid.output > counted.output + _slack(counted.output):
        return Fault.ANSWER_COUNT
    return None


def _slack(tokens: int) -> int:
    return COUNT_SLACK + tokens * COUNT_PERCENT // 100


def _misfit(found: float, limits: Limits, *, greedy: bool) -> Fault | None:
    if found > limits.greedy if greedy else found < -limits.low:
        return Fault.UNLIKELY
    if not greedy and found > limits.high:
        return Fault.TOO_LIKELY
    return None


class Verdict(SignedBody, frozen=True, kw_only=True, tag="bombyx/verdict/1"):
    """What an auditor found of one answer, signed by it. It names the receipt and holds neither prompt nor answer."""

    auditor: Name
    provider: Name
    receipt: Bytes32  # SHA-256 of the body of the answer's receipt
    model: Name
    quantisation: Name
    digest: Name
    engine: Name  # that read the answer
    synthetic: bool  # whether the prompt was the auditor's own
    outcome: Outcome
    fault: Name = ""
    tokens: Nat  # that were read
    deviation_milli: int
    at: Nat  # unix seconds


def verify_verdict(signed: Signed, *, network: str, verify: PeerVerifier) -> Verdict:
    """A verdict that its auditor signed. Raises `RemoteError`: `bad_signature`, `wrong_network` or `malformed`."""
    return open_signed(signed, Verdict, by=lambda body: body.auditor, network=network, verify=verify)


def due(known: Sequence[Weighed], share_percent: float, draw: Callable[[int], int]) -> bool:
    """Whether a provider is to be audited after an answer, by what is known of it, and if so by chance.

    Its first answers are audited, and the next after one that failed, until it is left out of the choice: more would
    tell nothing new, and what is paid for them is better spent on others. `draw(n)` gives a random integer in [0, n).
    """
    audits = [one for one, _ in known if one.kind in AUDITS]  # the newest first
    suspect = len(audits) < FIRST_AUDITED or audits[0].kind is Kind.AUDIT_FAILED
    if suspect and not standing(known).distrusted:
        return True
    return draw(100_000) < 1000 * share_percent
