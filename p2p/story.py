"""What happens, told to a person: the terminal's side of `p2p.trace`. Plain lines where there is no terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from p2p.protocol.reputation import AUDITED
from p2p.trace import MESSAGES

NANO_PER_GRAM = 1_000_000_000
# A stranger's answer must not steer the terminal that it is shown in; line ends and tabs are harmless.
UNSHOWN = dict.fromkeys({*range(0x20), *range(0x7F, 0xA0)} - {ord("\n"), ord("\t")})

Pairs = Sequence[tuple[str, str]]
"""Names, and what is to be said of each."""


def short(peer: str) -> str:
    """A peer id as people tell them apart: its last six characters."""
    return f"…{peer[-6:]}"


def gram(nano: int) -> str:
    """An amount in GRAM with all nine decimals that it needs."""
    whole, rest = divmod(abs(nano), NANO_PER_GRAM)
    text = f"{whole}.{rest:09d}".rstrip("0").rstrip(".")
    return f"{'-' if nano < 0 else ''}{text} GRAM"


def per_million(input_nano: int, output_nano: int) -> str:
    """A price as people compare it."""
    if not input_nano and not output_nano:
        return "free"
    return f"{gram(input_nano)} in, {gram(output_nano)} out, for a million tokens"


class Story:
    """A `Trace` that prints one line for each thing a newcomer would want to know."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def __call__(self, kind: str, /, **fields: Any) -> None:
        line = self.line({"event": kind, **fields})
        if line:
            self.say(line)

    def line(self, record: Mapping[str, Any]) -> str:
        """What is said of a record; nothing for those that are for machines only."""
        make = LINES.get(record["event"])
        return make(record) if make else ""

    def say(self, line: str) -> None:
        """One line, with rich's markup."""
        self.console.print(line, highlight=False, soft_wrap=True)

    @contextmanager
    def progress(self, steps: int) -> Iterator[Callable[[str], None]]:
        """Something slow in so many steps: a bar that goes away in a terminal, a line for each step elsewhere.

        Call what it gives with the name of each step as it begins.
        """
        if not self.console.is_terminal:
            yield lambda what: self.say(f"Starting {what} …")
            return
        columns = (SpinnerColumn(), TextColumn("Starting {task.description} …"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task("", total=steps, completed=-1)
            yield lambda what: bar.update(task, description=what, advance=1)

    def piece(self, text: str) -> None:
        """A piece of the answer, as it comes."""
        self.console.print(escape(text.translate(UNSHOWN)), end="", highlight=False, soft_wrap=True)

    def table(self, title: str, rows: Pairs) -> None:
        """Two columns, which a narrow terminal may wrap and a pipe must not."""
        if not self.console.is_terminal:
            width = max(len(name) for name, _ in rows)
            self.say("\n".join([escape(title), *(f"{name:<{width}}  {escape(value)}" for name, value in rows)]))
            return
        self.console.print(_two_columns(title, rows))

    @contextmanager
    def standing(self) -> Iterator[Callable[[Pairs], None]]:
        """A table that stays below all that is said, in a terminal, and goes away in the end.

        What it gives draws it anew; that may wait for the terminal, and be done in another thread.
        """
        with Live(console=self.console, auto_refresh=False, transient=True) as live:
            yield lambda rows: live.update(_two_columns("", rows), refresh=True)

    def columns(self, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table; in a pipe, columns that are as wide as what is in them."""
        if self.console.is_terminal:
            table = Table(*headings, box=None, pad_edge=False, header_style="dim")
            for row in rows:
                table.add_row(*row)
            self.console.print(table)
            return
        widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
        for row in (headings, *rows):
            self.say("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


class JsonLines:
    """A `Trace` that writes one JSON object a line, for each thing that happens; not for each message."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def __call__(self, kind: str, /, **fields: object) -> None:
        if kind not in MESSAGES:
            self._out.write(json.dumps({"event": kind, **fields}) + "\n")
            self._out.flush()


@contextmanager
def answer_to(out: TextIO | None) -> Iterator[Callable[[str], None]]:
    """Writes the pieces of an answer as they come, and ends the line however the answer ends; to `None`, nothing."""
    begun = False

    def piece(text: str) -> None:
        nonlocal begun
        if out is not None:
            begun = True
            out.write(text.translate(UNSHOWN) if out.isatty() else text)
            out.flush()

    try:
        yield piece
    finally:
        if begun:
            piece("\n")


def _two_columns(title: str, rows: Pairs) -> Table:
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()
    for name, value in rows:
        table.add_row(name, escape(value))
    return table


def _found(f: Mapping[str, Any]) -> str:
    return (
        f"  [cyan]found[/] {short(f['peer'])}: {per_million(f['input'], f['output'])}; "
        f"{f['slots_free']} free, {f['rtt_ms']} ms away"
    )


def _quote(f: Mapping[str, Any]) -> str:
    return f"  [cyan]quote[/] {short(f['peer'])}: {per_million(f['prices']['input'], f['prices']['output'])}"


def _counter(f: Mapping[str, Any]) -> str:
    return (
        f"  [yellow]counter-offer[/] to {short(f['peer'])}: {per_million(f['prices']['input'], f['prices']['output'])}"
    )


def _agreed(f: Mapping[str, Any]) -> str:
    price = "free, as a newcomer" if f["free"] else per_million(f["prices"]["input"], f["prices"]["output"])
    return f"  [green]agreed[/] with {short(f['peer'])} ({f['why']}): {price}"


def _channel(f: Mapping[str, Any]) -> str:
    return (
        f"  [green]channel[/] {f['channel'][:8]}… to {short(f['peer'])} holds {gram(f['deposited_nano'])} "
        f"(opening cost {gram(f['fee_nano'])})"
    )


def _reachable(f: Mapping[str, Any]) -> str:
    straight = [address for address in f["addresses"] if "/p2p-circuit/" not in address]
    if straight:
        return f"  clients [green]reach me[/] at {straight[0].rpartition('/p2p/')[0]}"
    if f["addresses"]:
        relays = {address.split("/p2p/")[1].partition("/")[0] for address in f["addresses"]}
        return f"  nobody can dial me; clients [green]reach me[/] through the relay {' or '.join(map(short, relays))}"
    return "  [red]nobody can reach me[/]: nothing that I listen on is open, and no relay takes me in"


def _answer_failed(f: Mapping[str, Any]) -> str:
    """On a line of its own: it breaks into an answer."""
    what = {"unavailable": "fell silent", "engine_failed": "has an engine that broke"}.get(f["why"], "broke the rules")
    return f"\n  [yellow]provider {short(f['peer'])} {what}[/]"


def _failover(f: Mapping[str, Any]) -> str:
    begun = f["tokens"] > 0
    return f"  [green]{short(f['peer'])} {'goes on from here' if begun else 'answers instead'}[/]"


def _audited(f: Mapping[str, Any]) -> str:
    found = {
        "passed": f"[green]{f['tokens']} tokens are as they should be[/]",
        "failed": f"[red]{AUDITED.get(f['why'], f['why'])}[/]",
        "unclear": f"nothing came of it ({f['why']})",
    }
    return f"  audit of {short(f['peer'])}, for {gram(f['cost_nano'])}: {found[f['outcome']]}"


def for_so_long(seconds: int | None) -> str:
    """To be added, where it is known."""
    return "" if seconds is None else f", for {seconds // 3600} h {seconds % 3600 // 60} min more"


LINES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "found": _found,
    "probe_failed": lambda f: f"  [dim]{short(f['peer'])} is announced but does not answer: left out[/]",
    "answer_failed": _answer_failed,
    "failover": _failover,
    "no_failover": lambda f: f"  [red]nobody goes on[/]: {escape(f['why'])}",
    "quote": _quote,
    "no_quote": lambda f: f"  [dim]{short(f['peer'])} made no quote: {escape(f['why'])}[/]",
    "counter": _counter,
    "kept": lambda f: f"  [cyan]no less[/]: {short(f['peer'])} keeps to its price",
    "no_deal": lambda f: f"  [dim]{short(f['peer'])} did not accept: {escape(f['why'])}[/]",
    "agreed": _agreed,
    "opening": lambda f: f"  [dim]opening a channel with {gram(f['deposit_nano'])} …[/]",
    "channel": _channel,
    "topping_up": lambda f: f"  [dim]channel {f['channel'][:8]}… is used up: adding {gram(f['deposit_nano'])} …[/]",
    "topped_up": lambda f: (
        f"  [green]channel[/] {f['channel'][:8]}… to {short(f['peer'])} holds {gram(f['deposited_nano'])} in all "
        f"(adding cost {gram(f['fee_nano'])})"
    ),
    "taken_up": lambda f: (
        f"  [green]channel[/] {f['channel'][:8]}… of {short(f['peer'])} holds {gram(f['deposited_nano'])}"
    ),
    "reachable": _reachable,
    "served": lambda f: (
        f"  [green]served[/] {short(f['peer'])}: {f['tokens_in']} tokens in, {f['tokens_out']} out, "
        f"earned {gram(f['earned_nano'])}"
    ),
    "settled": lambda f: (
        f"  [green]settled[/] {gram(f['settled_nano'])} on chain (fee {gram(f['fee_nano'])}): {f['why']}"
    ),
    "chain_down": lambda f: (
        f"  [red]the chain does not answer[/]; with {gram(f['unsettled_nano'])} unsettled, "
        f"channel {f['channel'][:8]}… is served {'all the same' if f['served'] else 'no more'}"
    ),
    "chain_unavailable": lambda f: (
        f"  [red]the chain does not answer[/] ({escape(f['why'])}); open channels can be used all the same"
    ),
    "lite_server_dropped": lambda f: f"  [red]the lite-server {f['server']} is not believed[/]: {escape(f['why'])}",
    "watching": lambda f: f"  watching over {f['channels']} channels",
    "charges_failed": lambda f: f"  [red]no new charges[/]: {escape(f['why'])}",
    "look_failed": lambda f: f"  [red]could not look at[/] channel {f['channel'][:8]}…: {escape(f['why'])}",
    "bad_charge": lambda f: f"  [red]channel {f['channel'][:8]}…[/]: the voucher is no good, and is not carried",
    "session_failed": lambda f: f"  [dim]an answer for {short(f['peer'])} ended early: {escape(f['why'])}[/]",
    "interested": lambda f: f"  [cyan]interested[/] {short(f['peer'])}",
    "offered": lambda f: f"  [dim]told {short(f['peer'])} that its {f['per_day']} answers a day can be had here[/]",
    "closed_alone": lambda f: (
        f"  [green]closed[/] channel {f['channel'][:8]}… with {gram(f['settled_nano'])} paid out in all "
        f"(fee {gram(f['fee_nano'])}): {f['why']}"
    ),
    "retired": lambda f: f"  [yellow]channel {f['channel'][:8]}…[/] carries no more answers: {escape(f['why'])}",
    "settle_failed": lambda f: f"  [red]not settled yet[/]: {escape(f['why'])}; the voucher stays good",
    "released": lambda f: f"  [green]released[/] channel {f['channel'][:8]}…: the client may close it",
    "closed": lambda f: f"  [green]closed[/] channel {f['channel'][:8]}… together (fee {gram(f['fee_nano'])})",
    "not_struck_off": lambda f: f"  [red]not struck off[/] {f['tokens']} free tokens: {escape(f['why'])}",
    "auditing": lambda f: f"  [dim]asking {short(f['peer'])} a question of our own, to have its answer read …[/]",
    "audited": _audited,
    "audit_skipped": lambda f: f"  [dim]no audit of {short(f['peer'])}: {escape(f['why'])}[/]",
    "not_noted": lambda f: f"  [red]not remembered[/] how {short(f['peer'])} did: {escape(f['why'])}",
    "strategy_failed": lambda f: f"  [red]the strategy failed[/], and the price stays: {escape(f['why'])}",
    "paused": lambda f: f"  [yellow]resting[/]: {escape(f['why'])}{for_so_long(f['for_s'])}",
    "draining": lambda f: (
        f"  [yellow]ending[/] after {f['answers']} answers under way, in {f['within_s']:g} s at the latest; "
        "Ctrl-C again ends all"
    ),
    "resumed": lambda _: "  [green]serving again[/]",
    "refused": lambda f: f"  [dim]refused {short(f['peer'])}: {escape(f['why'])}[/]",
}
