from __future__ import annotations

import json
import sys

import pytest
import trio

from inference.bench import _Wrong, main, spec_of
from inference.exllama.settings import ExLlama
from inference.llamacpp import LlamaCpp
from inference.load import Load, put_on
from inference.scripted import Scripted, open_scripted

PACED = Scripted(slots=4, ttft_s=0.5, tokens_per_s=10)


async def test_what_a_load_takes(autojump_clock: trio.abc.Clock) -> None:
    """Answers of eleven tokens take 1.6 s here; of its fourth each stream has the first two."""
    async with open_scripted(PACED) as engine:
        shares: list[float] = []
        taken = await put_on(engine, Load(streams=3, tokens=11, seconds=5.45), shares.append)
    assert (taken.streams, taken.answers) == (3, 9)
    assert taken.tokens_per_s == pytest.approx(3 * (3 * 11 + 2) / 5.45)
    assert taken.first.p50_ms == pytest.approx(500, rel=0.01)
    assert taken.between == pytest.approx((100, 100))
    assert shares == sorted(shares)
    assert shares[-1] > 0.9


def test_settings_are_words() -> None:
    spec = spec_of("exllama", ["folder=/m", "id=m", "family=m", "cache=q4", "slots=3", "gpu_split_gib=[1, 2.5]"], 64)
    assert spec == ExLlama(folder="/m", id="m", family="m", cache="q4", slots=3, context=1024, gpu_split_gib=(1, 2.5))
    assert spec_of("llamacpp", [], 8) == LlamaCpp(slots=8, context=1024)
    for engine, setting, what in (
        ("llamacpp", "slots", "write NAME=VALUE"),
        ("llamacpp", "slots=many", "Expected `int`"),
        ("llamacpp", "colour=red", "no setting colour, but model"),
        ("exllama", "cache=q4", "missing required field"),
    ):
        with pytest.raises(_Wrong, match=what):
            spec_of(engine, [setting], 1)


@pytest.mark.slow
def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bench", *arguments])
        return main(), *capsys.readouterr()

    status, out, err = run("scripted", "ttft_s=0.01", "--streams", "1,2", "--seconds", "0.4", "--json")
    assert (status, err) == (0, "")
    report = json.loads(out)
    assert [load["streams"] for load in report["loads"]] == [1, 2]
    assert all(load.keys() >= {"tokens_per_s", "first", "between"} for load in report["loads"])
    assert report["memory_mib"] > 1
    status, out, err = run("scripted", "--streams", "none")
    assert (status, out, err.count("\n")) == (2, "", 1)
