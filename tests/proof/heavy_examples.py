"""Examples whose libraries are too much for every run of the tests: each in a virtual environment of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from local import SCRIPTED, start_local
from processes import ROOT, Done, Processes
from test_gateway import start_gateway


class Heavy(NamedTuple):
    """An example, and what is installed for it. The versions are those that it was last seen with."""

    name: str
    requirement: str


HEAVY = (
    Heavy("langchain_chat.py", "langchain-openai==1.7.3"),
    Heavy("llama_index_chat.py", "llama-index-llms-openai-like==0.8.1"),
    Heavy("llm_command.sh", "llm==0.36"),
)


class Ran(NamedTuple):
    """How it went."""

    heavy: Heavy
    megabytes: int
    took_s: float
    done: Done

    @property
    def holds(self) -> bool:
        """An answer of the scripted engine is longer than any complaint would be on standard output."""
        return self.done.code == 0 and len(self.done.out.split()) > 10


def run(directory: Path) -> Sequence[Ran]:
    """All of them, one after the other, on one network."""
    with Processes(directory) as processes:
        base_url = start_gateway(processes, start_local(processes).file).base_url
        return [_run(processes, base_url, heavy) for heavy in HEAVY]


def table(ran: Sequence[Ran]) -> Sequence[str]:
    """In Markdown, with the last words of what failed."""
    rows = [
        f"| `{one.heavy.name}` | {one.heavy.requirement} | {one.megabytes} | {one.took_s:.1f} | "
        f"{'answered' if one.holds else f'ended with {one.done.code}: {one.done.err.strip()[-300:]}'} |"
        for one in ran
    ]
    return ["| example | installed | MB | seconds | |", "|---|---|---:|---:|---|", *rows]


def _run(processes: Processes, base_url: str, heavy: Heavy) -> Ran:
    venv = processes.directory / heavy.name.partition(".")[0]
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    subprocess.run([venv / "bin" / "pip", "--quiet", "install", heavy.requirement], check=True, capture_output=True)
    size = sum(path.stat().st_size for path in venv.rglob("*") if path.is_file())
    example = ROOT / "examples" / heavy.name
    words = ["python", str(example)] if example.suffix == ".py" else [str(example)]
    began = time.monotonic()
    places = f"export PATH={venv}/bin:$PATH OPENAI_BASE_URL={base_url} OPENAI_API_KEY=none LLM_USER_PATH={venv}; "
    done = processes.shell(f"{places} unset PYTHONPATH; {' '.join(words)} {SCRIPTED} silk")
    return Ran(heavy, size >> 20, time.monotonic() - began, done)
