"""The Telegram bot's parts: what users may spend, and how an answer grows. tests/whole runs all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from telegram.error import RetryAfter, TimedOut

from examples.telegram_bot.__main__ import main
from examples.telegram_bot.allowance import DAY_S, Allowance, AllSpent, Limits, open_allowance
from examples.telegram_bot.bot import CANNOT_PAY, NOBODY, OVER_BUDGET, kindly
from examples.telegram_bot.conversations import CHARACTERS_MAX, CHATS_MAX, Conversations
from examples.telegram_bot.messages import GrowingMessages, fitting
from inference.engine import Message
from p2p.errors import PaymentError, Refused, Unavailable

LIMITS = Limits(user_day_nano=100, day_nano=150, answer_nano=40)


class Clock:
    now_s = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def allowance(tmp_path: Path, clock: Clock) -> Iterator[Allowance]:
    with open_allowance(tmp_path / "bot.sqlite", LIMITS, clock) as opened:
        yield opened


def test_what_an_answer_did_not_cost_is_given_back(allowance: Allowance) -> None:
    reservation = allowance.reserve(1)
    assert (reservation.nano, allowance.left_nano(1)) == (40, 60)
    allowance.settle(reservation, 15)
    assert allowance.left_nano(1) == 85


def test_the_last_answer_may_cost_what_is_left(allowance: Allowance) -> None:
    assert [allowance.reserve(1).nano for _ in range(3)] == [40, 40, 20]
    with pytest.raises(AllSpent):
        allowance.reserve(1)


def test_all_users_together_have_a_limit(allowance: Allowance) -> None:
    assert [allowance.reserve(user).nano for user in (1, 2, 3, 4)] == [40, 40, 40, 30]
    with pytest.raises(AllSpent):
        allowance.reserve(5)


def test_a_day_begins_anew(allowance: Allowance, clock: Clock) -> None:
    before = allowance.reserve(1)
    clock.now_s += DAY_S
    assert allowance.reserve(1).nano == 40
    allowance.settle(before, 0)  # of a day that is over: nothing of today's is given back
    assert allowance.left_nano(1) == 60


def test_what_a_crash_leaves_counts_as_spent(tmp_path: Path, clock: Clock) -> None:
    with open_allowance(tmp_path / "bot.sqlite", LIMITS, clock) as before:
        before.reserve(1)
    with open_allowance(tmp_path / "bot.sqlite", LIMITS, clock) as after:
        assert after.left_nano(1) == 60


@settings(max_examples=50)
@given(st.text(max_size=40), st.integers(2, 10))
def test_a_text_is_cut_where_it_fits(text: str, limit: int) -> None:
    at = fitting(text, limit)
    assert len(text[:at].encode("utf-16-le")) <= 2 * limit
    assert at > 0 or not text
    assert (at == len(text)) == (len(text.encode("utf-16-le")) <= 2 * limit)


def test_it_is_cut_between_words() -> None:
    assert fitting("one two three", 9) == len("one two ")
    assert fitting("unbroken", 4) == 4
    assert fitting("\N{SPIDER}" * 3, 4) == 2  # each is two of UTF-16


class Shown:
    """A chat in which the bot answers one message; a refusal that is due is raised instead."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.history: list[str] = []
        self.refusals: list[Exception] = []

    async def reply_text(self, text: str) -> Any:
        self._obey(text)
        self.texts.append(text)
        return self

    async def edit_text(self, text: str) -> None:
        self._obey(text)
        self.texts[-1] = text

    def _obey(self, text: str) -> None:
        if self.refusals:
            raise self.refusals.pop()
        self.history.append(text)


def show(pieces: list[str], clock: Clock, refusals: list[Exception], *, seconds_apart: float) -> Shown:
    chat = Shown()

    async def grow() -> None:
        growing = GrowingMessages(chat, 1.5, clock)  # type: ignore[arg-type]
        for number, piece in enumerate(pieces):
            if number == 1:
                chat.refusals = refusals
            await growing.add(piece)
            clock.now_s += seconds_apart
        await growing.flush()

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(grow())
    return chat


def test_edits_are_so_far_apart(clock: Clock) -> None:
    chat = show(["a", "b", "c", "d", "e"], clock, [], seconds_apart=0.5)
    assert chat.history == ["a", "abcd", "abcde"]


def test_a_refused_edit_is_left_to_a_later_one(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTB_TIMEDELTA", "1")
    chat = show(["a", "b", "c", "d", "e"], clock, [RetryAfter(5)], seconds_apart=2.0)
    assert chat.history == ["a", "abcde"]
    chat = show(["a", "b", "c"], clock, [TimedOut()], seconds_apart=2.0)
    assert chat.history == ["a", "abc"]


def test_a_long_answer_is_several_messages(clock: Clock) -> None:
    words = ["word "] * 2000
    chat = show(words, clock, [], seconds_apart=0.0)
    assert [len(text) for text in chat.texts] == [4094, 4094, 1809]
    assert " ".join(chat.texts) == "".join(words).strip()


def test_a_conversation_is_as_long_as_a_model_can_read() -> None:
    conversations = Conversations()
    for number in range(100):
        asked = conversations.asked(1, f"question {number} {'x' * 200}")
        conversations.answered(1, asked, "y" * 200)
    assert sum(len(turn.content) for turn in conversations.asked(1, "and now?")) <= CHARACTERS_MAX
    assert conversations.asked(1, "and now?")[-2:] == (Message("assistant", "y" * 200), Message("user", "and now?"))
    conversations.forget(1)
    assert conversations.asked(1, "again") == (Message("user", "again"),)


def test_chats_that_are_silent_longest_are_forgotten() -> None:
    conversations = Conversations()
    for chat in range(CHATS_MAX + 1):
        conversations.answered(chat, conversations.asked(chat, "hello"), "hello")
    assert len(conversations.asked(0, "?")) == 1
    assert len(conversations.asked(1, "?")) == 3


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Refused("over_budget", "it could cost 7 nano"), OVER_BUDGET),
        (Refused("no_offer", "nobody is cheap enough"), NOBODY),
        (Unavailable("nobody answers"), NOBODY),
        (PaymentError("the wallet 0:08be holds nothing"), CANNOT_PAY),
    ],
)
def test_errors_are_said_kindly(error: Any, said: str) -> None:
    assert kindly(error) == said


def test_no_token_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["examples.telegram_bot"])
    monkeypatch.delenv("TELEGRAM_BOT_TOKEN", raising=False)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "BotFather" in capsys.readouterr().err
