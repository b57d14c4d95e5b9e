"""`chat` as it is used: from a file and at a terminal. What was said goes with each question, and to no disk."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from local import SCRIPTED, Local
from processes import MARK, ROOT, Processes
from typist import typed

pytestmark = pytest.mark.slow

QUESTIONS = ("why is silk strong", "who makes it")
TOKENS = ("--model", SCRIPTED, "--max-tokens", "12")


def kept(home: Path) -> bytes:
    """All that stands in the files of a home."""
    return b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())


def test_a_conversation_is_read_from_a_file(network: Local, processes: Processes) -> None:
    home = processes.directory / "talker"
    command = f"python -m p2p.node chat --home {home} --network {network.file} --faucet --json {' '.join(TOKENS)}"
    asked = processes.directory / "asked.txt"
    asked.write_text("\n".join([*QUESTIONS, "", "/new", QUESTIONS[0]]))
    done = processes.shell(f"{command} <{asked}")
    assert done.code == 0, done.err
    first, second, anew = (json.loads(line) for line in done.out.splitlines())
    assert second["usage"]["prompt_tokens"] > first["usage"]["prompt_tokens"] + 12
    assert anew["answer"] == first["answer"]
    assert all(bought["cost_nano"] > 0 for bought in (first, second, anew))
    files = kept(home)
    assert first["provider"].encode() in files
    assert not any(text.encode() in files for text in (*QUESTIONS, first["answer"], second["answer"]))


def test_a_conversation_is_typed(network: Local, processes: Processes) -> None:
    home = processes.directory / "typist"
    answers = [
        ("> ", f"{QUESTIONS[0]}\n"),
        ("in all", ""),
        ("> ", "word " * 700 + "\n"),
        ("/new begins", ""),
        ("> ", "\4"),
    ]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BOMBYX_")}
    done = typed(
        *("-m", "p2p.node", "chat", "--home", home, "--network", network.file, "--faucet", *TOKENS),
        *("--answer-max-nano", "20000"),
        answers=answers,
        environment=inherited | {"PYTHONPATH": str(ROOT), "TERM": "dumb", MARK: ""},
        folder=processes.directory,
    )
    assert done.code == 0
    assert "it could cost" in done.said
    assert "nano) in all" in done.said
