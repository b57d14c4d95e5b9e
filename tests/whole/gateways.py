"""A gateway that buys from a small network, and what to ask of it."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from processes import Process, Processes

HELLO: list[Any] = [{"role": "user", "content": "why is silk strong"}]


class Gateway(NamedTuple):
    """One that is up."""

    process: Process
    url: str
    home: Path

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"


def start_gateway(
    processes: Processes,
    network: Path,
    name: str = "caller",
    *flags: str,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Gateway:
    """With play money, at whatever port is free."""
    home = processes.directory / name
    where = ("--network", network, "--home", home, "--faucet", "--listen", "127.0.0.1:0")
    process = processes.serve("p2p.node", "gateway", *where, *flags, environment=environment)
    return Gateway(process, process.records("ready")[0]["url"], home)


def get(gateway: Gateway, path: str, key: str = "any") -> Any:
    """The JSON that is there."""
    request = urllib.request.Request(f"{gateway.url}{path}", headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request) as response:
        return json.load(response)
