"""A provider as its owner sees it: at a terminal, and told to stop while somebody is being answered."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest
import trio
from handovers import BARGAIN
from local import SCRIPTED, Local, Provider, start_provider
from processes import MARK, ROOT, Process, Processes
from typist import typed
from worker_kills import engine_of

from inference.engine import Delta, Message, Request
from inference.script import answer as script
from p2p.config import AskConfig, Config
from p2p.embed import Client

LONG = "Tell me of the whole life of a moth."
WORDS = 300
ASKED = Request(model=SCRIPTED, messages=(Message("user", LONG),), max_tokens=WORDS)
WHOLE = "".join(item.text for item in script(ASKED) if isinstance(item, Delta))
PATIENT = ("--engine", "scripted", "--drain-s", "600")
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


def client(command: str, network: Local, processes: Processes, name: str, *flags: str) -> Process:
    mine = ("--network", network.file, "--home", processes.directory / name, "--model", SCRIPTED)
    return processes.start("p2p.node", command, *mine, *flags, stdin=subprocess.PIPE)


def held(network: Local, processes: Processes, name: str, provider: Provider) -> Process:
    """Somebody in the middle of an answer, who pays for no more of it for now."""
    flags = ("--faucet", "--allow", provider.peer, "--max-tokens", str(WORDS))
    asking = client("ask", network, processes, name, LONG, *flags)
    asking.close_stdin()
    asking.said(lambda text: "elder moth" in text)
    asking.signal(signal.SIGSTOP)
    return asking


def test_told_to_stop_it_ends_its_answers_and_begins_none(network: Local, processes: Processes) -> None:
    leaving = start_provider(processes, network.file, "leaving", *PATIENT, "--free-tokens-per-client", "2000")
    # Up already, so that what is held is not held for long: either side gives up one that says nothing for 20 s.
    newcomer = client("chat", network, processes, "newcomer", "--free", "--allow", leaving.peer, "--max-tokens", "8")
    newcomer.tell("What is silk?\n")
    assert newcomer.err.wait(lambda text: "in all" in text)

    answered = held(network, processes, "answered", leaving)
    leaving.process.signal(signal.SIGTERM)
    assert leaving.process.record("draining")["answers"] == 1
    newcomer.tell("And who makes it?\n")
    assert newcomer.err.wait(lambda text: "the provider is about to stop" in text)
    answered.signal(signal.SIGCONT)
    done = answered.wait()
    assert (done.code, done.out) == (0, f"{WHOLE}\n"), done.err
    assert leaving.process.wait().code == 0
    newcomer.close_stdin()
    assert newcomer.wait().code == 0
    assert processes.left() == []


async def test_while_it_ends_an_answer_its_client_is_answered_by_another(network: Local, processes: Processes) -> None:
    leaving = start_provider(processes, network.file, "leaving", *PATIENT, *BARGAIN)
    home = processes.directory / "client"
    assert processes.run("p2p.node", "wallet", "fund", "--network", network.file, "--home", home).code == 0
    ask = AskConfig(model=SCRIPTED, allow=(leaving.peer, network.provider.peer))
    async with Client(Config(home=str(home), network=str(network.file), ask=ask)) as one:
        before = await one.complete("What is silk?", max_tokens=8)
        assert before.provider == leaving.peer, "the cheaper one"
        async with one.chat(LONG, max_tokens=WORDS) as answer:
            await anext(answer)
            engine = engine_of(leaving.process, processes)
            os.kill(engine, signal.SIGSTOP)  # so that it is certainly not over
            leaving.process.signal(signal.SIGTERM)
            draining = await trio.to_thread.run_sync(leaving.process.record, "draining")
            assert draining["answers"] == 1
            after = await one.complete("And who makes it?", max_tokens=8)
            assert (after.provider, after.failovers) == (network.provider.peer, 0)
            assert leaving.process.code is None
            os.kill(engine, signal.SIGCONT)
            async for _ in answer:
                pass
    assert (answer.text, answer.provider, answer.failovers) == (WHOLE, leaving.peer, 0)
    assert (await trio.to_thread.run_sync(leaving.process.wait)).code == 0


def test_told_twice_it_ends_at_once(network: Local, processes: Processes) -> None:
    leaving = start_provider(processes, network.file, "leaving", *PATIENT)
    held(network, processes, "cut", leaving)
    leaving.process.signal(signal.SIGTERM)
    leaving.process.record("draining")
    leaving.process.signal(signal.SIGINT)
    assert leaving.process.wait(AT_ONCE_S).code == 0
    assert "served" not in leaving.process.out.text
