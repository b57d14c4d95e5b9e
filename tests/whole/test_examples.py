"""Each example as its first lines say to run it, on one small network, paid on its devnet.

LangChain, LlamaIndex and `llm` bring hundreds of megabytes, and are left out.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from gateways import start_gateway
from local import SCRIPTED, Local
from mcp import ClientSession, StdioServerParameters, stdio_client
from processes import ROOT, Done, Processes

pytestmark = pytest.mark.slow

EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def started(network: Local, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    with Processes(tmp_path_factory.mktemp("examples")) as processes:
        yield processes


@pytest.fixture(scope="module")
def base_url(network: Local, started: Processes) -> str:
    return start_gateway(started, network.file).base_url


@pytest.fixture(scope="module")
def environment(network: Local, started: Processes) -> Mapping[str, str]:
    """Of a home that has play money."""
    home = started.directory / "app"
    funded = started.run("p2p.node", "wallet", "fund", "--network", network.file, "--home", home)
    assert funded.code == 0, funded.err
    return {
        "BOMBYX_HOME": str(home),
        "BOMBYX_NETWORK": str(network.file),
        "BOMBYX_ASK_MODEL": SCRIPTED,
        "BOMBYX_ASK_MAX_TOKENS": "40",
    }


def run(processes: Processes, environment: Mapping[str, str], *command: str | Path) -> Done:
    said = " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())
    done = processes.shell(f"{said} {shlex.join(map(str, command))}")
    assert (done.code, done.err) == (0, "")
    return done


def test_a_light_peer(started: Processes, environment: Mapping[str, str]) -> None:
    offer, *answer, cost = run(started, environment, "python", EXAMPLES / "light_peer.py", "why silk").out.splitlines()
    assert f"sells {SCRIPTED}" in offer
    assert len(" ".join(answer).split()) > 10
    assert int(cost.strip("(").split()[0]) > 0


@pytest.mark.parametrize("name", ["openai_sync.py", "openai_async.py"])
def test_openai(started: Processes, base_url: str, name: str) -> None:
    environment = {"OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "none"}
    done = run(started, environment, "python", EXAMPLES / name, "why is silk strong")
    assert len(done.out.split()) > 10


def test_curl(started: Processes, base_url: str) -> None:
    done = run(started, {"OPENAI_BASE_URL": base_url}, EXAMPLES / "curl.sh", SCRIPTED, "why is silk strong")
    events = [line.removeprefix("data: ") for line in done.out.splitlines() if line]
    assert events[-1] == "[DONE]"
    chunks: list[Any] = [json.loads(event) for event in events[:-1]]
    assert len("".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks).split()) > 10


async def test_mcp(environment: Mapping[str, str]) -> None:
    """The official client under Trio, as an assistant would start the server."""
    server = StdioServerParameters(
        command=sys.executable,
        args=[str(EXAMPLES / "mcp_server.py")],
        env={**environment, "PYTHONPATH": str(ROOT), "BOMBYX_ASK_ANSWER_MAX_NANO": "20000"},
    )
    async with stdio_client(server) as (read, write), ClientSession(read, write) as session:
        await session.initialize()
        assert {tool.name for tool in (await session.list_tools()).tools} == {"chat", "quotes", "budget"}
        answered = await session.call_tool("chat", {"question": "why is silk strong"})
        assert len(answered.structured_content["answer"].split()) > 10
        (offer,) = (await session.call_tool("quotes", {})).structured_content["result"]
        assert offer["model"] == SCRIPTED
        spent = (await session.call_tool("budget", {})).structured_content
        assert spent["today_nano"] >= answered.structured_content["cost_nano"] > 0
        refused = await session.call_tool("chat", {"question": "word " * 900})
        assert refused.is_error
        assert "it could cost" in refused.content[0].model_dump_json()
