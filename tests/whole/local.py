"""A network started by hand, one process after the other, as the README says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
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
class Local:
    """A devnet, a bootstrap peer and a provider of the scripted model."""

    file: Path
    chain: Path
    devnet: Process
    relay: Provider
    provider: Provider


def start_local(processes: Processes) -> Local:
    """All of it up."""
    directory = processes.directory
    file, chain, home = directory / "network.json", directory / "chain.json", directory / "relay"
    devnet = processes.serve("chain.devnet", "--config-out", chain)
    devnet.said(lambda text: text.endswith("\n"))
    relay = processes.serve("p2p.node", "relay", "--chain", chain, "--network-out", file, "--home", home)
    ready = relay.records("ready")[0]
    return Local(file, chain, devnet, Provider(relay, home, ready), start_provider(processes, file, "seller", *CHEAP))


def start_provider(processes: Processes, network: Path, name: str, *flags: str) -> Provider:
    """One more, with play money for its fees."""
    home = processes.directory / name
    process = processes.serve("p2p.node", "provide", "--network", network, "--home", home, "--faucet", *flags)
    return Provider(process, home, process.records("ready")[0])
