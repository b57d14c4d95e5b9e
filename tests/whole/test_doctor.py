"""What `doctor` says where all is well, and where something is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from here import here
from local import Local
from processes import Done, Processes

from p2p.network_file import read_network, write_network

pytestmark = pytest.mark.slow


def findings(done: Done) -> dict[str, str]:
    """The worst verdict on each thing that was looked at."""
    order = ("good", "note", "bad")
    worst: dict[str, str] = {}
    for one in json.loads(done.out):
        worst[one["check"]] = max(worst.get(one["check"], "good"), one["verdict"], key=order.index)
    return worst


def test_all_is_well_for_a_client_and_a_provider(network: Local, processes: Processes, tmp_path: Path) -> None:
    new = ("--network", network.file, "--home", tmp_path / "new")
    client = processes.run("p2p.node", "doctor", "--json", *new)
    assert client.code == 0, client.err
    assert findings(client) == {
        "keys": "note",  # there is no wallet yet
        "disk": "good",
        "chain": "good",
        "clock": "good",
        "bootstrap": "good",
        "providers": "good",
    }
    own = ("--network", network.file, "--home", network.provider.home)
    shown = processes.run("p2p.node", "doctor", "--provider", *own)
    assert shown.code == 0, shown.err
    for line in ("ok    keys", "ok    model", "SmolLM2", "note  ports", "--listen /ip4/0.0.0.0/tcp/4001", "1 found"):
        assert line in shown.out
    assert "ok    reach" in shown.out


def test_what_is_wrong_is_said_with_what_to_do(network: Local, processes: Processes, tmp_path: Path) -> None:
    file = tmp_path / "old.json"
    gone = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWJzmKPPNNBEDNwL1s7Nn8N3pV8pRbqJLBcUdUSB29kvoR"
    known = read_network(network.file)
    write_network(file, type(known)(bootstraps=(gone,), chain=known.chain))
    home = tmp_path / "careless"
    (home / "provider").mkdir(parents=True)
    (home / "provider" / "identity.key").write_bytes(bytes(32))
    (home / "provider" / "identity.key").chmod(0o644)
    no_model = {"BOMBYX_PROVIDE_MODEL": str(tmp_path / "none.gguf")}
    ill = ("doctor", "--provider", "--network", file, "--home", home)
    done = here(processes, *ill, environment=no_model)
    assert done.code == 1
    for words in ("chmod 600", "cannot read the model file", "no bootstrap peer answers", "a network file that is up"):
        assert words in done.out
    assert "note  reach" in done.out
    assert "3 of " in done.complaint
