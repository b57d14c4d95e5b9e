"""A network started by hand, one process after the other, as the README says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from processes import Process, Processes

SCRIPTED = "bombyx/scripted"
QUICK = {"BOMBYX_PROVIDE_ENGINE": "scripted", "BOMBYX_ASK_MODEL": SCRIPTED}  # for what starts providers itself
CHEAP = ("--engine", "scripted", "--settle-at-nano", "1")


@dataclass(frozen=True)
class Provider:
    """One that is up."""

    process: Process
    home: Path
    ready: dict[str, Any]

    @property
    def peer(self) -> str:
        peer: str = self.ready["peer"]
        return peer

    @property
    def address(self) -> str:
        address: str = self.ready["addresses"][0]
        return address

    @property
    def port(self) -> int:
        return int(self.address.split("/tcp/")[1].split("/")[0])


@dataclass(frozen=True)
class Bare:
    """A devnet and a bootstrap peer."""

    file: Path
    chain: Path
    devnet: Process
    relay: Provider


@dataclass(frozen=True)
class Local(Bare):
    """The same with a provider of the scripted model."""

    provider: Provider


def start_bare(processes: Processes) -> Bare:
    """Both up."""
    directory = processes.directory
    file, chain, home = directory / "network.json", directory / "chain.json", directory / "relay"
    devnet = processes.serve("chain.devnet", "--config-out", chain)
    devnet.said(lambda text: text.endswith("\n"))
    relay = processes.serve("p2p.node", "relay", "--chain", chain, "--network-out", file, "--home", home)
    return Bare(file, chain, devnet, Provider(relay, home, relay.records("ready")[0]))


def start_local(processes: Processes) -> Local:
    """All of it up."""
    bare = start_bare(processes)
    return Local(bare.file, bare.chain, bare.devnet, bare.relay, start_provider(processes, bare.file, "seller", *CHEAP))


def start_solo(
    processes: Processes, *flags: str, environment: Mapping[str, str] = MappingProxyType({})
) -> tuple[Process, str]:
    """A bare `python -m p2p.node`, up; and the first command that it tells people to type."""
    solo = processes.start("p2p.node", *flags, environment=environment)
    said = solo.said(lambda text: text if "Ctrl-C" in text else "")
    return solo, commands_in(said)[0]


def commands_in(said: str) -> list[str]:
    """Of ours, each on a line of its own."""
    return re.findall(r"^ +(python -m p2p\.node .+)$", said, re.MULTILINE)


def start_provider(processes: Processes, network: Path, name: str, *flags: str) -> Provider:
    """One more, with play money for its fees."""
    home = processes.directory / name
    process = processes.serve("p2p.node", "provide", "--network", network, "--home", home, "--faucet", *flags)
    return Provider(process, home, process.records("ready")[0])
