"""A port of the router's, asked for by UPnP and kept while a host runs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import trio

from p2p.protocol.addresses import Address, socket_address

LEASE_S = 3600  # so that a router forgets one who went without a word
RENEW_S = LEASE_S / 3
RETRY_S = 600.0
DISCOVERY_MS = 2000
CALL_TIMEOUT_S = 20.0
_WHAT = "bombyx"

_log = logging.getLogger(__name__)


async def keep_mapped(port: int, told: Callable[[Address | None], None], router: str | None = None) -> None:
    """Have the router forward a port of its own to `port`, for ever, and take that back when cancelled.

    `told` hears of the address outside, and `None` when there is none any more. `router` is the address of its
    description; without it the local network is asked by multicast.
    """
    device = None
    try:
        while True:
            try:
                device, outside = await _in_thread(partial(_map, port, router))
            except Exception as error:  # whatever a router says, and the library's ways to report it
                _log.debug("no port of the router's: %r", error)
                told(None)
                await trio.sleep(RETRY_S)
            else:
                told(outside)
                await trio.sleep(RENEW_S)
    finally:
        if device is not None:
            with trio.move_on_after(CALL_TIMEOUT_S / 4, shield=True):
                await _in_thread(partial(_unmap, device, port))


async def _in_thread(call: Callable[[], Any]) -> Any:
    """The library waits for its network."""
    with trio.fail_after(CALL_TIMEOUT_S):
        return await trio.to_thread.run_sync(call, abandon_on_cancel=True)


def _map(port: int, router: str | None) -> tuple[Any, Address]:
    from miniupnpc import UPnP  # for those who ask for it

    device = UPnP()
    device.discoverdelay = DISCOVERY_MS
    if router is None:
        device.discover()
        device.selectigd()
    else:
        device.selectigd(router)
    outside = socket_address(device.externalipaddress(), port)
    if not device.addportmapping(port, "TCP", device.lanaddr, port, _WHAT, "", LEASE_S):
        raise OSError("the router refuses")
    return device, outside


def _unmap(device: Any, port: int) -> None:
    try:
        device.deleteportmapping(port, "TCP")
    except Exception as error:  # it will forget by itself
        _log.debug("the router keeps the port: %r", error)
