"""Whole simulated worlds: one seed gives one result, money is conserved, and a broken promise ends the run."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from small_world import small_toml, small_world

from chain.memory import MemoryChain
from p2p.protocol.negotiate import Refusal
from p2p.protocol.receipt import Receipt
from p2p.protocol.session import RECEIPT_PATIENCE_S, SILENCE_S
from p2p.protocol.session_client import ClientSession
from p2p.protocol.session_provider import ProviderSession
from p2p.protocol.stall import FLOOR_S
from p2p.trace import MESSAGES
from sim.errors import Violation
from sim.payees import Payees
from sim.run import Outcome, simulate
from sim.scenario import load_scenario
from sim.world import World

ROOT = Path(__file__).parent.parent.parent


def kinds(outcome: Outcome) -> Counter[str]:
    return Counter(record["kind"] for record in outcome.trace.records)


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return simulate(small_world(), 1)


def test_every_question_is_answered_though_providers_die(outcome: Outcome) -> None:
    seen = kinds(outcome)
    assert seen["asked"] > 80
    assert seen["answered"] == seen["asked"]
    assert seen["died"] == seen["returned"] >= 3
    assert seen["lost"] >= seen["died"]


def test_a_provider_that_falls_silent_is_given_up_as_stalled_or_after_four_heartbeats() -> None:
    """In the middle of an answer the one, before its first token, for which it is given more time, the other."""
    records = simulate(small_world(silent_percent="100"), 1).trace.records
    died = {record["provider"]: record["t_us"] for record in records if record["kind"] == "died"}
    lost = [record for record in records if record["kind"] == "lost" and record["provider"] in died]
    assert {record["tokens_out"] > 0 for record in lost} == {True, False}
    for record in lost:
        silence_s = (record["t_us"] - died[record["provider"]]) / 1_000_000
        patience_s = FLOOR_S + RECEIPT_PATIENCE_S if record["tokens_out"] else SILENCE_S
        assert patience_s - 1 < silence_s < patience_s + 1


def test_every_channel_closes_for_what_was_delivered(outcome: Outcome) -> None:
    seen = kinds(outcome)
    closed = [record for record in outcome.trace.records if record["kind"] == "closed"]
    assert seen["opened"] == len(closed) > 10
    receipted_nano = sum(r["cost_nano"] for r in outcome.trace.records if r["kind"] == "answered")
    assert receipted_nano <= sum(record["paid_nano"] for record in closed) <= 1.05 * receipted_nano
    ops = Counter(record["op"] for record in outcome.trace.records if record["kind"] == "transaction")
    assert ops["open"] == ops["close_by_release"] == len(closed)
    assert ops["settle"] > 0
    assert ops["top_up"] > 0


def test_the_checks_were_made(outcome: Outcome) -> None:
    checked = next(record for record in outcome.trace.records if record["kind"] == "checked")
    answered = kinds(outcome)["answered"]
    assert checked["receipts"] == 2 * answered
    assert checked["exposure"] > 20 * answered
    assert checked["settlement"] == kinds(outcome)["closed"]
    assert checked["wallets"] == 22


def test_one_seed_gives_one_digest_and_another_seed_another(outcome: Outcome) -> None:
    assert simulate(small_world(), 1).trace.lines() == outcome.trace.lines()
    assert simulate(small_world(), 2).digest != outcome.digest


def test_the_digest_is_that_of_the_trace(outcome: Outcome) -> None:
    assert outcome.digest == hashlib.sha256(outcome.trace.lines()).hexdigest()


def test_two_processes_agree_whatever_their_hash_seed(outcome: Outcome, tmp_path: Path) -> None:
    path = tmp_path / "small.toml"
    path.write_text(small_toml(), encoding="utf-8")
    digests = set()
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-m", "sim", "run", str(path), "--json"],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
        )
        digests.add(msgspec.json.decode(done.stdout)["digest"])
    assert digests == {outcome.digest}


def test_a_client_without_money_is_left_without_an_answer() -> None:
    scenario = small_world()
    clients = msgspec.structs.replace(scenario.clients, wallet_nano=1_000_000)
    outcome = simulate(msgspec.structs.replace(scenario, clients=clients), 1)
    seen = kinds(outcome)
    assert seen["answered"] == 0
    assert seen["unanswered"] == seen["asked"] > 0
    assert seen["no_funds"] > 0


def test_a_nano_from_nowhere_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    pay = MemoryChain._pay

    def generous(chain: MemoryChain, account: object, address: str, amount_nano: int) -> None:
        pay(chain, account, address, amount_nano)  # type: ignore[arg-type]
        chain.mint(address, 1)

    monkeypatch.setattr(MemoryChain, "_pay", generous)
    with pytest.raises(Violation, match=r"^violation with seed 1 at \d+\.\d+ s: -1 nano are missing of \d+$"):
        simulate(small_world(), 1)


def test_a_receipt_that_does_not_verify_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.invariants.verify_by_peer", lambda *_: False)
    with pytest.raises(Violation, match="a receipt does not verify: bad_signature"):
        simulate(small_world(), 1)


def test_a_provider_that_gives_too_much_credit_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ProviderSession, "_room_nano", lambda *_: 1 << 40)
    monkeypatch.setattr(ClientSession, "_pay_now", lambda *_: [])
    with pytest.raises(Violation, match=r"provider-\d+ risks \d+ nano, above \d+"):
        simulate(small_world(input_price_percent="0"), 1)


def test_a_fault_that_one_core_finds_in_another_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = ProviderSession._make_receipt

    def dear(session: ProviderSession, *args: object) -> Receipt:
        receipt = honest(session, *args)  # type: ignore[arg-type]
        return msgspec.structs.replace(receipt, session_total_nano=receipt.session_total_nano + 1)

    monkeypatch.setattr(ProviderSession, "_make_receipt", dear)
    with pytest.raises(Violation, match="blames a peer: bad_receipt"):
        simulate(small_world(), 1)


def test_a_provider_that_never_releases_does_not_hang_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Payees, "release", lambda *_: Refusal(reason="channel_busy"))
    with pytest.raises(Violation, match=r"\d+ clients are stuck"):
        simulate(small_world(duration_s="60.0", dying_percent="0"), 1)


def test_seed_streams_are_per_actor() -> None:
    """One client more leaves the others' demand as it was."""
    names = [f"demand/client-{number}" for number in range(3)]
    one, other = World(small_world(), 1), World(small_world(), 1)
    other.kernel.stream("demand/client-99").random()
    assert [one.kernel.stream(n).random() for n in names] == [other.kernel.stream(n).random() for n in names]


@pytest.mark.slow
def test_first_day_at_full_size() -> None:
    outcome = simulate(load_scenario("first_day"), 1)
    seen = kinds(outcome)
    assert seen["asked"] > 1000
    assert seen["answered"] == seen["asked"]
    assert seen["died"] > 3
    assert seen["lost"] > 3


def test_each_message_is_in_the_trace_if_asked_as_a_live_node_writes_it(outcome: Outcome) -> None:
    records = simulate(small_world(), 1, messages=True).trace.records
    messages = [record for record in records if record["kind"] in MESSAGES]
    assert all(record.keys() == {"t_us", "kind", "by", "peer", "message"} for record in messages)
    assert {"Ask", "Signed", "Start", "Delta", "Payment"} <= {record["message"] for record in messages}
    assert [record for record in records if record["kind"] not in MESSAGES] == outcome.trace.records
