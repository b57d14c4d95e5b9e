"""A private network on this machine: who has its key buys, and who has not is told so, or not heard at all."""

from __future__ import annotations

import signal
from pathlib import Path

import msgspec
import pytest
from here import here
from local import QUICK, SCRIPTED, start_solo
from processes import Processes

from p2p import swarm_key
from p2p.network_file import read_network, write_network

pytestmark = pytest.mark.slow


def test_members_buy_and_others_are_shut_out(processes: Processes, tmp_path: Path) -> None:
    assert processes.run("p2p.node", "swarm-key", "our.key").code == 0
    swarm_key.create(processes.directory / "other.key")
    home = ("--home", "home")
    solo, command = start_solo(processes, *home, "--swarm-key", "our.key", environment=QUICK)
    asked = processes.shell(f"{command} --model {SCRIPTED} --max-tokens 12 --json").result
    assert asked["answer"]
    assert asked["authorised_nano"] == asked["delivered_nano"] > 0

    for key, complaint in (((), "--swarm-key FILE"), (("--swarm-key", "other.key"), "other.key is not the key of")):
        refused = here(processes, "ask", "Why?", *home, *key)
        assert refused.code == 2
        assert complaint in refused.complaint

    # Who pretends that there is no key is not heard: here with a file as an open network's.
    network = read_network(processes.directory / "home" / "network.json")
    write_network(tmp_path / "open.json", msgspec.structs.replace(network, swarm_key=""))
    intruder = processes.run("p2p.node", "ask", "Why?", *home, "--network", tmp_path / "open.json")
    assert (intruder.code, intruder.complaint) == (1, "bombyx: no bootstrap peer answers; is the network still up?")

    solo.signal(signal.SIGINT)
    assert solo.wait().code == 0
    assert processes.left() == []
