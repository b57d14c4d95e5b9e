"""A newcomer who has no money, and a private network that has none: real processes, as a person starts them."""

from __future__ import annotations

import json

import pytest
from here import here
from local import CHEAP, SCRIPTED, Local, start_provider
from processes import Processes

from p2p.protocol.unpaid import NO_CHANNEL

ASK = ("ask", "What is silk?", "--model", SCRIPTED)


@pytest.mark.slow
def test_a_newcomers_first_answer_is_free_and_the_next_says_what_to_do(network: Local, processes: Processes) -> None:
    flags = ("--engine", "scripted", "--price-output", "900000000", "--free-tokens-per-client", "220")
    giving = start_provider(processes, network.file, "giving", *flags)
    mine = ("--network", network.file, "--home", processes.directory / "me", "--allow", giving.peer)
    first = processes.run("p2p.node", *ASK, *mine, "--free", "--max-tokens", "20", "--explain")
    assert first.code == 0, first.err
    assert len(first.out.split()) == 20
    assert "price        free, out of what the provider gives to newcomers" in first.err
    assert "agreed with" in first.err
    assert "; free" in first.err, "in the ranking"
    assert not list((processes.directory / "me").rglob("wallet*")), "it took neither a wallet nor a chain"

    receipt = here(processes, "receipts", *mine[:4], "--json").result[0]
    file = processes.directory / "receipt"
    file.write_text(receipt["receipt"])
    said = here(processes, "receipts", "verify", file, *mine[:4], "--json").result
    assert (said["channel"], said["session_total_nano"], said["provider"]) == (NO_CHANNEL.hex(), 0, giving.peer)

    # Without --free and without money, the same happens by itself, until nothing is left.
    second = processes.run("p2p.node", *ASK, *mine, "--max-tokens", "8", "--json").result
    assert (second["free"], second["channel"], second["cost_nano"]) == (True, None, 0)
    third = processes.run("p2p.node", *ASK, *mine, "--max-tokens", "60", "--json")
    assert third.code == 1
    assert "a channel needs" in third.err
    assert "free tokens are left for you, and this may take" in third.err
    assert json.loads(third.out)["reason"] == "payment"


@pytest.mark.slow
def test_a_private_network_without_money_is_two_commands(processes: Processes) -> None:
    relay = processes.serve("p2p.node", "relay", "--unpaid")
    relay.records("ready")
    provider = processes.serve("p2p.node", "provide", "--engine", "scripted")
    assert provider.record("ready")["wallet"] == ""
    answer = processes.run("p2p.node", *ASK, "--max-tokens", "20", "--json").result
    assert (answer["price"], answer["cost_nano"], answer["channel"]) == ({"input": 0, "output": 0}, 0, None)
    assert provider.record("served")["earned_nano"] == 0
    assert [one["earned_nano"] for one in processes.run("p2p.node", "earnings", "--json").result["models"]] == [0]
    wallet = here(processes, "wallet", "create")
    assert (wallet.code, "is a network without money" in wallet.complaint) == (2, True)
    again = here(processes, "relay", "--unpaid", "--swarm-key", processes.directory / "none")
    assert (again.code, "joins another network" in again.complaint) == (2, True)


@pytest.mark.slow
def test_who_sells_and_asks_with_one_home_pays_from_what_it_earns(network: Local, processes: Processes) -> None:
    """The provider goes on beside it, with an identity of its own."""
    seller = start_provider(processes, network.file, "earning", *CHEAP)
    mine = ("--network", network.file, "--home", seller.home)
    before = here(processes, "wallet", "show", *mine, "--json").result
    answer = processes.run("p2p.node", *ASK, *mine, "--allow", network.provider.peer, "--max-tokens", "8", "--json")
    after = here(processes, "wallet", "show", *mine, "--provider", "--json").result
    assert answer.result["cost_nano"] > 0
    assert answer.result["client"] != seller.peer
    assert before["address"] == after["address"] == seller.ready["wallet"]
    assert before["balance_nano"] - after["balance_nano"] > 100_000_000, "the deposit, and fees"
