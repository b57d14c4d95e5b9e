"""Hypercorn on Trio: an application at an address, until cancelled."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from starlette.types import ASGIApp

from inference.nursery import open_background
from p2p.errors import LocalError

BACKLOG = 1024
# A caller that does not read for so long is gone: Hypercorn waits for what it sends, whatever happens.
UNREAD_MS = 30_000
# Clients keep connections for minutes, and one that we close under a request is an error to them.
KEEP_ALIVE_S = 300.0


@asynccontextmanager
async def open_server(app: ASGIApp, address: str) -> AsyncIterator[str]:
    """Serve at `address` (HOST:PORT; port 0 for any that is free) and yield the URL. Raises `LocalError`."""
    listener = _listen(address)
    host, port = listener.getsockname()[:2]
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.errorlog = logging.getLogger("p2p.gateway")
    config.backlog = BACKLOG
    config.keep_alive_timeout = KEEP_ALIVE_S
    config.include_server_header = False
    config.graceful_timeout = 0  # who is still answered is cancelled, and that is a good end: what came is paid
    async with open_background() as background:
        await background.start(partial(_serve, app, config))
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}"


async def _serve(app: ASGIApp, config: Config, *, task_status: trio.TaskStatus[list[str]]) -> None:
    asgi = cast(Any, app)  # Hypercorn and Starlette spell the same interface in two ways
    await serve(asgi, config, shutdown_trigger=trio.sleep_forever, task_status=task_status)


def split_address(address: str) -> tuple[str, int]:
    """HOST:PORT, an IPv6 host in brackets. Raises `LocalError`."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise LocalError(f"the setting gateway.listen is wrong: {address!r} is not HOST:PORT, such as 127.0.0.1:8642")
    return host.strip("[]"), int(port)


def _listen(address: str) -> socket.socket:
    host, port = split_address(address)
    try:
        listener = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=BACKLOG
        )
    except OSError as error:
        hint = "is another gateway running? Name another port with --listen"
        raise LocalError(f"cannot listen at {address}: {error.strerror}; {hint}") from None
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_MS)
    return listener
