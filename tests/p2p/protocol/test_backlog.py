"""Output that is handed over in parts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2p.protocol.backlog import Backlog

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def test_there_is_nothing_to_be_had_of_nothing() -> None:
    backlog = Backlog()
    assert not backlog
    assert backlog.take(5) == ("", 0)


def test_each_part_has_its_share_of_the_text_and_ends_with_a_whole_character() -> None:
    backlog = Backlog()
    backlog.add("abcd", 2)
    backlog.add("été", 3)
    assert [backlog.take(most) for most in (1, 1, 1, 0, 9)] == [("ab", 1), ("cd", 1), ("é", 1), ("", 0), ("té", 2)]
    assert not backlog


def test_text_without_tokens_waits_for_nobody_and_tokens_without_text_are_tokens() -> None:
    backlog = Backlog()
    backlog.add("!", 0)
    assert backlog.take(0) == ("!", 0)
    backlog.add("", 2)
    assert [backlog.take(most) for most in (0, 1, 1)] == [("", 0), ("", 1), ("", 1)]


@given(st.lists(st.tuples(TEXT, st.integers(0, 40)), max_size=5), st.lists(st.integers(1, 20), min_size=1))
def test_nothing_is_lost_and_no_part_has_more_than_a_character_beyond_its_share(
    pieces: list[tuple[str, int]], parts: list[int]
) -> None:
    backlog = Backlog()
    for text, tokens in pieces:
        backlog.add(text, tokens)
    whole, total = "".join(text for text, _ in pieces).encode(), sum(tokens for _, tokens in pieces)
    had_text, had_tokens = b"", 0
    for part in parts * (total + 1):
        text, tokens = backlog.take(part)
        assert tokens <= part
        had_text, had_tokens = had_text + text.encode(), had_tokens + tokens
        assert whole.startswith(had_text)
        assert len(had_text) * total >= len(whole) * had_tokens
    assert (had_text, had_tokens) == (whole, total)
    assert not backlog
