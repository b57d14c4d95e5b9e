"""Some bytes for every decoder: anything, and what it takes with changes. `make proof` gives a million."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from targets import TARGETS, TRAPS, Target

by_name = pytest.mark.parametrize("target", [pytest.param(target, id=name) for name, target in TARGETS.items()])


@st.composite
def changed(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """One of `seeds` with pieces of it replaced, dropped, repeated or made up."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(start + 40, len(data))))
        data[start:end] = draw(st.one_of(st.binary(max_size=8), st.just(bytes(data[start:end]) * 2), st.just(b"")))
    return bytes(data)


@by_name
def test_every_seed_is_taken(target: Target) -> None:
    """So that what is changed in it is not lost on the doorstep."""
    for seed in target.seeds:
        assert target.takes(seed)


@by_name
def test_no_decoder_trips(target: Target) -> None:
    for trap in TRAPS:
        target.takes(trap)


@by_name
def test_a_decoder_takes_any_bytes_or_refuses_them_in_its_own_words(target: Target) -> None:
    @settings(max_examples=25, deadline=None)
    @given(st.one_of(st.binary(max_size=200), changed(target.seeds)))
    def try_bytes(data: bytes) -> None:
        target.takes(data)

    try_bytes()
