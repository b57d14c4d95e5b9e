"""Every target under atheris, each in a process of its own and two at a time."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from targets import TARGETS

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
LANES = 2
TIMEOUT_S = 3600


class Campaign(NamedTuple):
    """What became of one target: how many inputs it had, how many led further into the code, and what is wrong."""

    name: str
    inputs: int
    kept: int
    fault: str


def missing() -> str:
    """Why there can be no campaign; empty if there can."""
    if importlib.util.find_spec("atheris") is None:
        return "atheris is not installed: `make proof` installs it where there are wheels of it for this machine"
    return ""


def run(inputs: int, seed: int) -> Sequence[Campaign]:
    """At least so many inputs, shared out evenly."""
    each = -(-inputs // len(TARGETS))
    with ThreadPoolExecutor(LANES) as lanes:
        return list(lanes.map(partial(_run_one, inputs=each, seed=seed), TARGETS))


def _run_one(name: str, *, inputs: int, seed: int) -> Campaign:
    command = [sys.executable, str(HERE / "guided.py"), name, str(inputs), str(seed)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=TIMEOUT_S)
    said = done.stdout + done.stderr
    stats = {found[1]: int(found[2]) for found in re.finditer(r"^stat::(\w+):\s+(\d+)", said, flags=re.MULTILINE)}
    fault = said[-3000:] if done.returncode else ""
    return Campaign(name, stats.get("number_of_executed_units", 0), stats.get("new_units_added", 0), fault)
