"""A running devnet: the chain, its lite-server and its control socket, in the caller's Trio loop."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, NamedTuple

import trio
from nacl.signing import SigningKey

from . import adnl, control
from .blocks import WHOLE_SHARD, masterchain_id
from .chain import GLOBAL_ID, Chain
from .liteserver import LiteServer
from .store import open_store
from .vm import Vm

HEARTBEAT_S = 2.0
"""An empty block is made this often: pytoniq's client gives up following a chain that stands still for 10 s."""


MAX_CLIENTS = 256  # at once


class CannotListen(Exception):
    """A port could not be opened."""

    def __init__(self, host: str, port: int, reason: OSError) -> None:
        super().__init__(f"cannot listen on {host}:{port}: {reason.strerror}")
        self.port = port
        self.errno = reason.errno


class Devnet(NamedTuple):
    """Where a devnet listens, and its chain for whoever runs it in the same process."""

    chain: Chain
    host: str
    port: int  # of the lite-server
    public_key: bytes  # of the lite-server
    control: str  # HOST:PORT

    def global_config(self) -> dict[str, Any]:
        """What TON's clients take as "global config", and under `bombyx` what only a devnet has."""
        first = masterchain_id(self.chain.blocks[0])
        block = {
            "workchain": -1,
            "shard": WHOLE_SHARD,
            "seqno": first["seqno"],
            "root_hash": base64.b64encode(bytes.fromhex(str(first["root_hash"]))).decode(),
            "file_hash": base64.b64encode(bytes.fromhex(str(first["file_hash"]))).decode(),
        }
        key = {"@type": "pub.ed25519", "key": base64.b64encode(self.public_key).decode()}
        signed_ip = int.from_bytes(IPv4Address(self.host).packed, "big", signed=True)  # the format has it as an i32
        return {
            "@type": "config.global",
            "liteservers": [{"ip": signed_ip, "port": self.port, "id": key}],
            "validator": {"@type": "validator.config.global", "zero_state": block, "init_block": block},
            "bombyx": {"name": "devnet", "global_id": GLOBAL_ID, "control": self.control},
        }


@asynccontextmanager
async def open_devnet(
    host: str = "127.0.0.1", port: int = 0, control_port: int = 0, *, state: Path | None = None
) -> AsyncIterator[Devnet]:
    """Serve a new chain, or the one in the file `state`, while the context lasts. Port 0 takes a free one.

    A chain in a file keeps its lite-server's key, so that a config that was written for it stays good. Raises
    `CannotListen`, and `StateUnusable` at any time.
    """
    with open_store(state) if state else nullcontext() as store:
        chain = Chain(Vm.from_package(), store=store)
        key = SigningKey(store.server_seed) if store else SigningKey.generate()
        async with _served(chain, key, host, port, control_port) as devnet:
            yield devnet


@asynccontextmanager
async def _served(chain: Chain, key: SigningKey, host: str, port: int, control_port: int) -> AsyncIterator[Devnet]:
    queries = LiteServer(chain)
    lite_server = await _listen(host, port)
    control_server = await _listen(host, control_port)

    clients = trio.Semaphore(MAX_CLIENTS)

    async def serve_lite(stream: trio.SocketStream) -> None:
        await _admit(stream, clients, partial(adnl.serve, stream, key, queries.answer))

    async def serve_control(stream: trio.SocketStream) -> None:
        await _admit(stream, clients, partial(control.serve, stream, chain))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve_lite, [lite_server])
        nursery.start_soon(trio.serve_listeners, serve_control, [control_server])
        nursery.start_soon(_heartbeat, chain)
        control_at = f"{host}:{_port(control_server)}"
        yield Devnet(chain, host, _port(lite_server), bytes(key.verify_key), control_at)
        nursery.cancel_scope.cancel()


async def _admit(stream: trio.SocketStream, clients: trio.Semaphore, serve: Callable[[], Awaitable[None]]) -> None:
    """Serve a client if there is room for one more, else hang up: those who came first are served on."""
    try:
        clients.acquire_nowait()
    except trio.WouldBlock:
        await stream.aclose()
        return
    try:
        await serve()
    finally:
        clients.release()


async def _listen(host: str, port: int) -> trio.SocketListener:
    try:
        return (await trio.open_tcp_listeners(port, host=host))[0]
    except OSError as error:
        raise CannotListen(host, port, error) from error


def _port(listener: trio.SocketListener) -> int:
    return int(listener.socket.getsockname()[1])


async def _heartbeat(chain: Chain) -> None:
    while True:
        await trio.sleep(HEARTBEAT_S)
        chain.tick()
