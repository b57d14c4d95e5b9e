"""However it is ended, a command takes with it all that it started."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from local import CHEAP, QUICK, SCRIPTED, Local, start_provider
from processes import LIMIT_S, Process, Processes

INTERRUPTED, TERMINATED = 130, 143
LONG = "Tell me of the whole life of a moth."  # the scripted answer has 300 words, at 100 a second

pytestmark = pytest.mark.slow

Stage = Callable[[Processes], Process]


def starting(processes: Processes) -> Process:
    """A demonstration whose engines are loading the model."""
    demo = processes.start("p2p.node", "demo")
    demo.said(lambda text: "provider" in text)
    deadline = time.monotonic() + LIMIT_S
    while not list(processes.temporary.glob("bombyx-engine-*/*")):
        assert time.monotonic() < deadline
        time.sleep(0.01)  # a file has no event that Python could wait for
    return demo


def answering(processes: Processes) -> Process:
    """One in the middle of its answer."""
    flags = ("--providers", "1", "--max-tokens", "300", "--prompt", LONG)
    demo = processes.start("p2p.node", "demo", *flags, environment=QUICK)
    demo.said(lambda text: "elder moth" in text)
    return demo


@pytest.mark.parametrize("stage", [starting, answering], ids=lambda stage: stage.__name__)
def test_ctrl_c_ends_a_demonstration_and_all_of_it(stage: Stage, processes: Processes) -> None:
    """One that stays up after its answer is ended by `test_demo`."""
    demo = stage(processes)
    demo.signal(signal.SIGINT)
    done = demo.wait()
    assert done.code == INTERRUPTED
    assert done.err == ""
    assert processes.left() == []
    assert list(processes.temporary.iterdir()) == []


def test_so_does_being_terminated(processes: Processes) -> None:
    demo = answering(processes)
    demo.signal(signal.SIGTERM)
    done = demo.wait()
    assert done.code == TERMINATED
    assert done.err == ""
    assert processes.left() == []
    assert list(processes.temporary.iterdir()) == []


@pytest.mark.parametrize("stage", [starting, answering], ids=lambda stage: stage.__name__)
def test_what_a_killed_demonstration_started_ends_too(stage: Stage, processes: Processes) -> None:
    demo = stage(processes)
    demo.signal(signal.SIGKILL)
    assert demo.wait().code == -signal.SIGKILL
    assert processes.left() == []


def test_ctrl_c_in_mid_answer_pays_for_what_came(network: Local, processes: Processes, tmp_path: Path) -> None:
    mine = ("--network", network.file, "--home", tmp_path / "me")
    asking = processes.start("p2p.node", "ask", LONG, "--model", SCRIPTED, "--faucet", *mine)
    asking.said(lambda text: "elder moth" in text)
    asking.signal(signal.SIGINT)
    done = asking.wait()
    assert done.code == INTERRUPTED
    assert 13 <= len(done.out.split()) < 250
    assert done.out.endswith("\n")
    assert "Traceback" not in done.err

    (channel,) = processes.run("p2p.node", "channels", "--json", *mine).result
    assert channel["state"] == "open"
    assert channel["authorised_nano"] == channel["delivered_nano"] > 0
    (receipt,) = processes.run("p2p.node", "receipts", "--json", *mine).result
    assert receipt["cost_nano"] == channel["delivered_nano"]
    assert processes.left() == []


def test_a_reader_of_the_pipe_who_has_enough_ends_it_quietly(network: Local, processes: Processes) -> None:
    ask = f"python -m p2p.node ask '{LONG}' --model {SCRIPTED} --faucet --network {network.file}"
    done = processes.shell(f"{ask} | head -c 20")
    assert done.out == "bronze north anchor "
    assert done.code == 141
    assert "Traceback" not in done.err
    assert processes.left() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_provider_ends_as_it_is_told(number: signal.Signals, network: Local, processes: Processes) -> None:
    provider = start_provider(processes, network.file, "seller", *CHEAP)
    provider.process.signal(number)
    done = provider.process.wait()
    assert (done.code, done.err) == (0, "")
    assert processes.left() == []
