"""Examples whose libraries are too much for every run of the tests: each in a virtual environment of its own.

The frameworks among them also make real calls of the embedded model: a test file that pytest runs in that environment.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gateways import Gateway, get, start_gateway
from local import SCRIPTED, start_local, start_provider
from processes import ROOT, Done, Processes

from p2p.config import EMBEDDED_MODEL


class Heavy(NamedTuple):
    """An example, what is installed for it, and the test file of calls. The versions are those last seen with it."""

    name: str
    requirements: tuple[str, ...]
    calls: str = ""


HEAVY = (
    Heavy("langchain_chat.py", ("langchain-openai==1.7.3",), "langchain_calls.py"),
    Heavy(
        "llama_index_chat.py",
        ("llama-index-llms-openai-like==0.8.1", "llama-index-embeddings-openai-like==0.4.0"),
        "llama_index_calls.py",
    ),
    Heavy("llm_command.sh", ("llm==0.36",)),
)
PYTEST = ("pytest==9.2.0", "pytest-asyncio==1.5.0")  # what runs the calls


class Ran(NamedTuple):
    """How it went. `calls` is how many tests passed; what failed is in `complaint`."""

    heavy: Heavy
    megabytes: int
    took_s: float
    calls: int
    complaint: str


class Report(NamedTuple):
    """All of them, and what they cost."""

    ran: Sequence[Ran]
    answers: int
    paid_nano: int
    delivered_nano: int  # by the accounts of the channels

    @property
    def faults(self) -> Sequence[str]:
        """What does not hold."""
        failed = [f"{one.heavy.name}: {one.complaint}" for one in self.ran if one.complaint]
        if not 0 < self.paid_nano == self.delivered_nano:
            failed.append(f"receipts for {self.paid_nano} nano, and {self.delivered_nano} delivered over the channels")
        return failed


def run(directory: Path) -> Report:
    """One after the other, on one network with the scripted and the embedded model."""
    with Processes(directory) as processes:
        network = start_local(processes).file
        start_provider(processes, network, "model", "--settle-at-nano", "1")
        gateway = start_gateway(processes, network)
        ran = [_run(processes, gateway, heavy) for heavy in HEAVY]
        receipts = get(gateway, "/api/receipts?limit=500")["receipts"]
        channels = get(gateway, "/api/channels")["channels"]
        return Report(
            ran,
            len(receipts),
            sum(one["cost_nano"] for one in receipts),
            sum(one["delivered_nano"] for one in channels),
        )


def table(report: Report) -> Sequence[str]:
    """In Markdown."""
    rows = [
        f"| `{one.heavy.name}` | {', '.join(one.heavy.requirements)} | {one.megabytes} | {one.took_s:.0f} | "
        f"{'failed' if one.complaint else 'answered'} | {one.calls if one.heavy.calls else '–'} |"
        for one in report.ran
    ]
    return [
        "| example | installed | MB | seconds | | tests of calls passed |",
        "|---|---|---:|---:|---|---:|",
        *rows,
        "",
        f"{report.answers} answers were paid with {report.paid_nano:,} nano, as the channels' accounts have it.",
    ]


def _run(processes: Processes, gateway: Gateway, heavy: Heavy) -> Ran:
    venv = processes.directory / heavy.name.partition(".")[0]
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    subprocess.run([venv / "bin" / "pip", "--quiet", "install", *heavy.requirements], check=True, capture_output=True)
    size = sum(path.stat().st_size for path in venv.rglob("*") if path.is_file())
    places = (
        f"unset PYTHONPATH; export PATH={venv}/bin:$PATH LLM_USER_PATH={venv} MODEL={EMBEDDED_MODEL} "
        f"OPENAI_BASE_URL={gateway.base_url} OPENAI_API_KEY=none; "
    )
    subprocess.run([venv / "bin" / "pip", "--quiet", "install", *PYTEST], check=True, capture_output=True)
    began = time.monotonic()
    complaint = _example(processes, heavy, places)
    calls = 0
    if heavy.calls:
        # By itself: neither our configuration nor our fixtures are for this environment.
        options = f"--noconftest -c /dev/null --rootdir {processes.directory} -o asyncio_mode=auto -W ignore"
        done = processes.shell(f"{places} python -m pytest -q --tb=short {options} {ROOT}/tests/proof/{heavy.calls}")
        calls = sum(map(int, re.findall(r"(\d+) passed", done.out)))
        if done.code:
            complaint += _last_words(done)
    return Ran(heavy, size >> 20, time.monotonic() - began, calls, complaint)


def _example(processes: Processes, heavy: Heavy, places: str) -> str:
    """What is wrong with how it ran. Standard output has the answer alone, which is longer than ten words."""
    example = ROOT / "examples" / heavy.name
    command = f"python {example}" if example.suffix == ".py" else str(example)
    done = processes.shell(f"{places} {command} {SCRIPTED} silk")
    return "" if done.code == 0 and len(done.out.split()) > 10 else _last_words(done)


def _last_words(done: Done) -> str:
    return f"ended with {done.code}: {(done.out + done.err).strip()[-3000:]}"
