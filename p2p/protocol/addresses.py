"""Core: where a peer is to be reached, as a multiaddr says it, and how far that holds.

Two forms are used: a TCP address of the peer's own, `/ip4/<address>/tcp/<port>/p2p/<peer>`, and a place at a relay,
`/ip4/<address>/tcp/<port>/p2p/<relay>/p2p-circuit/p2p/<peer>`. The address may also be `ip6`, or a name (`dns`, `dns4`,
`dns6`).
"""

from __future__ import annotations

import re
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from p2p.errors import LocalError

_FORM = re.compile(
    r"/(?P<kind>ip4|ip6|dns|dns4|dns6)/(?P<host>[^/]{1,253})/tcp/(?P<port>0|[1-9][0-9]{0,4})"
    r"(?:/p2p/(?P<relay>[1-9A-HJ-NP-Za-km-z]{1,128})/p2p-circuit)?"
)
_NAME = re.compile(r"[A-Za-z0-9_.-]+")


class Reach(IntEnum):
    """How far away an address means the same host; wider is greater."""

    MACHINE = 0
    SITE = 1  # private ranges, those of link and site, and what providers use within themselves
    WORLD = 2


class Address(NamedTuple):
    """A TCP port, and the relay that listens there if it is not the peer itself."""

    kind: str
    host: str
    port: int
    relay: str = ""

    @property
    def transport(self) -> str:
        """The part that can be dialled: `/ip4/<address>/tcp/<port>`."""
        return f"/{self.kind}/{self.host}/tcp/{self.port}"

    def of(self, peer: str) -> str:
        """The whole address of `peer`."""
        return f"{self}/p2p/{peer}"

    def __str__(self) -> str:
        return f"{self.transport}/p2p/{self.relay}/p2p-circuit" if self.relay else self.transport


def parse(text: str) -> Address:
    """An address without the peer's id at its end. Raises `LocalError`."""
    found = _FORM.fullmatch(text)
    host = _host(found["kind"], found["host"]) if found else None
    if not found or not host or int(found["port"]) > 65535:
        raise LocalError(f"{text!r} is not of the form /ip4/<address>/tcp/<port>")
    return Address(found["kind"], host, int(found["port"]), found["relay"] or "")


def parse_full(text: str, peer: str) -> Address:
    """An address that ends in `/p2p/<peer>`. Raises `LocalError`."""
    address, _, named = text.rpartition("/p2p/")
    if named != peer:
        raise LocalError(f"{text!r} does not end in /p2p/{peer}")
    return parse(address)


def socket_address(ip: str, port: int) -> Address:
    """Of a socket. `ip` is text as the system gives it; an IPv4 address in IPv6's form counts as IPv4."""
    address = ip_address(ip.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return Address(f"ip{address.version}", str(address), port)


def reach_of_ip(ip: str) -> Reach | None:
    """How far an IP address holds; `None` for one that names no single host. Raises `ValueError` for other text."""
    address: IPv4Address | IPv6Address = ip_address(ip.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if address.is_unspecified or address.is_multicast or str(address) == "255.255.255.255":
        return None
    if address.is_loopback:
        return Reach.MACHINE
    return Reach.WORLD if address.is_global else Reach.SITE


def reach_of(address: Address) -> Reach | None:
    """As `reach_of_ip`. A name counts as the world's: what it stands for is looked at when it is dialled."""
    return reach_of_ip(address.host) if address.kind.startswith("ip") else Reach.WORLD


def _host(kind: str, host: str) -> str | None:
    """In the one form that an IP address has, so that the same address is not met twice."""
    if kind.startswith("dns"):
        return host if _NAME.fullmatch(host) else None
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return str(address) if address.version == int(kind[-1]) and "%" not in host else None
