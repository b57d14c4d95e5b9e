"""One target under atheris, which is led by what the bytes reach in the code.

    PYTHONPATH=. python tests/fuzz/guided.py TARGET RUNS SEED

Ends with 0 when the runs are over, with another code at the first input for which the target raises what no decoder
may; that input is then printed in hex. Atheris takes the process over, so each target has one of its own.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

MAX_INPUT_BYTES = 2048
OURS = ["p2p", "chain", "inference", "sim"]

with atheris.instrument_imports(include=OURS, enable_loader_override=False):
    from targets import TARGETS, TRAPS


def main(name: str, runs: str, seed: str) -> None:
    """Never returns."""
    target = TARGETS[name]

    def try_bytes(data: bytes) -> None:
        try:
            target.takes(data)
        except Exception:
            sys.stderr.write(f"{name}: {data.hex()}\n")
            raise

    with tempfile.TemporaryDirectory() as corpus:
        for number, known in enumerate((*target.seeds, *TRAPS)):
            Path(corpus, str(number)).write_bytes(known[:MAX_INPUT_BYTES])
        options = [
            f"-runs={runs}",
            f"-seed={seed}",
            f"-max_len={MAX_INPUT_BYTES}",
            "-verbosity=0",
            "-print_final_stats=1",
        ]
        atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={corpus}/", corpus], try_bytes)
        atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
