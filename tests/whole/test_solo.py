"""A bare `python -m p2p.node` in a home where nothing is yet, and again the day after."""

from __future__ import annotations

import shlex
import signal
from typing import Any

import pytest
from local import QUICK, SCRIPTED, commands_in, start_solo
from openai import OpenAI
from processes import Process, Processes

pytestmark = pytest.mark.slow


def down(solo: Process, processes: Processes) -> None:
    solo.said(lambda text: "served" in text and "settled" in text)
    solo.signal(signal.SIGINT)
    done = solo.wait()
    assert (done.code, done.err) == (0, "")
    assert processes.left() == []
    assert list(processes.temporary.iterdir()) == []


def test_what_it_says_to_type_works(processes: Processes) -> None:
    solo, command = start_solo(processes)
    line = commands_in(solo.out.text)[1]
    gateway = processes.serve(*shlex.split(line)[2:], "--listen", "127.0.0.1:0")
    with OpenAI(base_url=f"{gateway.records('ready')[0]['url']}/v1", api_key="any", max_retries=0) as client:
        (model,) = client.models.list()
        hello: Any = [{"role": "user", "content": "Hello"}]
        answer = client.chat.completions.create(model=model.id, messages=hello, max_tokens=5)
        assert answer.choices[0].message.content
    gateway.close_stdin()
    assert gateway.wait().code == 0
    asked = processes.shell(f"{command} --max-tokens 12 --json").result
    assert asked["answer"]
    assert asked["authorised_nano"] == asked["delivered_nano"] > 0
    assert asked["model"] in solo.out.text
    down(solo, processes)


def test_a_home_of_ones_own_serves_today_and_tomorrow(processes: Processes) -> None:
    home = ("--home", "a home")
    channels = []
    for _ in ("today", "tomorrow"):
        solo, command = start_solo(processes, *home, environment=QUICK)
        asked = processes.shell(f"{command} --model {SCRIPTED} --max-tokens 12 --json").result
        channels.append(asked["channel"])
        down(solo, processes)
    # The first network's chain is gone, and with it the channel; the book still knows of it.
    known = processes.run("p2p.node", "channels", "--json", *home).result
    assert [(one["channel"], one["state"]) for one in known] == [(channels[0], "closed"), (channels[1], "open")]
