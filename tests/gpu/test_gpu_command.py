"""What of `make gpu` can be tried without a GPU."""

from __future__ import annotations

import sys
from pathlib import Path

import on_gpu
import pytest
import run

from inference.bench import Report
from inference.load import Taken, Times


def report(rates: dict[int, float]) -> Report:
    loads = tuple(
        Taken(streams=count, tokens_per_s=rate, answers=1, first=Times(1, 2), between=Times(3, 4))
        for count, rate in rates.items()
    )
    return Report(model="m", loads=loads, memory_mib=1000, gpu_mib=None)


def test_a_table_has_medians_of_rates_and_of_ratios() -> None:
    bare = dict.fromkeys(run.STREAMS, 100.0)
    rounds = [run.Round(bare, report(dict.fromkeys(run.STREAMS, rate))) for rate in (98.0, 90.0, 99.0)]
    lines, least = run.table("m", rounds)
    assert least == 0.98
    assert "| 64 | 100 | 98 | 0.980 | 1.0, 2.0 | 3.0, 4.0 |" in lines


def test_the_section_is_replaced_and_the_others_stay() -> None:
    page = "# Benchmarks\n\n## One\n\nfirst\n"
    once = run.written(page, ["old"])
    assert once == "# Benchmarks\n\n## One\n\nfirst\n\n## ExLlama on a GPU\n\nold\n"
    assert run.written(once, ["new"]) == once.replace("old", "new")
    between = once + "\n## Two\n\nsecond\n"
    assert run.written(between, ["new"]) == between.replace("old", "new")


@pytest.mark.skipif(not on_gpu.unavailable(), reason="there is a GPU, and it would be measured")
def test_without_a_gpu_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    monkeypatch.setattr(sys, "argv", ["run.py", "--out", str(page)])
    for _ in range(2):
        assert run.main() == 1
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert page.read_text().count("Not run: ") == 1
