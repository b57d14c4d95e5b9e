from __future__ import annotations

from typing import Any

import msgspec
import pytest

from inference.engine import Delta, Finished, Message, Request, Usage
from inference.errors import ContextOverflow, EngineError
from inference.llamachunks import ChunkReader, answer_body

REQUEST = Request(model="m", messages=(Message("user", "Hi"),), max_tokens=9)


def chunk(text: str, predicted: int, reason: str | None = None) -> dict[str, Any]:
    return {
        "choices": [{"text": text, "finish_reason": reason, "logprobs": None}],
        "timings": {"predicted_n": predicted, "cache_n": 7},
    }


def read(chunks: list[dict[str, Any]], stop: tuple[str, ...] = ()) -> list[Delta | Finished]:
    reader = ChunkReader(msgspec.structs.replace(REQUEST, stop=stop), 9)
    items = []
    for one in chunks:
        assert not reader.done
        items += reader.feed(one)
    assert reader.done
    return items


def test_the_end_token_is_not_counted() -> None:
    chunks = [chunk("", 0), chunk("Hi", 1), chunk("!", 2), chunk("", 3), chunk("", 3, "stop")]
    assert read(chunks) == [Delta("Hi", 1), Delta("!", 1), Finished("stop", Usage(9, 7, 2))]


def test_a_character_of_three_tokens_counts_three() -> None:
    chunks = [chunk("🦋", 3), chunk("🦋", 6), chunk("", 8, "length")]
    assert read(chunks) == [Delta("🦋", 3), Delta("🦋", 3), Delta("", 2), Finished("length", Usage(9, 7, 8))]


def test_a_hidden_token_is_counted_with_the_text_after_it() -> None:
    chunks = [chunk("", 1), chunk("a", 2), chunk("", 3), chunk("", 4), chunk("", 4, "stop")]
    assert read(chunks) == [Delta("a", 2), Delta("", 1), Finished("stop", Usage(9, 7, 3))]


def test_a_stop_string_ends_the_reading() -> None:
    chunks = [chunk("one ", 1), chunk("E", 2), chunk("ND", 3)]
    assert read(chunks, ("END",)) == [Delta("one ", 1), Finished("stop", Usage(9, 7, 1))]


def test_text_held_back_at_the_end_is_delivered() -> None:
    chunks = [chunk("one ", 1), chunk("E", 2), chunk("", 3), chunk("", 3, "stop")]
    assert read(chunks, ("END",)) == [Delta("one ", 1), Delta("E", 1), Finished("stop", Usage(9, 7, 2))]


def test_an_empty_answer_has_no_delta() -> None:
    assert read([chunk("", 0), chunk("", 1), chunk("", 1, "stop")]) == [Finished("stop", Usage(9, 7, 0))]


def test_errors_are_translated_and_their_text_is_dropped() -> None:
    overflow = {"error": {"type": "exceed_context_size_error", "n_prompt_tokens": 3000, "n_ctx": 2048, "message": ""}}
    with pytest.raises(ContextOverflow) as caught:
        ChunkReader(REQUEST, 9).feed(overflow)
    assert (caught.value.prompt_tokens, caught.value.context) == (3000, 2048)
    with pytest.raises(EngineError) as other:
        ChunkReader(REQUEST, 9).feed({"error": {"type": "server_error", "message": "the secret prompt"}})
    assert "secret" not in str(other.value)


@pytest.mark.parametrize("seed", [0, -1, 2**32 - 1, 2**63 - 1, -(2**63)])
def test_no_seed_means_a_random_one(seed: int) -> None:
    request = Request(model="m", messages=(Message("user", "a"),), max_tokens=1, seed=seed)
    assert 0 <= answer_body(request, [1], 0)["seed"] < 2**32 - 1
