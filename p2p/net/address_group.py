"""Core: what counts as one address, where something is limited or shared out by address."""

from __future__ import annotations

import ipaddress
from typing import Any, Protocol

IPV6_PREFIX = 56  # what one customer of a provider has at its disposal, at the least (RFC 6177)


class Connection(Protocol):
    """What libp2p's muxed connections show of themselves."""

    peer_id: Any

    def get_remote_address(self) -> tuple[str, int] | None: ...


def address_group(ip: str) -> str:
    """An IPv4 address, or the network of an IPv6 address. What is no IP address stands for itself."""
    try:
        address = ipaddress.ip_address(ip.partition("%")[0])
    except ValueError:
        return ip
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, IPV6_PREFIX), strict=False))


def address_of(connection: Connection) -> str:
    """What a connection counts as. One that a relay brought has no address; it is its peer's alone."""
    remote = connection.get_remote_address()
    return address_group(remote[0]) if remote else str(connection.peer_id)
