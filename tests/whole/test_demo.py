"""The demonstration with the real model, audited by somebody who shares none of its code."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from explorer import history
from processes import Process, Processes

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Demo:
    """One that is done and stays up."""

    process: Process
    said: str
    result: dict[str, Any]
    network: Path
    processes: Processes


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with Processes(tmp_path_factory.mktemp("demo")) as processes:
        process = processes.start("p2p.node", "demo", "--json", "--keep", "--max-tokens", "60")
        said = process.said(lambda text: text if text.endswith("\n") else "")
        result = json.loads(said.splitlines()[-1])
        yield Demo(process, said, result, Path(result["network"]), processes)


def test_json_is_the_only_line_and_says_everything(demo: Demo) -> None:
    assert len(demo.said.splitlines()) == 1
    result = demo.result
    assert len(result["answer"].split()) > 5
    assert result["provider"] != result["client"]
    assert {result[name][:8] for name in ("provider", "client")} == {"12D3KooW"}
    assert result["providers_found"] == 3
    assert result["model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert result["usage"]["prompt_tokens"] > 0
    assert 0 < result["usage"]["completion_tokens"] <= 60
    assert result["ttft_ms"] > 0
    assert result["tokens_per_s"] > 0
    assert result["receipt"] == {"verified_by_client": True, "verified_by_third_party": True}


def test_bargaining_pays(demo: Demo) -> None:
    quoted, agreed = demo.result["quoted_first"], demo.result["agreed"]
    assert 0 < agreed["input"] < quoted["input"]
    assert 0 < agreed["output"] < quoted["output"]
    assert demo.result["price"] == agreed


def test_what_was_agreed_is_delivered_and_settled(demo: Demo) -> None:
    result = demo.result
    usage, price = result["usage"], result["agreed"]
    cost = usage["prompt_tokens"] * price["input"] + usage["completion_tokens"] * price["output"]
    assert result["settled_nano"] == result["delivered_nano"] == -(-cost // 10**6) > 0
    assert result["delivered_nano"] <= result["authorised_nano"] <= result["delivered_nano"] + result["window_nano"]


def test_the_chain_says_the_same(demo: Demo) -> None:
    seen = history(demo.network, demo.result["channel"])
    told = demo.result["transactions"]
    assert [(one.op, one.hash, one.exit_code) for one in seen] == [
        (one["op"], one["hash"], one["exit_code"]) for one in told
    ]
    assert [one.op for one in seen] == ["open", "settle", "close_by_release"]
    assert all(one["fee_nano"] > 0 for one in told)

    opened, settled, closed = seen
    assert settled.before_nano - settled.after_nano == demo.result["settled_nano"] + settled.rent_nano
    payee, paid_nano = settled.sent_nano[0]
    assert paid_nano > demo.result["settled_nano"], "with it comes back what carrying it did not use"
    assert opened.before_nano == closed.after_nano == 0
    ((payer, returned_nano),) = closed.sent_nano
    assert payer == opened.sent_nano[0][0] != payee
    assert returned_nano >= settled.after_nano - closed.rent_nano


def test_ctrl_c_ends_it(demo: Demo) -> None:
    """The last test here, by its place."""
    assert len(demo.processes.living()) > 8  # itself, a devnet, a bootstrap peer, three providers with an engine each
    demo.process.signal(signal.SIGINT)
    done = demo.process.wait()
    assert (done.code, done.err) == (0, "")
    assert demo.processes.left() == []
    assert list(demo.processes.temporary.iterdir()) == []
