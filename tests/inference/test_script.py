from __future__ import annotations

from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engine import Delta, Finished, Message, Request
from inference.script import SHORTEST_TOKENS, answer, count_tokens

requests = st.builds(
    Request,
    model=st.text(max_size=5),
    messages=st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), st.text()), max_size=3).map(
        tuple
    ),
    max_tokens=st.integers(1, 400),
    temperature=st.floats(0, 2),
    top_p=st.floats(0.1, 1),
    seed=st.integers(-(2**63), 2**63 - 1),
    stop=st.lists(st.sampled_from([" silk", "moth r", "e", "leaf "]), max_size=2).map(tuple),
)


@dataclass
class Whole:
    text: str
    tokens: int
    finished: Finished


def read(request: Request) -> Whole:
    *deltas, finished = answer(request)
    assert isinstance(finished, Finished)
    parts = [delta for delta in deltas if isinstance(delta, Delta)]
    return Whole("".join(part.text for part in parts), sum(part.tokens for part in parts), finished)


@given(requests)
def test_answers_repeat_add_up_and_keep_their_limits(request: Request) -> None:
    whole = read(request)
    assert read(request) == whole
    assert whole.finished.usage.completion_tokens == whole.tokens <= request.max_tokens
    assert whole.finished.usage.prompt_tokens == count_tokens(request.messages)
    assert not any(stop in whole.text for stop in request.stop)
    if whole.finished.reason == "length":
        assert whole.tokens == request.max_tokens


@given(requests)
def test_a_shorter_answer_begins_the_longer_one(request: Request) -> None:
    unlimited = read(msgspec.structs.replace(request, max_tokens=10_000, stop=()))
    assert unlimited.finished.reason == "stop"
    assert unlimited.tokens >= SHORTEST_TOKENS
    assert unlimited.text.startswith(read(request).text)


@given(requests.filter(lambda request: not request.continues and request.messages), st.integers(1, 600))
def test_from_wherever_it_breaks_off_it_goes_on_to_the_same_end(request: Request, characters: int) -> None:
    unlimited = msgspec.structs.replace(request, max_tokens=10_000, stop=())
    whole = read(unlimited).text
    begun = whole[:characters]
    assert begun + read(unlimited.rest(begun, len(begun.split()))).text == whole
    again = unlimited.rest(begun[:-1], 1).rest(begun[-1], 1) if begun[:-1] else unlimited.rest(begun, 2)
    assert again == unlimited.rest(begun, 2)


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"temperature": 0.5}, {"model": "other"}, {"messages": (Message("user", "b"),)}]
)
def test_whatever_decides_the_answer_changes_it(change: dict[str, object]) -> None:
    request = Request(model="m", messages=(Message("user", "a"),), max_tokens=20)
    assert read(request).text != read(msgspec.structs.replace(request, **change)).text
