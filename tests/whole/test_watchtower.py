"""A client that closes behind its provider's back, and a watchtower that was handed the vouchers and no secret."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import trio
from explorer import history
from local import SCRIPTED, Bare, start_bare, start_provider
from processes import Processes

from chain.devnet.control import open_control

CHALLENGE_S = 60
DEPOSIT_NANO = 100_000_000
# An answer of the scripted model is worth some settlements then.
OFFER = ("--engine", "scripted", "--price-output", "100000000000", "--challenge-period-s", str(CHALLENGE_S))
AT_ONCE, NEVER = ("--settle-at-nano", "1"), ("--settle-at-nano", str(10**12), "--settle-fee-percent", "0")


def wait_out_the_challenge(network: Bare) -> None:
    async def advance() -> None:
        async with open_control(json.loads(network.chain.read_text())["bombyx"]["control"]) as control:
            await control.advance(CHALLENGE_S + 1)

    trio.run(advance)


@pytest.mark.slow
def test_a_client_that_closes_with_an_old_amount_gains_nothing_while_the_watchtower_runs(
    processes: Processes, tmp_path: Path
) -> None:
    network = start_bare(processes)
    client = ("--network", network.file, "--home", tmp_path / "client")
    question = ("ask", "What is silk?", "--model", SCRIPTED, "--json", *client)

    provider = start_provider(processes, network.file, "provider", *OFFER, *AT_ONCE)
    first = processes.run("p2p.node", *question, "--faucet").result
    provider.process.record("settled", settled_nano=first["authorised_nano"])
    provider.process.signal(signal.SIGKILL)
    provider.process.wait()
    provider = start_provider(processes, network.file, "provider", *OFFER, *NEVER)
    second = processes.run("p2p.node", *question).result
    assert second["channel"] == first["channel"]
    old_nano, owed_nano = first["authorised_nano"], second["authorised_nano"]
    assert 0 < old_nano < owed_nano < DEPOSIT_NANO

    charges = tmp_path / "charges.json"
    handed = processes.run("p2p.node", "watch", "--network", network.file, "--home", provider.home, "--export", charges)
    assert handed.code == 0, handed.err
    provider.process.signal(signal.SIGKILL)
    provider.process.wait()
    tower = processes.serve(
        "p2p.node", "watch", "--network", network.file, "--home", tmp_path / "tower", "--charges", charges, "--faucet"
    )
    assert tower.records("ready")[0]["channels"] == 1

    channel = second["channel"]
    closing = processes.run("p2p.node", "channels", "start-close", channel, *client)
    assert closing.code == 0, closing.err
    (settled,) = tower.records("settled")
    assert (settled["settled_nano"], settled["why"]) == (owed_nano, "the payer started to close")
    wait_out_the_challenge(network)
    ended = processes.run("p2p.node", "channels", "finalise", channel, *client)
    assert ended.code == 0, ended.err

    # Settled after the first answer; also within it, if the provider happened to look at its channels just then.
    opened, *settled_before, started_close, rescued, finalised = history(network.file, channel)
    assert (opened.op, {each.op for each in settled_before}) == ("open", {"settle"})
    assert [each.op for each in (started_close, rescued, finalised)] == ["start_close", "settle", "finalise"]
    (rescued_nano,) = (nano for to, nano in rescued.sent_nano if to == provider.ready["wallet"])
    assert rescued_nano == owed_nano - old_nano
    assert rescued.sent_nano[-1][0] == tower.records("ready")[0]["wallet"]
    rent_nano = sum(each.rent_nano for each in (*settled_before, started_close, rescued))
    # What is left for the client: what it deposited and did not owe, and the rent that was not used.
    assert rescued.after_nano == opened.after_nano - owed_nano - rent_nano
    assert finalised.after_nano == 0
    assert processes.run("p2p.node", "channels", "--json", *client).result[0]["state"] == "closed"
