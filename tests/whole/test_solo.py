"""A bare `python -m p2p.node` in a home where nothing is yet, and again the day after."""

from __future__ import annotations

import re
import signal

import pytest
from processes import Done, Process, Processes

pytestmark = pytest.mark.slow


def up(processes: Processes, *home: str) -> tuple[Process, str]:
    """It runs; and the command that it tells people to type."""
    solo = processes.start("p2p.node", *home)
    said = solo.said(lambda text: text if "Ctrl-C" in text else "")
    (command,) = re.findall(r"^ +(python -m p2p\.node .+)$", said, re.MULTILINE)
    return solo, command


def down(solo: Process) -> Done:
    solo.signal(signal.SIGINT)
    return solo.wait()


@pytest.mark.parametrize("home", [(), ("--home", "a home")], ids=["at home", "elsewhere"])
def test_what_it_says_to_type_works_today_and_tomorrow(home: tuple[str, ...], processes: Processes) -> None:
    channels = []
    for _ in ("today", "tomorrow"):
        solo, command = up(processes, *home)
        asked = processes.shell(f"{command} --max-tokens 12 --json").result
        assert asked["answer"]
        assert asked["authorised_nano"] == asked["delivered_nano"] > 0
        channels.append(asked["channel"])
        solo.said(lambda text: "served" in text and "settled" in text)
        done = down(solo)
        assert (done.code, done.err) == (0, "")
        assert processes.left() == []
        assert list(processes.temporary.iterdir()) == []
    # The first network's chain is gone, and with it the channel; the book still knows of it.
    known = processes.run("p2p.node", "channels", "--json", *home).result
    assert [(one["channel"], one["state"]) for one in known] == [(channels[0], "closed"), (channels[1], "open")]
