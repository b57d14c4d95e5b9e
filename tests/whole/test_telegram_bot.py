"""The Telegram bot as a process, with the real library, a Bot API of the test's own, and answers paid on a devnet."""

from __future__ import annotations

import re
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from local import SCRIPTED, Local
from processes import Process, Processes
from telegram_api import TOKEN, Telegram, open_telegram

from examples.telegram_bot.bot import OVER_BUDGET

pytestmark = pytest.mark.slow

USER_DAY_NANO = 60_000
ANSWER_NANO = 40_000


class Running(NamedTuple):
    """A bot that is up."""

    telegram: Telegram
    process: Process
    home: Path

    def spent_nano(self, user: int) -> int:
        """What the bot has on disk for that user."""
        database = sqlite3.connect(self.home / "telegram.sqlite")
        try:
            row = database.execute("SELECT nano FROM spent WHERE user = ?", (user,)).fetchone()
        finally:
            database.close()
        return int(row[0]) if row else 0


def start_bot(processes: Processes, network: Path, api: str, token: str = TOKEN) -> tuple[Process, Path]:
    home = processes.directory / "bot"
    environment = {
        "TELEGRAM_BOT_TOKEN": token,
        "BOMBYX_HOME": str(home),
        "BOMBYX_NETWORK": str(network),
        "BOMBYX_ASK_MODEL": SCRIPTED,
        "BOMBYX_ASK_MAX_TOKENS": "40",
    }
    limits = ("--user-day-nano", str(USER_DAY_NANO), "--answer-nano", str(ANSWER_NANO))
    return processes.start("examples.telegram_bot", "--api", api, *limits, environment=environment), home


@pytest.fixture(scope="module")
def bot(network: Local, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Processes(tmp_path_factory.mktemp("telegram")) as processes, open_telegram() as (telegram, api):
        home = processes.directory / "bot"
        assert processes.run("p2p.node", "wallet", "fund", "--network", network.file, "--home", home).code == 0
        process, _ = start_bot(processes, network.file, api)
        yield Running(telegram, process, home)
        process.signal(signal.SIGTERM)
        done = process.wait()
        assert done.code == 0
        assert set(re.findall(r"^\S+ \S+ \S+", done.err, re.MULTILINE)) <= {"no answer (over_budget):"}


def test_help(bot: Running) -> None:
    assert "/summarise" in bot.telegram.answer("/start")
    assert {command["command"] for command in bot.telegram.commands} >= {"summarise", "draft", "translate", "budget"}


@pytest.mark.parametrize(
    "text", ["why is silk strong", "/summarise Silk is strong.", "/draft decline politely", "/translate French silk"]
)
def test_answers_are_bought(bot: Running, text: str) -> None:
    user = 100 + len(text)
    answer = bot.telegram.answer(text, user)
    assert len(answer.split()) > 10
    cost = re.search(r"\(0\.(\d+) GRAM; (.+) is left for today\)$", answer)
    assert cost is not None, answer
    assert int(cost[1].ljust(9, "0")) == bot.spent_nano(user) > 0


def test_a_message_that_is_answered_gives_the_text(bot: Running) -> None:
    letter = {"message_id": 1, "date": 1, "chat": {"id": 8, "type": "private"}, "text": "Dear Ann, come!"}
    assert bot.telegram.answer("/summarise", 8).startswith("Of what?")
    assert "is left for today" in bot.telegram.answer("/summarise", 8, reply_to_message=letter)


def test_a_user_spends_no_more_than_a_day_allows(bot: Running) -> None:
    """The others still may."""
    answers = iter(lambda: bot.telegram.answer("/draft of silk", 9), OVER_BUDGET)
    assert all("is left for today" in answer for answer in answers)
    assert 0 < bot.spent_nano(9) <= USER_DAY_NANO
    assert "left for today" in bot.telegram.answer("tell me of silk", 10)


def test_a_flood_is_waited_out(bot: Running) -> None:
    bot.telegram.floods = 2
    assert "left for today" in bot.telegram.answer("tell me of silk", 11)
    assert bot.telegram.floods == 0


def test_a_wrong_token_is_said(network: Local, processes: Processes, bot: Running) -> None:
    with open_telegram() as (_, api):
        process, _ = start_bot(processes, network.file, api, token="1:wrong")
        assert "token" in process.wait().complaint.lower()
