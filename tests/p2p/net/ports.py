"""Ports of this machine, for programs that must be told theirs."""

from __future__ import annotations

import socket


def free_port() -> int:
    """One that nobody listens at on loopback, for now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
