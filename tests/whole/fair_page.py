"""What a fair has shown, in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from fair import FAULTS, Report
from takings import Bill, parts, shares

INTRODUCTION = [
    "A client buys short answers (8 to 24 tokens) of five providers, each a process of its own, on a network of their",
    "own with a devnet and real channels. At first it knows none of them. It audits them as [MARKET.md](MARKET.md)",
    "says, and has an engine of its own to read their answers. Each has a fault; where it cheats, that is built into",
    "its engine. Prices and what a second is worth are a hundred times the defaults, so that an answer of 16 tokens",
    "counts as one of 1,600 would beside what a channel costs.",
    "",
    "Who knows everything pays for each prompt once, and for each token that the model gave, at the price of the",
    "cheapest honest provider (100 %). Nothing that another model gave is worth anything, nor is a token that is only",
    "counted. What was paid beyond that is *overpaid*. Apart from it are prompts that another provider had to read",
    "again, audits, and the chain's fees. *Traffic* is the tokens that were charged.",
]
AND_EMBEDDED = (
    "The same with the embedded model, where the impostor says scripted words in no time. The honest ones share a\n"
    "busy machine there, so that the dear one may be worth its price:"
)


def table(report: Report) -> Sequence[str]:
    """In Markdown."""
    return [*_providers(report), "", *_bills(report), "", *_whole(report)]


def _providers(report: Report) -> Iterator[str]:
    overall, latter = shares(report.bought), shares(report.latter)
    yield "| provider | its fault | price | parts of answers | traffic | last quarter's | paid, nano | audits failed |"
    yield "|---" * 8 + "|"
    for name, fault in FAULTS.items():
        given = [part for part in parts(report.bought) if part.provider == name]
        share = f"{overall.get(name, 0.0):.1%} | {latter.get(name, 0.0):.1%}"
        paid_nano = sum(part.cost_nano for part in given)
        outcomes = [one.outcome for one in report.audits if one.provider == name]
        audits = f"{outcomes.count('failed')} of {len(outcomes)}"
        yield f"| {name} | {fault.what} | {fault.percent} % | {len(given):,} | {share} | {paid_nano:,} | {audits} |"


def _bills(report: Report) -> Iterator[str]:
    rows: Mapping[str, Callable[[Bill], str]] = {
        "paid for tokens, nano": lambda bill: f"{bill.paid_nano - bill.repeated_nano:,}",
        "what one who knew everything would have paid": lambda bill: f"{bill.needed_nano:,}",
        "overpaid": lambda bill: f"{bill.overpaid:.1%}",
        "paid for prompts that were read again, nano": lambda bill: f"{bill.repeated_nano:,}",
    }
    bills = [report.bill(report.bought), report.bill(report.latter)]
    yield "| | all answers | the last quarter |"
    yield "|---" * 3 + "|"
    for what, figure in rows.items():
        yield f"| {what} | {' | '.join(map(figure, bills))} |"


def _whole(report: Report) -> Iterator[str]:
    waits_s = sorted(one.seconds for one in report.bought)
    audits_nano, whole = sum(one.cost_nano for one in report.audits), report.bill(report.bought)
    rows = {
        "answers": f"{len(report.bought):,}, {report.plan.at_once} at a time",
        "lost": f"{len(report.lost)}",
        "in several parts": f"{sum(len(one.parts) > 1 for one in report.bought)}",
        "audits": f"{len(report.audits)}, {len(report.audits) / len(report.bought):.1%} of the answers",
        "paid for audits, nano": f"{audits_nano:,}, {audits_nano / whole.paid_nano:.1%} of what was paid for answers",
        "deaths of the mortal one": f"{report.deaths}",
        "chain fees, nano": f"{report.fees_nano:,}, for opening and filling up {report.channels} channels",
        "seconds for an answer, median and 95th percentile": " and ".join(
            f"{waits_s[len(waits_s) * percent // 100]:.1f}" for percent in (50, 95)
        ),
        "seconds in all, starts and last audits included": f"{report.took_s:.0f}",
    }
    yield "| | |"
    yield "|---" * 2 + "|"
    for what, figure in rows.items():
        yield f"| {what} | {figure} |"
