"""What a command of `p2p.node` works with: its options, its settings, and how it speaks and asks."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import msgspec
import trio

from chain.records import Role
from p2p.config import Config
from p2p.home import Home
from p2p.interrupt import Interrupt
from p2p.network_file import NetworkFile, read_network
from p2p.story import Story
from p2p.terminal import Terminal
from p2p.trace import Trace


@dataclass(frozen=True)
class Session:
    """One run of a command."""

    options: argparse.Namespace
    config: Config
    story: Story
    trace: Trace
    terminal: Terminal
    interrupt: Interrupt
    up: trio.Event  # set once there is nothing more to do than to run until Ctrl-C

    @property
    def role(self) -> Role:
        """The one that `--provider` chooses."""
        return "payee" if self.options.provider else "payer"

    def home(self) -> Home:
        """That role's. Raises `LocalError`."""
        return Home(self.config, self.role)

    def network(self) -> NetworkFile:
        """Raises `LocalError` that says how to get one."""
        return read_network(self.config.network_path)

    def print_json(self, value: Any) -> None:
        """The command's one result, on standard output."""
        print(msgspec.json.encode(value).decode(), flush=True)  # noqa: T201 - the command's own voice
