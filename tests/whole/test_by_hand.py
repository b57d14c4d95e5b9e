"""A network started by hand in several processes, and a customer who asks twice, looks at the books, and leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from explorer import history
from here import here
from local import SCRIPTED, Local
from processes import Done, Processes

FAUCET_NANO = 2_000_000_000

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Customer:
    """Somebody with a home of their own, and what they got for two questions."""

    node: Callable[..., Done]  # here, where nobody else is needed
    first: dict[str, Any]
    second: dict[str, Any]
    said: str  # to the terminal, by the first `ask`, which was not told to speak JSON


@pytest.fixture(scope="module")
def customer(network: Local, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Customer]:
    with Processes(tmp_path_factory.mktemp("customer")) as processes:
        mine = ("--network", network.file, "--home", processes.directory / "me")

        def ask(*arguments: str) -> Done:
            return processes.run("p2p.node", "ask", *arguments, "--model", SCRIPTED, *mine)

        def node(*arguments: str | Path) -> Done:
            return here(processes, *arguments, *mine)

        plain = ask("What is silk?", "--faucet", "--explain")
        assert plain.code == 0, plain.err
        first = {"answer": plain.out, **node("channels", "--json").result[0]}
        second = ask("And what is a moth?", "--json").result
        yield Customer(node, first, second, plain.err)
        assert processes.left() == []


def test_only_the_answer_is_on_standard_output(customer: Customer) -> None:
    assert customer.first["answer"].endswith("\n")
    assert len(customer.first["answer"].split()) >= 64
    for word in ("found", "quote", "agreed", "channel", "authorised", "delivered", "tokens/s"):
        assert word in customer.said
        assert word not in customer.first["answer"]


def test_the_ranking_is_shown_with_its_terms(customer: Customer, network: Local) -> None:
    heading, row = (line for line in customer.said.splitlines() if line.startswith(("provider ", "…")))
    assert heading.split()[:6] == ["provider", "tokens", "opening", "time", "risk", "sum"]
    assert row.startswith(f"…{network.provider.peer[-6:]}")
    assert row.endswith("taken: the only one that offered")
    (ranked,) = customer.second["ranking"]
    assert (ranked["peer"], ranked["taken"]) == (network.provider.peer, True)
    assert ranked["opening_nano"] == 0 < ranked["tokens_nano"], "the channel is open"
    terms = ("tokens_nano", "opening_nano", "time_nano", "risk_nano")
    assert ranked["total_nano"] == sum(ranked[term] for term in terms)


def test_the_second_question_goes_over_the_same_channel(customer: Customer, network: Local) -> None:
    assert customer.second["channel"] == customer.first["channel"]
    (channel,) = customer.node("channels", "--json").result
    assert channel["state"] == "open"
    assert channel["peer"] == customer.second["provider"] == network.provider.peer
    assert channel["authorised_nano"] == channel["delivered_nano"] == customer.second["delivered_nano"]
    spent_nano = customer.second["delivered_nano"] - customer.first["delivered_nano"]
    price, usage = customer.second["price"], customer.second["usage"]
    cost = usage["prompt_tokens"] * price["input"] + usage["completion_tokens"] * price["output"]
    assert spent_nano == -(-cost // 10**6) > 0
    network.provider.process.record("settled", channel=channel["channel"], settled_nano=channel["delivered_nano"])
    opened, *settled = history(network.file, channel["channel"])
    # After each answer; also within one, if the provider happens to look at its channels just then.
    assert len(settled) >= 2
    assert [one.op for one in (opened, *settled)] == ["open", *["settle"] * len(settled)]
    # The provider carried them itself: what they paid, and what the carrying did not use, came back in one message.
    assert {to for one in settled for to, _ in one.sent_nano} == {network.provider.ready["wallet"]}
    paid_nano = sum(one.before_nano - one.after_nano - one.rent_nano for one in settled)
    assert paid_nano == channel["delivered_nano"]


def test_amounts_are_listed_for_a_person(customer: Customer) -> None:
    listed = customer.node("channels").out
    assert customer.second["channel"][:16] in listed
    for nano in (100_000_000, customer.second["authorised_nano"]):
        assert f"({nano:,} nano)" in listed


def test_receipts_can_be_shown_to_strangers(
    customer: Customer, network: Local, processes: Processes, tmp_path: Path
) -> None:
    receipts = customer.node("receipts", "--json").result
    assert [one["peer"] for one in receipts] == [network.provider.peer] * 2
    assert sum(one["cost_nano"] for one in receipts) == customer.second["delivered_nano"]
    listed = customer.node("receipts", "list").out
    assert all(one["session"] in listed for one in receipts)

    def verify(text: str) -> Done:
        file = tmp_path / "receipt.hex"
        file.write_text(text)
        return here(processes, "receipts", "verify", file, "--network", network.file)

    signed: str = receipts[1]["receipt"]
    good = verify(signed)
    assert good.code == 0, good.err
    assert good.out.startswith("Good: ")
    assert f"({receipts[1]['cost_nano']:,} nano)" in good.out
    for at in (len(signed) // 2, len(signed) - 1):
        tampered = verify(signed[:at] + ("0" if signed[at] != "0" else "1") + signed[at + 1 :])
        assert tampered.code == 1
        assert tampered.out == ""
        assert "receipt.hex is not a receipt that provider and client both signed" in tampered.complaint
    junk = verify("not hex")
    assert junk.code == 2
    assert "no receipt" in junk.complaint


def test_a_receipt_says_what_was_promised_and_sold(customer: Customer, tmp_path: Path) -> None:
    kept = customer.node("receipts", "--json").result[1]
    file = tmp_path / "receipt.hex"
    file.write_text(kept["receipt"])
    said = customer.node("receipts", "verify", file, "--json").result
    assert said["verified"] is True
    assert (said["provider"], said["session"]) == (kept["peer"], kept["session"])
    assert said["session_total_nano"] == customer.second["cost_nano"]
    assert said["promised_tokens_per_s"] > 0


def test_what_was_seen_of_a_provider_is_listed(customer: Customer, network: Local) -> None:
    end = network.provider.peer[-6:]
    found = customer.node("peers", "why", end, "--json").result
    assert found["peer"] == network.provider.peer
    assert [one["kind"] for one in found["evidence"]] == ["answered", "answered"]
    assert found["evidence"][0]["tokens"] == customer.second["usage"]["completion_tokens"]
    assert found["failure_permille"] < 40
    shown = customer.node("peers", "why", f"…{end}").out
    assert f"answered {customer.second['usage']['completion_tokens']} tokens, the first after" in shown
    assert "answers that fail" in shown
    nobody = customer.node("peers", "why", "nobody")
    assert nobody.code == 2
    assert "has had no answer" in nobody.complaint


def test_leaving_gives_the_rest_back(customer: Customer, network: Local) -> None:
    channel = customer.second["channel"]
    before = customer.node("wallet", "--json").result
    closing = customer.node("channels", "close", channel[:10])
    assert closing.code == 0, closing.err
    (closed,) = customer.node("channels", "--json").result
    assert closed["state"] == "closed"
    assert closed["settled_nano"] == closed["delivered_nano"] == customer.second["delivered_nano"]
    last = history(network.file, channel)[-1]
    assert (last.op, last.exit_code, last.after_nano) == ("close_by_release", 0, 0)
    after = customer.node("wallet", "--json").result
    assert after["address"] == before["address"] == last.sent_nano[-1][0]
    deposited_nano = 100_000_000
    returned_nano = after["balance_nano"] - before["balance_nano"]
    assert deposited_nano - closed["settled_nano"] < returned_nano < deposited_nano + 3_000_000  # the rest, and rent
    assert after["balance_nano"] < FAUCET_NANO - closed["settled_nano"]
    shown = customer.node("wallet").out
    assert after["address"] in shown
    assert f"({after['balance_nano']:,} nano)" in shown
    again = customer.node("channels", "close", channel[:10])
    assert (again.code, again.complaint) == (2, "bombyx: the channel is closed already")
    unnamed = customer.node("channels", "close")
    assert unnamed.code == 2
    assert "name the channel" in unnamed.complaint
