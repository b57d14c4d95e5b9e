from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.errors import EngineError
from inference.records import SEPARATOR, Call, Embedding, Logprobs, Record, RecordReader, TokenLogprob, embedding, prose
from inference.records import written as as_text

CALL = RecordReader().feed(f'{SEPARATOR}{{"name": "weather", "arguments": {{"city": "Paris"}}}}{SEPARATOR}')[0]
RECORDS: tuple[str | Record, ...] = (
    CALL,
    Logprobs((TokenLogprob(" silk", -0.5, ((" silk", -0.5), (" moth", -1.5))), TokenLogprob("", -2.0))),
    embedding([0.5, -1.0, 0.25]),
)
texts = st.text(st.characters(exclude_characters=SEPARATOR, codec="utf-8"), min_size=1, max_size=9)


def joined(items: list[str | Record]) -> list[str | Record]:
    """With neighbouring pieces of prose as one."""
    whole: list[str | Record] = []
    for item in items:
        if whole and isinstance(item, str) and isinstance(whole[-1], str):
            whole[-1] += item
        else:
            whole.append(item)
    return whole


@given(st.lists(texts | st.sampled_from(RECORDS), max_size=6), st.data())
def test_prose_and_records_come_back_wherever_the_text_is_cut(items: list[str | Record], data: st.DataObject) -> None:
    text = "".join(item if isinstance(item, str) else as_text(item) for item in items)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    reader, read = RecordReader(), []
    for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        read += reader.feed(text[begin:end])
    assert joined(read) == joined(items)
    assert reader.unfinished == ""


def test_what_they_hold() -> None:
    assert isinstance(CALL, Call)
    assert (CALL.name, json.loads(CALL.text)) == ("weather", {"city": "Paris"})
    assert embedding([0.5, -1.0, 0.25]).vector == (0.5, -1.0, 0.25)
    assert prose(f"a{SEPARATOR}b") == "ab"


def test_a_record_that_was_cut_off() -> None:
    reader = RecordReader()
    assert reader.feed(f"Well.{SEPARATOR}{{") == ["Well."]
    assert reader.feed('"name": "wea') == []
    assert reader.unfinished == '{"name": "wea'


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '{"name": 5, "arguments": {}}', '{"name": "x"}', '{"logprobs": [["a"]]}', "{" * 9999, "é"]
)
def test_a_record_that_is_none(text: str) -> None:
    with pytest.raises(EngineError, match="a record"):
        RecordReader().feed(f"{SEPARATOR}{text}{SEPARATOR}")


@pytest.mark.parametrize("text", ["AAAA", "not base64", "AAAAAA==x"])
def test_an_embedding_that_is_none(text: str) -> None:
    with pytest.raises(EngineError, match="an embedding"):
        _ = Embedding(text).vector
