from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inference.engine import Delta
from inference.stopping import StopFilter

text = st.text(alphabet="ab", max_size=4)
pieces = st.lists(st.tuples(text, st.integers(1, 3)), max_size=12)
stops = st.lists(st.text(alphabet="ab", min_size=1, max_size=4), max_size=3).map(tuple)


def run(answer: list[tuple[str, int]], stop: tuple[str, ...]) -> tuple[list[Delta], bool]:
    filtered = StopFilter(stop)
    deltas = []
    for piece, tokens in answer:
        deltas.append(filtered.feed(piece, tokens))
        if filtered.stopped:
            break
    else:
        deltas.append(filtered.flush())
    return [delta for delta in deltas if delta], filtered.stopped


@given(pieces, stops)
def test_text_ends_before_the_stop_string_that_was_complete_first(
    answer: list[tuple[str, int]], stop: tuple[str, ...]
) -> None:
    deltas, stopped = run(answer, stop)
    # The reference looks at the whole text after every piece, as a reader without a filter would.
    seen = ""
    for piece, _ in answer:
        seen += piece
        found = [seen.find(one) for one in stop if one in seen]
        if found:
            seen = seen[: min(found)]
            break
    assert "".join(delta.text for delta in deltas) == seen
    assert stopped == any(one in "".join(piece for piece, _ in answer) for one in stop)


@given(pieces, stops)
def test_every_token_is_counted_once_unless_it_lies_in_the_stop_string(
    answer: list[tuple[str, int]], stop: tuple[str, ...]
) -> None:
    deltas, stopped = run(answer, stop)
    counted = sum(delta.tokens for delta in deltas)
    if not stopped:
        assert counted == sum(tokens for _, tokens in answer)
        return
    delivered = sum(len(delta.text) for delta in deltas)
    begin, least = 0, 0
    for piece, tokens in answer:
        if begin < delivered:
            least += tokens
        begin += len(piece)
    # Tokens without text at the very end of what was delivered may be counted too.
    assert counted - least <= sum(tokens for piece, tokens in answer if not piece)
    assert counted >= least


def test_text_is_held_back_only_while_it_may_begin_a_stop_string() -> None:
    filtered = StopFilter(("END",))
    assert filtered.feed("one E", 2) == Delta("one ", 2)
    assert filtered.feed("N", 1) is None
    assert filtered.feed("T", 1) == Delta("ENT", 2)
    assert filtered.feed(" END", 1) == Delta(" ", 1)
    assert filtered.stopped


def test_a_stop_string_over_several_tokens_costs_none_of_them() -> None:
    filtered = StopFilter(("stop now",))
    assert filtered.feed("please", 1) == Delta("please", 1)
    assert filtered.feed("stop", 1) is None
    assert filtered.feed(" now", 1) is None
    assert filtered.stopped
