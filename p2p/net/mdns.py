"""Neighbours on the local network, by multicast DNS as libp2p has it: peers say their addresses in TXT records.

The records are those of libp2p's mDNS specification (`dnsaddr=<multiaddr>`), under a service of our own, so that we
neither dial nor bother the other libp2p programs of the house; a further entry names the network.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import trio
from zeroconf import InterfaceChoice, ServiceBrowser, ServiceInfo, ServiceStateChange, Zeroconf

from p2p.errors import LocalError
from p2p.protocol.addresses import Reach, parse_full, reach_of

ALL_INTERFACES = "0.0.0.0"  # noqa: S104 - the name for it, nothing is bound here
SERVICE = "_bombyx._udp.local."
MAX_ADDRESSES = 8  # of one neighbour
MAX_TXT_BYTES = 1300  # so that a record fits one packet
CLOSE_TIMEOUT_S = 3.0
_ANSWER_TIMEOUT_MS = 1000
_PORT = 4001  # a service record must name one; the addresses say where to go

_log = logging.getLogger(__name__)


@asynccontextmanager
async def on_lan(
    interface: str, *, network: str, addresses: Sequence[str], found: Callable[[str], None]
) -> AsyncIterator[None]:
    """Announce `addresses` (none: only look), and call `found` with each address that a neighbour announces.

    `interface` is the address of one, or `ALL_INTERFACES`. What neighbours say is unchecked, except that they are near:
    anybody on the local network may say anything. Raises `LocalError` where the interface cannot be used.
    """
    interfaces = InterfaceChoice.All if interface == ALL_INTERFACES else [interface]
    try:
        zeroconf = await trio.to_thread.run_sync(lambda: Zeroconf(interfaces=interfaces))
    except OSError as error:
        raise LocalError(f"cannot look for neighbours on {interface}: {error.strerror or error}") from None
    token = trio.lowlevel.current_trio_token()

    def changed(zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        """Called by a thread of the library."""
        if state_change is ServiceStateChange.Removed:
            return
        info = ServiceInfo(service_type, name)
        info.request(zeroconf, _ANSWER_TIMEOUT_MS)  # false without an address record; peers give none
        for address in filter(_is_near, announced(info.text, network)):
            token.run_sync_soon(found, address)

    try:
        if addresses:
            text = announcement(network, addresses)
            # The specification wants a name that tells nothing, different at each start.
            info = ServiceInfo(SERVICE, f"{secrets.token_hex(16)}.{SERVICE}", _PORT, properties=text)
            await trio.to_thread.run_sync(zeroconf.register_service, info)
        browser = await trio.to_thread.run_sync(lambda: ServiceBrowser(zeroconf, SERVICE, handlers=[changed]))
        try:
            yield
        finally:
            await _finish(browser.cancel)
    finally:
        await _finish(zeroconf.close)


async def _finish(close: Callable[[], None]) -> None:
    """It says goodbye to the neighbours, and waits for its threads."""
    with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
        await trio.to_thread.run_sync(close, abandon_on_cancel=True)


def _is_near(address: str) -> bool:
    """Whether it leads no farther than a neighbour lives."""
    try:
        reach = reach_of(parse_full(address, address.rpartition("/p2p/")[2]))
    except LocalError:
        return False
    return reach is not None and reach < Reach.WORLD


def announcement(network: str, addresses: Sequence[str]) -> bytes:
    """The TXT record: as many of the addresses as fit."""
    record = b""
    for entry in (f"network={network}", *(f"dnsaddr={address}" for address in addresses[:MAX_ADDRESSES])):
        string = entry.encode()
        if len(string) < 256 and len(record) + 1 + len(string) <= MAX_TXT_BYTES:
            record += bytes([len(string)]) + string
    return record


def announced(record: bytes, network: str) -> list[str]:
    """The addresses in a neighbour's TXT record; none if it is of another network or malformed."""
    entries: list[str] = []
    while record and len(record) <= MAX_TXT_BYTES:
        length = record[0]
        if len(record) <= length:
            return []
        entries.append(record[1 : length + 1].decode("ascii", "replace"))
        record = record[length + 1 :]
    if f"network={network}" not in entries:
        return []
    return [entry.removeprefix("dnsaddr=") for entry in entries if entry.startswith("dnsaddr=")][:MAX_ADDRESSES]
