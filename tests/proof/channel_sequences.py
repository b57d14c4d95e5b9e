"""The state machines of tests/chain and tests/p2p/protocol, at their full counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

from hypothesis import Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from test_channel import Road
from test_shared_channel import ONE_DEATH, Street, WideStreet, one_death_costs_each_side_one_window_at_most

SEQUENCES = 2000
STEPS = 40
# Nothing is kept between runs and nothing explained: a sequence that fails is repeated by its seed.
FULL = settings(
    max_examples=SEQUENCES, stateful_step_count=STEPS, deadline=None, database=None, phases=[Phase.generate]
)


class CountedStreet(Street):
    """Says afterwards what befell the sessions."""

    seen: ClassVar[Counter[str]] = Counter()

    def teardown(self) -> None:
        super().teardown()
        self.seen.update(self.tally)
        self.seen["sequences"] += 1
        self.seen["with crashes"] += self.tally["crashes"] > 0


class CountedWideStreet(WideStreet):
    """Counts its sequences."""

    seen: ClassVar[Counter[str]] = Counter()

    def teardown(self) -> None:
        super().teardown()
        self.seen["sequences"] += 1


class CountedRoad(Road):
    """Counts its sequences."""

    seen: ClassVar[Counter[str]] = Counter()

    def teardown(self) -> None:
        self.seen["sequences"] += 1


def run(number: int) -> Sequence[str]:
    """Markdown, or the `AssertionError` of a sequence that broke a promise."""
    run_state_machine_as_test(seed(number)(CountedRoad), settings=FULL)
    run_state_machine_as_test(seed(number)(CountedStreet), settings=FULL)
    run_state_machine_as_test(seed(number)(CountedWideStreet), settings=FULL)
    deaths = 0

    def once(prompts: list[int], choices: list[int], rest: list[int], who: str, events: int) -> None:
        nonlocal deaths
        deaths += 1
        one_death_costs_each_side_one_window_at_most(prompts, choices, rest, who, events)

    seed(number)(FULL(ONE_DEATH(once)))()
    street = CountedStreet.seen
    befell = (
        f"{street['crashes']:,} crashes before, between and after saves (in {street['with crashes']:,} of them), "
        f"{street['broken streams']:,} broken streams, {street['completed at one end'] // 2:,} answers completed"
    )
    return [
        f"Sequences of up to {STEPS} steps, found by hypothesis, without a violation:",
        "",
        f"- vouchers lost, repeated and reordered, and both ends restarted: {CountedRoad.seen['sequences']:,};",
        "- several sessions on one channel between two processes that die, and a disk that takes its time:",
        f"  {street['sequences']:,}, with {befell};",
        "- the same where the provider lets the payer owe up to two and a half windows on several answers:",
        f"  {CountedWideStreet.seen['sequences']:,};",
        f"- one death anywhere, and what it costs each side: {deaths:,}, each with its crash.",
        "",
        "Held throughout: the payee can have what the payer signed and no more, the payer gets back the rest of the",
        "deposit, nobody blames an honest peer, nothing starves, a released channel takes no voucher, and both ends",
        "agree again after one more answer. What the payer owes, work under way included, never exceeds one window, or",
        "what the provider lets it owe; and one death costs the client at most one window, and the provider that.",
    ]
