"""A provider as its owner sees it: at a terminal, and told to stop while somebody is being answered."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from local import SCRIPTED, Local, start_provider
from processes import MARK, ROOT, Process, Processes
from typist import typed

from inference.engine import Delta, Message, Request
from inference.script import answer as script

LONG = "Tell me of the whole life of a moth."
WORDS = 300
ASKED = Request(model=SCRIPTED, messages=(Message("user", LONG),), max_tokens=WORDS)
WHOLE = "".join(item.text for item in script(ASKED) if isinstance(item, Delta))
AT_ONCE_S = 15.0  # less than it takes until a client that says nothing is given up

pytestmark = pytest.mark.slow


def test_at_a_terminal_a_table_tells_how_it_is_doing(network: Local, processes: Processes) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BOMBYX_")}
    done = typed(
        *("-m", "p2p.node", "provide", "--engine", "scripted", "--network", network.file),
        *("--home", processes.directory / "shown", "--serve-hours", "00:00-00:00"),
        answers=[("Ctrl-C ends it", ""), ("0 of 2 in use", "\3")],
        environment=inherited | {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100", MARK: ""},
        folder=processes.directory,
    )
    assert done.code == 0, done.said
    for words in (SCRIPTED, "state", "serving", "0 tokens/s", "0 today, 0 in all", "0 GRAM today, 0 GRAM in all"):
        assert words in done.said
    assert done.said.rindex("\x1b[?25h") > done.said.rindex("0 of 2 in use"), "the cursor is there again"
    assert done.echoes
    assert "Traceback" not in done.said


def ask(network: Local, processes: Processes, name: str, *flags: str) -> Process:
    mine = ("--network", network.file, "--home", processes.directory / name)
    return processes.start("p2p.node", "ask", LONG, "--model", SCRIPTED, "--max-tokens", str(WORDS), *mine, *flags)


def hold(asking: Process) -> None:
    """In the middle of its answer; it pays for no more of it for now."""
    asking.said(lambda text: "elder moth" in text)
    asking.signal(signal.SIGSTOP)


def test_told_to_stop_it_ends_its_answers_and_begins_none_and_told_twice_it_ends_at_once(
    network: Local, processes: Processes
) -> None:
    leaving = start_provider(
        processes,
        network.file,
        "leaving",
        *("--engine", "scripted", "--drain-s", "600", "--free-tokens-per-client", "2000"),
    )
    there = ("--allow", leaving.peer)
    first, second = (ask(network, processes, name, "--faucet", *there) for name in ("first", "second"))
    with ThreadPoolExecutor() as both:
        list(both.map(hold, (first, second)))

    leaving.process.signal(signal.SIGTERM)
    assert leaving.process.record("draining")["answers"] == 2
    late, elsewhere = (
        ask(network, processes, "late", "--free", *there, "--json"),
        ask(network, processes, "rich", "--faucet", "--json"),
    )
    assert '"reason":"stopping"' in late.wait().out
    first.signal(signal.SIGCONT)
    done = first.wait()
    assert (done.code, done.out) == (0, f"{WHOLE}\n"), done.err
    assert leaving.process.record("served")["tokens_out"] == len(WHOLE.split())

    assert leaving.process.code is None, "somebody is still being answered"
    leaving.process.signal(signal.SIGINT)
    assert leaving.process.wait(AT_ONCE_S).code == 0
    second.signal(signal.SIGCONT)
    assert second.wait().code == 1
    assert elsewhere.wait().result["provider"] == network.provider.peer
    assert processes.left() == []
