"""Who is there, for somebody who looks around and for the provider that runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from here import here
from local import SCRIPTED, Local
from processes import Processes

pytestmark = pytest.mark.slow


def test_a_client_sees_who_sells_and_a_provider_whom_it_is_connected_to(
    network: Local, processes: Processes, tmp_path: Path
) -> None:
    mine = ("--network", network.file, "--home", tmp_path / "me")
    seen = {row["peer"]: row for row in processes.run("p2p.node", "peers", "--json", *mine).result}
    assert seen.keys() == {network.relay.peer, network.provider.peer}
    seller = seen[network.provider.peer]
    assert (seller["found"], seller["path"], seller["sells"]) == ("provider", "direct", [SCRIPTED])
    assert seller["rtt_ms"] >= 1
    assert seen[network.relay.peer]["found"] == "bootstrap"
    shown = here(processes, "peers", *mine)
    assert shown.code == 0, shown.err
    for words in ("peer", "rtt", network.provider.peer[-6:], "bootstrap", "direct", SCRIPTED):
        assert words in shown.out

    theirs = ("--network", network.file, "--home", network.provider.home)
    connected = {row["peer"]: row for row in here(processes, "peers", "--provider", "--json", *theirs).result}
    relay = connected.pop(network.relay.peer)
    assert (relay["path"], relay["banned"]) == ("direct", "")
    assert relay["connected_s"] >= 0
    # It is written down every few seconds, so that who looked around just now may still be there.
    assert all(visitor["found"] == "it came to us" for visitor in connected.values())
    nobody = here(processes, "peers", "--provider", *mine)
    assert nobody.code == 2
    assert "no provider runs on" in nobody.complaint
