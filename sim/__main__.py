"""`python -m sim`: run a scenario and say what came of it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import NoReturn

import msgspec

from sim.errors import ScenarioError, Violation
from sim.run import Outcome, simulate
from sim.scenario import Scenario, known_scenarios, load_scenario
from sim.summary import print_table, sections, summarise, timing

EXIT_BROKEN = 1  # a promise was broken, or two runs of one seed differ
EXIT_USAGE = 2

EXAMPLES = """\
examples:
  python -m sim run first_day                     a table, with the seed that the scenario names
  python -m sim run first_day --seed 7 --json     one JSON object for a program to read
  python -m sim run first_day --twice             the proof that a seed decides everything
  python -m sim run first_day --out runs/7        also write manifest.json and trace.jsonl
  python -m sim run mine.toml                     your own: begin with a copy of sim/data/scenarios/first_day.toml
"""


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parsed = _parser().parse_args(arguments)
    try:
        scenario = load_scenario(parsed.scenario)
        return _run(scenario, scenario.seed if parsed.seed is None else parsed.seed, parsed)
    except ScenarioError as error:
        return _complain(str(error), EXIT_USAGE)
    except Violation as violation:
        return _complain(str(violation), EXIT_BROKEN)
    except OSError as error:
        return _complain(f"cannot write {error.filename}: {error.strerror}", EXIT_USAGE)


def _parser() -> argparse.ArgumentParser:
    parser = _OneLineParser(prog="python -m sim", description="Simulate a Bombyx network in virtual time.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run",
        help="run one scenario",
        description="Run one scenario to its end and check every promise on the way.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("scenario", help=f"one of: {', '.join(known_scenarios())}; or a file that ends in .toml")
    run.add_argument("--seed", type=int, help="instead of the scenario's own")
    run.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    run.add_argument("--out", type=Path, metavar="DIR", help="write manifest.json and trace.jsonl there")
    run.add_argument("--messages", action="store_true", help="have each message in the trace (and in its digest)")
    run.add_argument("--twice", action="store_true", help="run twice and compare the digests")
    return parser


def _run(scenario: Scenario, seed: int, parsed: argparse.Namespace) -> int:
    outcome = simulate(scenario, seed, messages=parsed.messages)
    if parsed.twice and (again := simulate(scenario, seed, messages=parsed.messages).digest) != outcome.digest:
        return _complain(f"seed {seed} gave two digests: {outcome.digest} and {again}", EXIT_BROKEN)
    if parsed.out is not None:
        _write(parsed.out, outcome)
    summary, timed = summarise(outcome), timing(outcome)
    if parsed.json:
        sys.stdout.write(msgspec.json.encode(summary | timed | {"twice": parsed.twice}).decode() + "\n")
    else:
        print_table(f"{scenario.name}: {scenario.duration_s:,.0f} s of demand", sections(summary, timed), sys.stdout)
    return 0


def _write(folder: Path, outcome: Outcome) -> None:
    """`sha256sum trace.jsonl` gives the manifest's digest."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {
        "seed": outcome.seed,
        "scenario": msgspec.to_builtins(outcome.scenario),
        "versions": {"bombyx": _bombyx_version(), "python": python_version()},
        "digest": outcome.digest,
    }
    (folder / "manifest.json").write_bytes(msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")
    (folder / "trace.jsonl").write_bytes(outcome.trace.lines())


def _bombyx_version() -> str:
    try:
        return version("bombyx")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "unknown"


def _complain(line: str, status: int) -> int:
    sys.stderr.write(f"python -m sim: {line}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
