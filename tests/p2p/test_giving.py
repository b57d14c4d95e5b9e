"""What is given away is bounded whoever asks, whenever, and however often the provider is restarted or killed."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from market import NETWORK, NOON, Diary, InlineKeeper
from trio.testing import MockClock

from chain.book import Book
from p2p.errors import Refused
from p2p.giving import Giving, give, left_in, take
from p2p.protocol.allowance import ALWAYS, DAY_S, Allowance, Bucket, Left, day

LIMITS = Allowance(per_client=100, per_address=150, per_day=300)
CLIENTS, SOURCES = ("a", "b", "c", "d"), ("192.0.2.1", "2001:db8::/56", "a relay")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "book.sqlite"


# Each limit is reached by little more than what the one before allows.
TIGHT = Allowance(per_client=100, per_address=120, per_day=130)


class AnyDays(RuleBasedStateMachine):
    """Against a real book: `worked` is what engines did for nothing, counted by the test alone."""

    answers: Bundle[tuple[tuple[Bucket, ...], int, int]] = Bundle("answers")

    @initialize()
    def begin(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._open()
        self.now = self.latest = float(NOON)
        self.worked: defaultdict[tuple[str, int], int] = defaultdict(int)

    def _open(self) -> None:
        self.book = Book(Path(self._folder.name) / "book.sqlite", "payee", NETWORK)

    def teardown(self) -> None:
        self.book.close()
        self._folder.cleanup()

    @rule(
        target=answers,
        client=st.sampled_from(CLIENTS),
        source=st.sampled_from(SOURCES),
        tokens=st.sampled_from((20, 50, 100)),
        part=st.sampled_from((100, 50, 0)),
    )
    def ask(self, client: str, source: str, tokens: int, part: int) -> tuple[tuple[Bucket, ...], int, int]:
        """An answer that may take `tokens`, and of which so many per cent are worked on."""
        buckets = TIGHT.buckets(client, source, self.now)
        room = left_in(self.book, buckets)
        try:
            with self.book.batch():
                take(self.book, buckets, tokens, self.now)
        except Refused:
            assert tokens > min(room), "it would have had room"
            return (), 0, 0
        used = tokens * part // 100
        for bucket in buckets:
            self.worked[bucket.who, bucket.day] += used
        return buckets, tokens, used

    @rule(answer=consumes(answers), killed=st.booleans())
    def end(self, answer: tuple[tuple[Bucket, ...], int, int], killed: bool) -> None:
        """With the answer, or with the provider: then nothing is struck off."""
        buckets, tokens, used = answer
        if killed:
            self.book.close()
            self._open()
        else:
            with self.book.batch():
                give(self.book, buckets, used - tokens)

    @rule(days=st.sampled_from((0.3, 1, 2.5, -0.4, -1)))
    def look_at_the_clock(self, days: float) -> None:
        """Time has passed, or the clock was set back, by no more than a day."""
        self.now = max(self.now + days * DAY_S, self.latest - DAY_S)
        self.latest = max(self.latest, self.now)

    @invariant()
    def no_more_is_worked_than_is_given(self) -> None:
        for (who, on), tokens in self.worked.items():
            limit = {"c": TIGHT.per_client, "f": TIGHT.per_address, "e": TIGHT.per_day}[who[0]]
            assert tokens <= limit, f"{who} on day {on}"


AnyDays.TestCase.settings = settings(max_examples=50, stateful_step_count=15, deadline=None)
TestAnyDays = AnyDays.TestCase


def test_what_was_given_on_a_day_is_forgotten_and_to_whom_is_not(path: Path) -> None:
    with Book(path, "payee", NETWORK) as book:
        first, third = (LIMITS.buckets("a", "192.0.2.1", NOON + days * DAY_S) for days in (0, 2))
        take(book, first, 60, NOON)
        with pytest.raises(Refused, match="40 free tokens are left for you"):
            take(book, third, 41, NOON + 2 * DAY_S)
        take(book, third, 40, NOON + 2 * DAY_S)
        today = day(NOON)
        assert [book.given(who, on) for who, on in (("everybody", today), ("from 192.0.2.1", today))] == [0, 0]
        assert book.given("client a", ALWAYS) == 100


async def test_what_an_answer_did_not_take_is_struck_off_when_it_is_over(path: Path, autojump_clock: MockClock) -> None:
    with Book(path, "payee", NETWORK) as book:
        giving = Giving(InlineKeeper(book), LIMITS, lambda: NOON)
        assert giving.tokens == 100
        async with giving.granted("a", "192.0.2.1", 80, lambda: 30):
            assert await giving.left("a", "192.0.2.1") == Left(20, 70, 220)
        assert await giving.left("a", "192.0.2.1") == Left(70, 120, 270)
        assert await giving.left("b", "192.0.2.1") == Left(100, 120, 270)


def test_an_answer_that_outlasts_what_its_day_is_remembered_for_strikes_nothing_off(path: Path) -> None:
    with Book(path, "payee", NETWORK) as book:
        first = LIMITS.buckets("a", "192.0.2.1", NOON)
        take(book, first, 60, NOON)
        take(book, LIMITS.buckets("b", "192.0.2.1", NOON + 2 * DAY_S), 10, NOON + 2 * DAY_S)
        give(book, first, -60)
        assert [book.given(bucket.who, bucket.day) for bucket in first] == [0, 0, 0]
        assert book.given("everybody", day(NOON) + 2) == 10


async def test_what_cannot_be_struck_off_counts_as_given(path: Path, autojump_clock: MockClock) -> None:
    with Book(path, "payee", NETWORK) as book:
        keeper, diary = InlineKeeper(book), Diary()
        giving = Giving(keeper, LIMITS, lambda: NOON, diary)
        async with giving.granted("a", "192.0.2.1", 80, lambda: 30):
            keeper.commits_left = 0
        keeper.commits_left = None
        assert await giving.left("a", "192.0.2.1") == Left(20, 70, 220)
        assert [one["tokens"] for one in diary.of("not_struck_off")] == [50]


async def test_where_nothing_is_given_nothing_is_looked_up(path: Path, autojump_clock: MockClock) -> None:
    with Book(path, "payee", NETWORK) as book:
        keeper = InlineKeeper(book)
        keeper.commits_left = 0
        assert await Giving(keeper, Allowance(), lambda: NOON).left("a", "192.0.2.1") == Left()


def test_a_clock_that_is_set_back_by_a_day_finds_what_was_given_on_that_day(path: Path) -> None:
    with Book(path, "payee", NETWORK) as book:
        take(book, LIMITS.buckets("a", "192.0.2.1", NOON), 60, NOON)
        take(book, LIMITS.buckets("b", "192.0.2.1", NOON + DAY_S), 60, NOON + DAY_S)
        assert left_in(book, LIMITS.buckets("c", "192.0.2.1", NOON)) == Left(100, 90, 240)
