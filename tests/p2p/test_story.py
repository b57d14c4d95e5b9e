"""What is told to people: complete, plain where there is no terminal, and never in a stranger's hand."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from market import DEPOSIT_NANO, MODEL, PRICES, Diary, open_market, question
from rich.console import Console
from trio.testing import MockClock, wait_all_tasks_blocked

from inference.scripted import Scripted
from p2p.budget import Budget
from p2p.errors import Error
from p2p.protocol.strategy import AskForLess, UtilisationPrice
from p2p.purchase import buy
from p2p.story import LINES, JsonLines, Story, answer_to, gram, per_million, short
from p2p.trace import MESSAGES


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def told(diary: Diary) -> str:
    out = io.StringIO()
    story = Story(Console(file=out, width=40))
    for kind, fields in diary.records:
        story(kind, **fields)
    return out.getvalue()


async def test_a_market_day_is_told_without_a_gap_and_without_the_prompt(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Every record that provider and client make must be one that the story can tell."""
    async with open_market(tmp_path) as market:
        seller = await market.seller(Scripted(slots=1), strategy=UtilisationPrice(PRICES, 20), settle_at_nano=1)
        gone = await market.seller(name="gone")
        await market.kill(gone)
        client = await market.customer(budget=Budget(strategy=AskForLess(10)))
        pieces: list[str] = []
        bought = await buy(client.peer, question("my secret question"), pieces.append)
        await wait_all_tasks_blocked()
        await client.peer.find(MODEL)
        await client.peer.agree(await client.peer.find(MODEL), question())
        with pytest.raises(Error):
            await client.peer.agree(await client.peer.find(MODEL), question())
        deal = bought.answer.deal
        async with client.peer._payers.lease(deal.provider, deal.quote.channel, DEPOSIT_NANO):
            pass  # it is more than is left, so the channel is topped up
        await client.peer.close_channel(bought.answer.channel)
        assert "".join(pieces) == bought.text
        ours, theirs = told(client.diary), told(seller.diary)
        for word in ("found", "does not answer", "quote", "counter-offer", "agreed", "opening", "used up", "closed"):
            assert word in ours
        for word in ("channel", "served", "settled", "released"):
            assert word in theirs
        assert "secret" not in json.dumps([client.diary.records, seller.diary.records])
        assert not any(word in json.dumps(seller.diary.records) for word in bought.text.split() if len(word) > 6)
        assert all(len(line) > 40 for line in ours.splitlines() if "agreed" in line), "lines are not broken"
        assert {kind for kind, _ in client.diary.records} <= LINES.keys() | MESSAGES | {"advert"}
        cost = bought.cost_nano
        assert bought.summary["cost_nano"] == cost == bought.summary["delivered_nano"]
        assert bought.summary["usage"] == {"prompt_tokens": 4, "completion_tokens": 40}
        assert bought.summary["quoted_first"]["output"] > bought.summary["agreed"]["output"]
        json.dumps(bought.summary)
        assert dict(bought.rows())["cost"] == f"{gram(cost)} ({cost:,} nano)"


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (0, "0 GRAM"),
        (1, "0.000000001 GRAM"),
        (1_000_000_000, "1 GRAM"),
        (-1_500_000_000, "-1.5 GRAM"),
        (120, "0.00000012 GRAM"),
    ],
)
def test_amounts(nano: int, text: str) -> None:
    assert gram(nano) == text


def test_names_and_prices() -> None:
    assert short("12D3KooWabcdef") == "…abcdef"
    assert per_million(60_000_000, 180_000_000) == "0.06 GRAM in, 0.18 GRAM out, for a million tokens"


def test_a_strangers_words_are_not_markup_and_not_orders() -> None:
    out = io.StringIO()
    story = Story(Console(file=out))
    story("no_quote", peer="p", why="[red]x[/red]")
    assert "[red]x[/red]" in out.getvalue()
    terminal = Terminal()
    with answer_to(terminal) as piece:
        piece("a\x1b[2J\x9bb\r\tc\n")
    assert terminal.getvalue() == "a[2Jb\tc\n\n"
    pipe = io.StringIO()
    with answer_to(pipe) as piece:
        piece("a\x1b[2J")
    assert pipe.getvalue() == "a\x1b[2J\n", "what is piped is what was answered"
    shown = io.StringIO()
    Story(Console(file=shown)).piece("[b]a\x1b[2J")
    assert shown.getvalue() == "[b]a[2J"


def test_an_answer_ends_its_line_however_it_ends_and_nothing_has_no_line() -> None:
    out = io.StringIO()

    def fail() -> None:
        with answer_to(out) as piece:
            piece("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert out.getvalue() == "half\n"
    with answer_to(out):
        pass
    assert out.getvalue() == "half\n"
    with answer_to(None) as piece:
        piece("nobody reads this")


def test_machines_get_one_object_a_line() -> None:
    out = io.StringIO()
    trace = JsonLines(out)
    trace("served", peer="p", tokens_out=3)
    trace("ready")
    assert [json.loads(line) for line in out.getvalue().splitlines()] == [
        {"event": "served", "peer": "p", "tokens_out": 3},
        {"event": "ready"},
    ]


@pytest.mark.parametrize("terminal", [False, True])
def test_tables_and_progress(terminal: bool) -> None:
    out = io.StringIO()
    story = Story(Console(file=out, force_terminal=terminal, width=60))
    story.table("[title]", [("name", "value [x]"), ("longer name", "2")])
    with story.progress(2) as step:
        step("one")
        step("two")
    text = out.getvalue()
    assert "[title]" in text or terminal
    assert "value [x]" in text
    assert ("Starting one …\nStarting two …\n" in text) != terminal
