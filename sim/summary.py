"""A run in figures: counted from the trace alone, shown as one JSON object or as a table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from p2p.protocol.price import PER_TOKENS
from p2p.trace import Record
from sim.run import Outcome

NANO_PER_GRAM = 1_000_000_000
PERCENTILES = (50, 90, 99)

Summary = dict[str, Any]
Section = tuple[str, list[tuple[str, str]]]


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: the smallest value that at least `percent` of all do not exceed; 0 of none."""
    if not values:
        return 0.0
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def summarise(outcome: Outcome) -> Summary:
    """Everything that the table shows, in plain values: seconds, nano, nano per million tokens."""
    by_kind: dict[str, list[Record]] = {}
    for record in outcome.trace.records:
        by_kind.setdefault(record["kind"], []).append(record)
    return {
        "scenario": outcome.scenario.name,
        "seed": outcome.seed,
        "digest": outcome.digest,
        "virtual_s": round(outcome.virtual_s, 3),
        "clients": outcome.scenario.clients.count,
        "providers": outcome.scenario.providers.count,
        "answers": _answers(by_kind),
        "failures": _failures(by_kind),
        "output_price": _prices(by_kind),
        "money_nano": _money(by_kind),
        "transactions": dict(Counter(_fields(by_kind, "transaction", "op"))),
        "latency_s": _latency(by_kind),
        "traffic": {field: _only(by_kind, "traffic", field) for field in ("messages", "bytes")},
        "checked": {k: v for k, v in by_kind["checked"][0].items() if k not in {"t_us", "kind"}},
        "events": outcome.events,
    }


def timing(outcome: Outcome) -> Summary:
    """What the machine took: the only figures that differ between two runs."""
    return {"wall_s": round(outcome.wall_s, 2), "events_per_s": outcome.events_per_s}


def sections(summary: Summary, timed: Summary) -> list[Section]:
    """The table, line by line."""
    answers, money, checked = summary["answers"], summary["money_nano"], summary["checked"]
    transactions = summary["transactions"]
    return [
        (
            "Answers",
            [
                (f"asked by {summary['clients']:,} clients", f"{answers['asked']:,}"),
                (f"answered by {answers['providers']} of {summary['providers']} providers", f"{answers['answered']:,}"),
                ("answered after a provider failed", f"{answers['retried']:,}"),
                ("not answered", f"{answers['unanswered']:,}"),
                ("tokens in / out", f"{answers['tokens_in']:,} / {answers['tokens_out']:,}"),
            ],
        ),
        ("What went wrong", [(name.replace("_", " "), f"{count:,}") for name, count in summary["failures"].items()]),
        (
            "Output price, GRAM per million tokens",
            [(name.replace("_", " "), _spread(prices)) for name, prices in summary["output_price"].items()],
        ),
        (
            "Money, GRAM",
            [(name.removesuffix("_nano").replace("_", " "), _gram(nano)) for name, nano in money.items()]
            + [("transactions", ", ".join(f"{count:,} {op}" for op, count in sorted(transactions.items())))],
        ),
        (
            "Latency, seconds",
            [(name.replace("_", " "), _figures(values)) for name, values in summary["latency_s"].items()],
        ),
        (
            "Run",
            [
                ("messages", f"{summary['traffic']['messages']:,} in {summary['traffic']['bytes']:,} bytes"),
                ("virtual time", f"{summary['virtual_s']:,.0f} s"),
                ("events", f"{summary['events']:,} in {timed['wall_s']} s, {timed['events_per_s']:,} events/s"),
                ("checks passed", f"{sum(checked.values()):,}"),
                ("seed", str(summary["seed"])),
                ("digest", summary["digest"]),
            ],
        ),
    ]


def print_table(title: str, table: Sequence[Section], out: TextIO) -> None:
    """In colour on a terminal, as plain columns elsewhere."""
    if out.isatty():
        _print_rich(title, table, out)
        return
    width = max(len(label) for _, rows in table for label, _ in rows)
    out.write(f"{title}\n")
    for heading, rows in table:
        out.write(f"\n{heading}\n")
        out.writelines(f"  {label:<{width}}  {value}\n" for label, value in rows)


