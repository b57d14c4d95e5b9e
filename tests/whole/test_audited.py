"""A customer whose own engine reads what the provider answers."""

from __future__ import annotations

import pytest
from local import SCRIPTED, Local
from processes import Processes

pytestmark = pytest.mark.slow


def test_a_providers_first_answer_is_followed_by_an_audit(network: Local, processes: Processes) -> None:
    mine = ("--network", network.file, "--home", processes.directory / "auditor")
    asked = processes.run(
        "p2p.node", "ask", "What is silk?", "--model", SCRIPTED, "--faucet", "--audit-engine", "scripted", *mine
    )
    assert asked.code == 0, asked.err
    end = network.provider.peer[-6:]
    assert f"audit of …{end}, for 0.0" in asked.err
    assert "tokens are as they should be" in asked.err
    assert len(asked.out.split()) >= 64, "and the answer is the user's own"
    assert "audit" not in asked.out
    why = processes.run("p2p.node", "peers", "why", end, "--json", *mine).result
    audit = next(one for one in why["evidence"] if one["kind"] == "audit_passed")
    assert audit["verdict"]["signature"]
    assert {one["kind"] for one in why["evidence"]} == {"answered", "audit_passed"}
    receipts = processes.run("p2p.node", "receipts", "--json", *mine).result
    assert len(receipts) == 2, "both are paid alike"
    assert len(processes.run("p2p.node", "channels", "--json", *mine).result) == 1
    nonsense = processes.run("p2p.node", "ask", "And now?", "--audit-engine", "abacus", *mine)
    assert nonsense.code == 2
    assert nonsense.complaint.startswith("bombyx: there is no engine 'abacus': llamacpp or scripted")
