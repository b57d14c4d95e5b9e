"""The full counts, written to docs/BENCHMARKS.md: `make proof`, or one part by name with `--only`.

    PYTHONPATH=. python tests/proof [--only sequences|crashes|vouchers|fees|checks|transport] [--seed N] [--out FILE]

Every part prints Markdown. A part that does not hold says so on the page, and the program fails.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
TESTS = ROOT / "tests"
PAGE = ROOT / "docs" / "BENCHMARKS.md"
sys.path[:0] = [str(ROOT), *(str(TESTS / part) for part in ("p2p/protocol", "whole", "chain", "bench", "proof"))]

KILLS, LANES = 200, 2

Part = Callable[[int], Sequence[str]]


class DoesNotHold(Exception):
    """A promise was broken; the page says how."""


def sequences(seed: int) -> Sequence[str]:
    """Channels and sessions under every kind of misfortune."""
    import channel_sequences

    return channel_sequences.run(seed)


def crashes(seed: int) -> Sequence[str]:
    """SIGKILLs in the middle of paid answers."""
    import crashes

    with tempfile.TemporaryDirectory() as directory:
        report = crashes.run_crashes(Path(directory), kills=KILLS, lanes=LANES, seed=seed)
    if report.faults:
        raise DoesNotHold("\n".join(report.faults))
    return [
        "Providers and clients on a real network on this machine (devnet, bootstrap peer, scripted engine; three",
        "answers at once over each channel) were killed by SIGKILL while answers were under way, and started again on",
        "their homes. A witness outside of all books wrote down what each side handed over and received. Losses are",
        "taken when both have agreed again; at the end the channels were closed, and both books and the chain agreed.",
        f"Bounds: {report.window_nano:,} nano for a client (one window), {report.provider_limit_nano:,} for a provider",
        "(one window, and one piece of the answer for each of the three sessions).",
        "",
        *crashes.table(report),
        "",
        *crashes.summary(report),
    ]


def vouchers(_seed: int) -> Sequence[str]:
    """Rates beside bare Ed25519."""
    import bench_vouchers

    rates = bench_vouchers.measure()
    if min(rates["created / bare"], rates["verified / bare"]) < bench_vouchers.RATIO_MIN:
        raise DoesNotHold("\n".join(bench_vouchers.table(rates)))
    return ["Medians; each ratio is the median of ratios within a round.", "", *bench_vouchers.table(rates)]


def fees(_seed: int) -> Sequence[str]:
    """What the chain takes."""
    import channel_costs

    return channel_costs.run()


def checks(_seed: int) -> Sequence[str]:
    """The contract without each of its checks. Needs Node and the contract's compiler."""
    if shutil.which("node") is None or not (ROOT / "chain/contract/node_modules").exists():
        return ["Not run: the contract's compiler is not here. `make contract` installs it where there is Node."]
    return ["```", *_printed("tests/chain/mutate_contract.py"), "```"]


def transport(_seed: int) -> Sequence[str]:
    """Our Noise and Yamux beside the library's."""
    return ["```", *_printed("tests/bench/bench_transport.py"), "```"]


PARTS: dict[str, tuple[str, Part]] = {
    "sequences": ("Money under misfortune", sequences),
    "crashes": ("Killed in the middle of paid answers", crashes),
    "vouchers": ("Vouchers", vouchers),
    "fees": ("Fees on chain", fees),
    "checks": ("The contract without each of its checks", checks),
    "transport": ("Transport", transport),
}


def _printed(script: str) -> Sequence[str]:
    done = subprocess.run(
        [sys.executable, script], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    if done.returncode:
        raise DoesNotHold(f"{script} ended with {done.returncode}: {(done.stderr or done.stdout)[-2000:]}")
    return done.stdout.rstrip().splitlines()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append", help="this part; may be repeated")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="the page; docs/BENCHMARKS.md if all parts run")
    arguments = parser.parse_args()
    page, broken = _heading(arguments.seed), False
    for name in arguments.only or PARTS:
        title, part = PARTS[name]
        began = time.monotonic()
        try:
            lines = part(arguments.seed)
        except (DoesNotHold, AssertionError) as fault:
            lines, broken = [f"**Does not hold.** {fault}"], True
        section = ["", f"## {title}", "", *lines, "", f"({time.monotonic() - began:.0f} s)"]
        sys.stdout.write("\n".join(section) + "\n")
        sys.stdout.flush()
        page += section
    out = arguments.out or (None if arguments.only else PAGE)
    if out is not None:
        out.write_text("\n".join(page) + "\n")
    return int(broken)


def _heading(seed: int) -> list[str]:
    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    machine = f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}"
    return [
        "# Benchmarks",
        "",
        "Written by `make proof`; not edited by hand.",
        "",
        f"Commit {commit.stdout.strip() or 'unknown'}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {machine}; seed {seed}.",
        "The machine may have had other work to do: ratios within one run say more than rates.",
    ]


if __name__ == "__main__":
    sys.exit(main())