def _print_rich(title: str, table: Sequence[Section], out: TextIO) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(file=out)
    console.print(f"[italic]{title}[/]")
    for heading, rows in table:
        grid = Table(show_header=False, box=None, padding=(0, 2))
        grid.add_column(no_wrap=True, min_width=max(len(label) for _, rows in table for label, _ in rows))
        grid.add_column(overflow="fold")
        for row in rows:
            grid.add_row(*row)
        console.print(f"\n[bold cyan]{heading}[/]", grid, sep="\n")


def _answers(by_kind: dict[str, list[Record]]) -> Summary:
    answered = by_kind.get("answered", [])
    return {
        "asked": len(by_kind.get("asked", [])),
        "answered": len(answered),
        "retried": sum(one["attempts"] > 1 for one in answered),
        "unanswered": len(by_kind.get("unanswered", [])),
        "providers": len({one["provider"] for one in answered}),
        "tokens_in": sum(one["tokens_in"] for one in answered),
        "tokens_out": sum(one["tokens_out"] for one in answered),
    }


def _failures(by_kind: dict[str, list[Record]]) -> Summary:
    lost = by_kind.get("lost", [])
    return {
        "providers_died": len(by_kind.get("died", [])),
        "of_those_silently": sum(_fields(by_kind, "died", "silent")),
        "sessions_lost": len(lost),
        "of_those_in_mid-answer": sum(one["tokens_out"] > 0 for one in lost),
        "no_offer_found": len(by_kind.get("no_offer", [])),
        "agreement_refused": len(by_kind.get("no_agreement", [])),
        "no_funds": len(by_kind.get("no_funds", [])),
    }


def _prices(by_kind: dict[str, list[Record]]) -> Summary:
    agreed = by_kind.get("agreed", [])
    haggled = [one["agreed"] for one in agreed if one["agreed"] < one["quoted"]]
    answered = by_kind.get("answered", [])
    all_in = [PER_TOKENS * one["cost_nano"] / max(1, one["tokens_out"]) for one in answered]
    return {
        "first_quoted": _percentiles([one["quoted"] for one in agreed]),
        "agreed": _percentiles([one["agreed"] for one in agreed]),
        "agreed_after_haggling": _percentiles(haggled) | {"count": len(haggled)},
        "paid_with_prompt": _percentiles([round(price) for price in all_in]),
    }


def _money(by_kind: dict[str, list[Record]]) -> Summary:
    closed = by_kind.get("closed", [])
    authorised, paid = sum(one["authorised_nano"] for one in closed), sum(one["paid_nano"] for one in closed)
    return {
        "authorised": authorised,
        "paid_to_providers": paid,
        "receipted": sum(_fields(by_kind, "answered", "cost_nano")),
        "authorised_and_given_back": authorised - paid,
        "chain_fees": sum(_fields(by_kind, "transaction", "fee_nano")),
    }


def _latency(by_kind: dict[str, list[Record]]) -> Summary:
    return {
        "to_an_agreement": _percentiles(_fields(by_kind, "agreed", "after_s")),
        "to_the_first_token": _percentiles(_fields(by_kind, "answered", "first_token_s")),
        "of_that_in_the_session": _percentiles(_fields(by_kind, "answered", "session_first_token_s")),
        "to_the_whole_answer": _percentiles(_fields(by_kind, "answered", "whole_s")),
    }


def _fields(by_kind: dict[str, list[Record]], kind: str, field: str) -> list[Any]:
    return [record[field] for record in by_kind.get(kind, [])]


def _only(by_kind: dict[str, list[Record]], kind: str, field: str) -> Any:
    (value,) = _fields(by_kind, kind, field)
    return value


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    return {f"p{percent}": percentile(values, percent) for percent in PERCENTILES}


def _figures(values: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:7.2f}" for name, value in values.items())


def _spread(prices: dict[str, float]) -> str:
    named: Iterable[str] = (f"{name} {prices[name] / NANO_PER_GRAM:7.3f}" for name in prices if name != "count")
    return "  ".join(named) + (f"  ({prices['count']:,} times)" if "count" in prices else "")


def _gram(nano: int) -> str:
    return f"{nano // NANO_PER_GRAM:,}.{nano % NANO_PER_GRAM:09d}"
