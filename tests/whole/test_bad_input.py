"""What a person can get wrong: one clear line for each, the right exit code, and nothing lost or left behind."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from here import here
from local import CHEAP, SCRIPTED, Local
from processes import Done, Processes

CHANGE_SOMETHING, FAILED = 2, 1

pytestmark = pytest.mark.slow


def refused(done: Done, code: int, *words: str) -> None:
    """It said these words in its last line of standard error, the only one from itself, and nothing of a traceback."""
    assert done.code == code, done
    assert "Traceback" not in done.err
    *story, last = done.err.splitlines()
    assert last.startswith(("bombyx: ", "chain.devnet: "))
    assert not [line for line in story if "bombyx:" in line]
    assert [word for word in words if word not in last] == []


@pytest.fixture(autouse=True)
def nothing_left(processes: Processes) -> Iterator[None]:
    yield
    assert processes.left() == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--nonsense"], ["--nonsense", "--help"]),
        (["ask", "Why?", "--nonsense"], ["--nonsense", "--help"]),
        (["aks", "Why?"], ["aks", "ask"]),
        (["relay"], ["--chain", "--help"]),
        (["demo", "--providers", "99"], ["--providers", "8"]),
        (["demo", "--max-tokens", "0"], ["max_tokens", "1"]),
        (["ask", "Why?", "--max-tokens", "many"], ["max_tokens", "int"]),
        (["ask", "Why?"], ["network.json", "--network", "python -m p2p.node"]),
        (["provide", "--network", "nowhere.json"], ["nowhere.json"]),
        (["provide", "--engine", "upstream"], ["--upstream-url", "http://"]),
        (["provide", "--strategy", "haggel"], ["haggel", "concession", "docs/MARKET.md"]),
        (["ask", "Why?", "--concede", "never"], ["ask.concede", "never"]),
        (["demand"], ["--per-day", "demand.per_day"]),
        (["demand", "--provider"], ["demand list --provider"]),
        (["relay", "--chain", "nowhere.json"], ["nowhere.json", "No such file"]),
        (["wallet", "--config", "nowhere.toml"], ["nowhere.toml", "No such file"]),
    ],
    ids=" ".join,
)
def test_a_command_that_cannot_work(arguments: list[str], words: list[str], processes: Processes) -> None:
    done = here(processes, *arguments)
    refused(done, CHANGE_SOMETHING, *words)
    assert done.out == ""


def test_so_it_ends_in_a_process_of_its_own(processes: Processes) -> None:
    refused(processes.run("p2p.node", "ask", "Why?"), CHANGE_SOMETHING, "network.json")


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("slots = 2", ["slots"]),
        ("[provide]\nslot = 2", ["provide", "slot"]),
        ('[provide]\nslots = "many"', ["provide.slots", "int"]),
        ("[provide]\nslots = 0", ["provide.slots", "1"]),
        ("provide = 3", ["provide"]),
        ("[provide", ["TOML"]),
    ],
)
def test_a_setting_that_is_none(toml: str, words: list[str], processes: Processes, tmp_path: Path) -> None:
    file = tmp_path / "bombyx.toml"
    file.write_text(toml)
    refused(here(processes, "wallet", "--config", file), CHANGE_SOMETHING, *words)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("BOMBYX_HUME", "somewhere", ["hume"]),
        ("BOMBYX_PROVIDE_PRIZE", "1", ["provide", "prize"]),
        ("BOMBYX_PROVIDE_SLOTS", "many", ["provide.slots", "int"]),
        ("BOMBYX_ASK", "x", ["ask"]),
    ],
)
def test_a_variable_that_is_none(name: str, value: str, words: list[str], processes: Processes) -> None:
    refused(here(processes, "wallet", environment={name: value}), CHANGE_SOMETHING, *words)


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (None, CHANGE_SOMETHING, "No such file"),
        (b"", CHANGE_SOMETHING, "is not a GGUF file"),
        (b"<html>not found</html>" * 10, CHANGE_SOMETHING, "is not a GGUF file"),
        (b"GGUF\x03\x00\x00\x00" + bytes(1000), FAILED, "is it whole"),
    ],
    ids=["missing", "empty", "a web page", "cut off"],
)
def test_a_model_that_is_none(
    content: bytes | None, code: int, words: str, network: Local, processes: Processes, tmp_path: Path
) -> None:
    model = tmp_path / "model.gguf"
    if content is not None:
        model.write_bytes(content)
    done = here(processes, "provide", "--model", model, "--network", network.file, "--home", tmp_path / "seller")
    refused(done, code, str(model), words)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody else listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_port_that_is_taken(taken: int, network: Local, processes: Processes) -> None:
    listen = ("--listen", f"/ip4/127.0.0.1/tcp/{taken}")
    provide = processes.run("p2p.node", "provide", *CHEAP, *listen, "--network", network.file)
    refused(provide, CHANGE_SOMETHING, str(taken), "another")
    relay = processes.run("p2p.node", "relay", "--chain", network.chain, *listen)
    refused(relay, CHANGE_SOMETHING, str(taken), "another")
    refused(processes.run("chain.devnet", "--port", str(taken)), CHANGE_SOMETHING, str(taken), "another")


@dataclass(frozen=True)
class Client:
    """Somebody with a home on the shared network."""

    processes: Processes
    network: Local
    home: Path

    def ask(self, *arguments: str) -> Done:
        return self.processes.run("p2p.node", "ask", *arguments, "--model", SCRIPTED, *self._mine)

    def here(self, *arguments: str) -> Done:
        return here(self.processes, *arguments, *self._mine)

    @property
    def _mine(self) -> tuple[str | Path, ...]:
        return "--network", self.network.file, "--home", self.home


@pytest.fixture
def client(network: Local, processes: Processes, tmp_path: Path) -> Client:
    return Client(processes, network, tmp_path / "client")


def test_what_nobody_can_or_will_answer(client: Client) -> None:
    too_long = client.ask("word " * 9000, "--faucet")
    refused(too_long, FAILED, "8192 tokens", "shorten")
    assert "too_long" not in too_long.err
    assert too_long.out == ""
    unknown = client.here("ask", "Why?", "--model", "nobody/has-it")
    refused(unknown, FAILED, "nobody/has-it", "no provider", "provide")
    refused(client.here("ask", "Why?", "--model", SCRIPTED, "--price-max-output", "1"), FAILED, "price")
    assert client.here("channels", "--json").result == []
    assert client.here("wallet", "--json").result["balance_nano"] == 2_000_000_000


def test_a_program_is_told_why_in_a_word(client: Client) -> None:
    done = client.ask("word " * 9000, "--faucet", "--json")
    refused(done, FAILED, "shorten")
    assert json.loads(done.out)["reason"] == "too_long"
    assert done.err == f"bombyx: {json.loads(done.out)['error']}\n"


def test_nothing_asked(client: Client) -> None:
    refused(client.here("ask", ""), CHANGE_SOMETHING, "nothing was asked", "ask")


def test_an_empty_purse(client: Client) -> None:
    done = client.ask("Why?")
    refused(done, FAILED, client.here("wallet", "--json").result["address"], "holds 0 GRAM", "--faucet")
    assert done.out == ""


def test_a_home_that_is_in_use(client: Client, network: Local, processes: Processes) -> None:
    second = processes.run("p2p.node", "provide", *CHEAP, "--network", network.file, "--home", network.provider.home)
    refused(second, CHANGE_SOMETHING, "another process", str(network.provider.home))


def test_a_key_that_others_can_read(client: Client) -> None:
    poor = client.here("ask", "Why?", "--model", SCRIPTED)
    assert poor.code == FAILED  # for want of money, and with keys made
    for key in ("wallet.key", "identity.key", "channel.key"):
        path = client.home / "client" / key
        path.chmod(0o644)
        refused(client.here("ask", "Why?"), CHANGE_SOMETHING, str(path), "chmod 600")
        path.chmod(0o600)


def test_a_network_that_is_gone(network: Local, processes: Processes, tmp_path: Path) -> None:
    file = tmp_path / "gone.json"
    gone = network.relay.address.replace(f"/tcp/{network.relay.port}/", "/tcp/9/")
    file.write_text(network.file.read_text().replace(network.relay.address, gone))
    done = processes.run("p2p.node", "ask", "Why?", "--network", file, "--home", tmp_path / "me")
    refused(done, FAILED, "no bootstrap peer answers")


def test_a_network_file_that_is_not_for_play(network: Local, processes: Processes, tmp_path: Path) -> None:
    file = json.loads(network.file.read_text())
    file["chain"]["bombyx"]["control"] = ""  # no faucet: this is somebody's real network
    path = tmp_path / "network.json"
    path.write_text(json.dumps(file))
    refused(processes.run("p2p.node", "--home", tmp_path), CHANGE_SOMETHING, str(path), "another --home")
    assert json.loads(path.read_text()) == file
