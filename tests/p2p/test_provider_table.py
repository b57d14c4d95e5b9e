"""How a provider is doing: the sums, the rows of the table, the lines for programs, and a terminal with it all."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from market import clock, open_market, question
from rich.console import Console
from trio.testing import MockClock

from inference.gpu import GIBIBYTE, Gpu
from inference.scripted import Scripted
from p2p.manners import STOPPING, Pause
from p2p.protocol.allowance import DAY_S
from p2p.provider_table import Snapshot, fields, rows, sold_before
from p2p.purchase import buy
from p2p.story import Story
from p2p.takings import RATE_OVER_S, Sold, Takings

NOON = 20_780.5 * DAY_S
CARD = Gpu("Card 9000", 24 * GIBIBYTE, 6 * GIBIBYTE, 311.6, 87, frozenset({7}))
AT_WORK = Snapshot(
    models=("a/b", "c"),
    slots=4,
    answering=3,
    sold=Sold(2, 40, 1_500, 2_000_000_000, 95),
    peers=5,
    pause=None,
    gpus=(CARD, CARD._replace(power_w=None)),
)
SHOWN = {
    "serving": "a/b, c",
    "state": "serving",
    "slots": "3 of 4 in use",
    "speed": "95 tokens/s",
    "answers": "2 today, 40 in all",
    "earned": "0.0000015 GRAM today, 2 GRAM in all",
    "peers": "5",
    "GPU 0": "Card 9000: 87 % busy, 18.0 of 24.0 GiB taken, 312 W",
    "GPU 1": "Card 9000: 87 % busy, 18.0 of 24.0 GiB taken",
}


class Day:
    """A clock that is set."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def test_what_was_sold_goes_on_from_the_book_and_begins_anew_each_day() -> None:
    clock = Day(NOON)
    takings = Takings(clock, Sold(answers_today=2, answers=40, earned_today_nano=7, earned_nano=100))
    takings("served", earned_nano=30, model="a/b")
    takings("refused", reason="busy")
    assert takings.sold() == Sold(3, 41, 37, 130)
    clock.now += DAY_S / 2
    assert takings.sold() == Sold(0, 41, 0, 130)
    takings("served", earned_nano=1)
    assert takings.sold() == Sold(1, 42, 1, 131)


@pytest.mark.parametrize(
    ("went_out", "after_s", "tokens_per_s"),
    [
        ([], 0, 0),
        ([(0, 10)], 0, 0),  # of the second that is not over
        ([(0, 10)], 1, 2),
        ([(0, 10)], RATE_OVER_S, 2),
        ([(0, 10)], RATE_OVER_S + 1, 0),
        ([(second / 10, 7) for second in range(50)], 5, 70),
        ([(0, 10), (3600, 5)], 3601, 1),
        ([(0, 10), (-3600, 5)], -3599, 1),  # the clock was set back
    ],
)
def test_tokens_per_second_are_of_the_last_whole_seconds(
    went_out: list[tuple[float, int]], after_s: float, tokens_per_s: int
) -> None:
    clock = Day(NOON)
    takings = Takings(clock)
    for when_s, tokens in went_out:
        clock.now = NOON + when_s
        takings.went_out(tokens)
    clock.now = NOON + after_s
    assert takings.sold().tokens_per_s == tokens_per_s


@pytest.mark.parametrize(
    ("changed", "shown"),
    [
        ({}, {}),
        ({"gpus": ()}, {"GPU 0": None, "GPU 1": None}),
        (
            {"pause": Pause("on_battery", "the provider runs on battery")},
            {"state": "paused: the provider runs on battery"},
        ),
        (
            {"pause": Pause("out_of_hours", "the provider serves at other hours", 14_400)},
            {"state": "paused: the provider serves at other hours, for 4 h 0 min more"},
        ),
        (
            {"pause": STOPPING},
            {"state": "draining: 3 answers under way may end, nothing new begins"},
        ),
    ],
)
def test_the_rows_of_the_table(changed: dict[str, Any], shown: dict[str, str | None]) -> None:
    wanted = {name: value for name, value in (SHOWN | shown).items() if value is not None}
    assert dict(rows(replace(AT_WORK, **changed))) == wanted


def test_for_programs_the_same_are_plain_numbers() -> None:
    told = fields(replace(AT_WORK, pause=STOPPING, gpus=(CARD,)))
    assert json.loads(json.dumps(told)) == {
        "slots": 4,
        "slots_used": 3,
        "answers_today": 2,
        "answers": 40,
        "earned_today_nano": 1_500,
        "earned_nano": 2_000_000_000,
        "tokens_per_s": 95,
        "peers": 5,
        "paused": "stopping",
        "gpus": [
            {
                "name": "Card 9000",
                "total": 24 * GIBIBYTE,
                "free": 6 * GIBIBYTE,
                "power_w": 311.6,
                "busy_percent": 87,
            }
        ],
    }


async def test_the_sums_are_those_of_the_book_and_follow_each_answer(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        rates: list[int] = []
        takings = Takings(clock)

        def went_out(tokens: int) -> None:
            takings.went_out(tokens)
            rates.append(takings.sold().tokens_per_s)

        seller = await market.seller(Scripted(tokens_per_s=10), went_out=went_out)
        client = await market.customer()
        bought = await buy(client.peer, question(max_tokens=80), lambda _: None)
        assert max(rates) in {9, 10}
        await seller.provider.drained()
        in_book = await sold_before(seller.keeper, clock())
        (served,) = seller.diary.of("served")
        takings("served", **served)
        assert takings.sold()[:4] == in_book[:4] == (1, 1, bought.cost_nano, bought.cost_nano)


def test_in_a_terminal_the_table_stays_below_what_is_said_and_goes_away_in_the_end() -> None:
    out = io.StringIO()
    story = Story(Console(file=out, force_terminal=True, width=80))
    with story.standing() as draw:
        draw(list(rows(AT_WORK)))
        story.say("served somebody")
        between = out.getvalue()
        draw(list(rows(replace(AT_WORK, answering=1))))
    shown = out.getvalue()
    assert between.rindex("served somebody") < between.rindex("3 of 4 in use")
    assert "1 of 4 in use" in shown[len(between) :]
    assert shown.endswith("\x1b[2K"), "the last line of it is wiped"
