from __future__ import annotations

from dataclasses import dataclass
from statistics import mean, stdev

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engine import Delta, Finished, Message, Request
from inference.script import SHORTEST_TOKENS, answer, count_tokens, scored

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
    assert whole.finished.usage.prompt_tokens == count_tokens(request)
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


@given(requests)
def test_an_answer_is_as_likely_as_answers_of_these_weights_are(request: Request) -> None:
    whole = read(msgspec.structs.replace(request, stop=()))
    found = scored(request, whole.text)
    assert found.tokens == len(found.figures) == whole.tokens
    assert found.end is not None
    assert found.end.logprob > -2 or whole.finished.reason == "length"
    likely = [one.logprob for one in found.figures]
    assert min(likely) > -2
    other = scored(msgspec.structs.replace(request, model=request.model + "x"), whole.text)
    assert sum(one.logprob for one in other.figures) <= sum(likely)


def test_what_is_drawn_is_as_likely_as_was_to_be_expected() -> None:
    deviations = []
    for seed in range(100):
        request = Request(model="m", messages=(Message("user", "a"),), max_tokens=50, temperature=1.0, seed=seed)
        found = scored(request, read(request).text).figures
        deviation = sum(one.logprob - one.mean for one in found)
        deviations.append(deviation / sum(one.variance for one in found) ** 0.5)
    assert abs(mean(deviations)) < 0.3
    assert 0.7 < stdev(deviations) < 1.3
