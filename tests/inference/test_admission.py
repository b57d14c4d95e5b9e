from __future__ import annotations

from typing import Any

import msgspec
import pytest

from inference.admission import check_features, check_fit, check_request, find_model
from inference.engine import Message, Request
from inference.errors import BadRequest, ContextOverflow, ModelMissing
from inference.scripted import SCRIPTED_MODEL

GOOD = Request(model="m", messages=(Message("user", "hello"),), max_tokens=1)


def test_a_good_request_passes() -> None:
    check_request(GOOD)
    check_request(msgspec.structs.replace(GOOD, seed=2**31 - 1, temperature=2.0, top_p=0.1, stop=("x",)))


@pytest.mark.parametrize(
    "change",
    [
        {"messages": ()},
        {"messages": (Message("function", "secret"),)},  # type: ignore[arg-type]
        {"messages": (Message("user", "secret \ud800"),)},
        {"messages": (Message("user", 5),)},  # type: ignore[arg-type]
        {"messages": (Message("user", "hello"), Message("assistant", ""))},
        {"messages": (Message("assistant", "secret"), Message("assistant", "more"))},
        {"max_tokens": 0},
        {"max_tokens": -1},
        {"max_tokens": "secret"},
        {"max_tokens": 1.5},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_p": float("nan")},
        {"seed": 2**31},
        {"seed": -1},
        {"temperature": 101.0},
        {"stop": ("",)},
        {"stop": ("a", 5)},
    ],
)
def test_nonsense_is_refused_without_quoting_it(change: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as caught:
        check_request(msgspec.structs.replace(GOOD, **change))
    assert "secret" not in str(caught.value)


def test_the_prompt_and_the_answer_must_fit_together() -> None:
    check_fit(90, 10, 100)
    with pytest.raises(ContextOverflow) as caught:
        check_fit(91, 10, 100)
    assert (caught.value.prompt_tokens, caught.value.context) == (91, 100)


def test_an_answer_is_gone_on_with_only_by_a_model_that_can() -> None:
    begun = GOOD.rest("secret", 0)
    check_features(SCRIPTED_MODEL, begun)
    plain = msgspec.structs.replace(SCRIPTED_MODEL, features=())
    check_features(plain, GOOD)
    with pytest.raises(BadRequest, match="does not go on") as caught:
        check_features(plain, begun)
    assert "secret" not in str(caught.value)


def test_only_loaded_models_are_found() -> None:
    assert find_model([SCRIPTED_MODEL], SCRIPTED_MODEL.id) is SCRIPTED_MODEL
    with pytest.raises(ModelMissing):
        find_model([SCRIPTED_MODEL], "other")
