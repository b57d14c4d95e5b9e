"""Contacts between the core's binary forms and the seam's text, and what an IP address says of whom."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterable
from typing import Any

from libp2p.peer.id import ID
from multiaddr import Multiaddr

from p2p import keys
from p2p.errors import RemoteError
from p2p.host import PeerAddress
from p2p.protocol.kad_messages import MAX_ADDRESSES, Contact

_log = logging.getLogger(__name__)


def peer_address(contact: Contact) -> PeerAddress:
    """As text, without the addresses that cannot be read."""
    peer = str(ID(contact.peer))
    suffix = f"/p2p/{peer}"
    texts = []
    for address in contact.addresses:
        try:
            text = str(Multiaddr(address))
        except Exception:  # the library's parser raises what it likes on bytes from a peer
            _log.debug("an address of %s cannot be read", peer)
            continue
        texts.append(text if text.endswith(suffix) else text + suffix)
    return PeerAddress(peer, tuple(texts))


def contact_of(peer: PeerAddress) -> Contact | None:
    """As bytes; `None` for what no peer of ours would say."""
    try:
        keys.public_key_of(peer.peer)
        addresses = binary_addresses(map(Multiaddr, peer.addresses), ID.from_base58(peer.peer))
    except Exception:  # as above
        _log.debug("no contact: %r", peer)
        return None
    return Contact(ID.from_base58(peer.peer).to_bytes(), addresses)


def binary_addresses(addresses: Iterable[Any], peer: ID) -> tuple[bytes, ...]:
    """Multiaddrs as contacts have them: without the peer's own id at the end, and no more than are taken."""
    suffix = Multiaddr(f"/p2p/{peer}").to_bytes()
    return tuple(address.to_bytes().removesuffix(suffix) for address in addresses)[:MAX_ADDRESSES]


def is_ed25519(peer: bytes) -> bool:
    """Whether it is a kind of id that our peers have; a record may name anything."""
    try:
        keys.public_key_of(str(ID(peer)))
    except RemoteError:
        return False
    return True


def origin_of(ip: str | None) -> str:
    """The network that a connection comes from: a /24 of IPv4, a /48 of IPv6; empty for what is not the internet's."""
    if ip is None:
        return "relayed"
    address = ipaddress.ip_address(ip.partition("%")[0])
    if not address.is_global:
        return ""
    return str(ipaddress.ip_network((address, 24 if address.version == 4 else 48), strict=False))
