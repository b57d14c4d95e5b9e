"""What `doctor` looks at on this machine: keys, disk and ports."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from multiaddr import Multiaddr

from chain import wallet
from p2p.arguments import PROGRAM
from p2p.errors import LocalError
from p2p.findings import Finding, Verdict
from p2p.home import Home
from p2p.keys import load_or_create_seed

MEGABYTE = 1_000_000
DISK_MIN_BYTES = 100 * MEGABYTE  # below it a book cannot be relied on to grow
DISK_GOOD_BYTES = 1000 * MEGABYTE


def keys(home: Home) -> Sequence[Finding]:
    """Whether the keys that there are can be used, and by nobody else. Raises `LocalError`."""
    for path in (home.identity, home.channel_key):
        if path.exists():
            load_or_create_seed(path)
    if not home.wallet.exists():
        return [Finding("keys", Verdict.NOTE, f"no wallet in {home.folder} yet", f"{PROGRAM} wallet create")]
    locked = "locked by a passphrase" if wallet.read(home.wallet).locked else "not locked by a passphrase"
    return [Finding("keys", Verdict.GOOD, f"readable by you alone, the wallet {locked}")]


def disk(folder: Path) -> Sequence[Finding]:
    """Room for the book."""
    free = shutil.disk_usage(folder).free
    verdict = Verdict.GOOD if free >= DISK_GOOD_BYTES else Verdict.NOTE if free >= DISK_MIN_BYTES else Verdict.BAD
    advice = "" if verdict is Verdict.GOOD else "make room: what cannot be written down is not signed or served"
    return [Finding("disk", verdict, f"{free // MEGABYTE:,} MB free for {folder}", advice)]


def ports(listen: Sequence[str]) -> Sequence[Finding]:
    """Whether each address can be listened to, and whether others can get there."""
    findings = [_port(text) for text in listen]
    if all(_host(Multiaddr(text)).is_loopback for text in listen):
        advice = "listen where others can reach you: --listen /ip4/0.0.0.0/tcp/4001"
        findings.append(Finding("ports", Verdict.NOTE, "programs on this machine alone can reach you", advice))
    return findings


def _port(text: str) -> Finding:
    address = Multiaddr(text)
    host, port = _host(address), int(address.value_for_protocol("tcp") or 0)
    with socket.socket(socket.AF_INET if host.version == 4 else socket.AF_INET6) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((str(host), port))
        except OSError as error:
            advice = "end what listens there (your provider, perhaps), or take another port"
            return Finding("ports", Verdict.BAD, f"{text}: {error.strerror}", advice)
    return Finding("ports", Verdict.GOOD, f"{text} is free")


def _host(address: Multiaddr) -> IPv4Address | IPv6Address:
    """The IP address that it begins with. Raises `LocalError`."""
    first = address.protocols()[0].name
    if first not in {"ip4", "ip6"}:
        raise LocalError(f"{address}: listen on an IP address, such as /ip4/0.0.0.0/tcp/4001")
    return ip_address(address.value_for_protocol(first))
