"""The command line of the simulator."""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path

import msgspec
import pytest
from small_world import small_toml

from sim.__main__ import main
from sim.errors import Violation
from sim.summary import percentile, print_table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def scenario(tmp_path: Path) -> str:
    path = tmp_path / "tiny.toml"
    path.write_text(small_toml(duration_s="200.0", dying_percent="0"), encoding="utf-8")
    return str(path)


def test_table_names_answers_prices_money_latency_and_digest(scenario: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", scenario, "--seed", "3"]) == 0
    out = capsys.readouterr().out
    for heading in ("Answers", "Output price", "Money, GRAM", "Latency, seconds", "Run"):
        assert f"\n{heading}" in out
    assert re.search(r"^  digest +[0-9a-f]{64}$", out, re.MULTILINE)
    assert re.search(r"^  seed +3$", out, re.MULTILINE)
    assert "\x1b" not in out


def test_a_terminal_gets_the_same_lines_in_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal()
    print_table("a title", [("Money", [("paid", "1"), ("given back", "2")])], terminal)
    assert "\x1b[" in terminal.getvalue()
    plain = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue())
    assert [line.split() for line in plain.splitlines()] == [
        ["a", "title"],
        [],
        ["Money"],
        ["paid", "1"],
        ["given", "back", "2"],
    ]


def test_json_is_one_object_and_files_reproduce_the_digest(
    scenario: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "run"
    assert main(["run", scenario, "--json", "--twice", "--out", str(out)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    summary = msgspec.json.decode(line)
    manifest = msgspec.json.decode((out / "manifest.json").read_bytes())
    assert summary["twice"] is True
    assert summary["digest"] == manifest["digest"]
    assert hashlib.sha256((out / "trace.jsonl").read_bytes()).hexdigest() == manifest["digest"]
    assert manifest["seed"] == summary["seed"] == 1
    assert manifest["scenario"]["clients"]["count"] == 16
    assert summary["money_nano"]["paid_to_providers"] == summary["money_nano"]["receipted"] > 0
    records = [msgspec.json.decode(line) for line in (out / "trace.jsonl").read_bytes().splitlines()]
    assert [record["t_us"] for record in records] == sorted(record["t_us"] for record in records)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "second_day"], "unknown scenario 'second_day'"),
        (["run", "first_day", "--sed", "1"], "--sed"),
        (["run", "first_day", "--seed", "one"], "invalid int value: 'one'"),
        (["run"], "SCENARIO|scenario"),
        (["walk"], "'walk'"),
        ([], "COMMAND"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status: object = main(arguments)
    except SystemExit as stop:
        status = stop.code
    captured = capsys.readouterr()
    assert status == 2
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert re.search(says, line)


def test_out_that_cannot_be_written_is_one_line(
    scenario: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["run", scenario, "--out", str(tmp_path / "file")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot write" in line


def test_a_violation_is_one_line_and_status_1(
    scenario: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_scenario: object, seed: int, *, messages: bool) -> None:
        assert not messages
        raise Violation(seed, 12.5, "3 nano are missing")

    monkeypatch.setattr("sim.__main__.simulate", broken)
    assert main(["run", scenario, "--seed", "9"]) == 1
    assert capsys.readouterr().err == "python -m sim: violation with seed 9 at 12.500000 s: 3 nano are missing\n"


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["run", "--help"])
    assert stop.value.code == 0
    assert "python -m sim run first_day --twice" in capsys.readouterr().out


def test_percentiles_are_by_nearest_rank() -> None:
    values = [float(number) for number in range(1, 101)]
    assert [percentile(values, percent) for percent in (50, 90, 99, 100)] == [50, 90, 99, 100]
    assert percentile([7.0], 1) == 7.0
    assert percentile([], 50) == 0.0
