"""A whole network on this machine, each part a process of its own that ends when we do.

Every child is told to end when its standard input closes, which the system does even if we are killed.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import msgspec
import trio

from inference.nursery import open_background
from p2p.errors import Unavailable
from p2p.network_file import NetworkFile, read_network

START_TIMEOUT_S = 180.0  # three engines may load at once on a small, busy machine
END_TIMEOUT_S = 5.0
MAX_LINE_BYTES = 1 << 20

Record = dict[str, Any]


@dataclass(frozen=True)
class LocalOffer:
    """One provider to start: its flags for `provide`."""

    flags: tuple[str, ...]


@dataclass(frozen=True)
class LocalNetwork:
    """A running network: how to join it, and who is in it."""

    path: Path
    file: NetworkFile
    providers: Sequence[Child]


class Child:
    """A process of ours that prints one JSON object a line: what comes before it is ready, then that it is or why it
    never will be, then what follows."""

    def __init__(self, name: str, process: trio.Process, log: Path) -> None:
        self.name = name
        self.pid = process.pid
        self.ready: Record = {}
        self._process = process
        self._log = log
        self._buffer = bytearray()

    async def wait_ready(self) -> None:
        """Raises `Unavailable` with the child's own last words if it ends first or takes too long."""
        with trio.move_on_after(START_TIMEOUT_S):
            record = await self._next()
            while record is not None and record.get("event", "ready") != "ready":  # a devnet's has no event
                record = await self._next()
            if record is None or "error" in record:
                raise Unavailable(f"{self.name} did not start: {self._last_words()}")
            self.ready = record
            return
        raise Unavailable(f"{self.name} did not start within {START_TIMEOUT_S:g} s; its log: {self._log}")

    async def follow(self, tell: Callable[[Child, Record], None]) -> None:
        """Pass on its records until it ends."""
        while (record := await self._next()) is not None:
            tell(self, record)

    async def end(self) -> None:
        """Ask it to end, then insist."""
        assert self._process.stdin is not None
        with trio.CancelScope(shield=True):
            await self._process.stdin.aclose()
            for insist in (self._process.terminate, self._process.kill):
                with trio.move_on_after(END_TIMEOUT_S):
                    await self._process.wait()
                    return
                insist()
            await self._process.wait()

    async def _next(self) -> Record | None:
        assert self._process.stdout is not None
        while (cut := self._buffer.find(b"\n")) < 0:
            data = await self._process.stdout.receive_some(1 << 16)
            if not data or len(self._buffer) > MAX_LINE_BYTES:
                return None
            self._buffer += data
        line = bytes(self._buffer[:cut])
        del self._buffer[: cut + 1]
        try:
            record: Record = msgspec.json.decode(line, type=dict[str, Any])
        except msgspec.DecodeError:
            raise Unavailable(f"{self.name} said something that is no record; its log: {self._log}") from None
        return record

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def steps(providers: int) -> int:
    """How many things are waited for until a local network is up."""
    return 2 + providers


@asynccontextmanager
async def open_local_network(
    directory: Path,
    offers: Sequence[LocalOffer],
    *,
    swarm_key: Path | None = None,
    step: Callable[[str], None],
    tell: Callable[[Child, Record], None],
) -> AsyncIterator[LocalNetwork]:
    """A devnet, a bootstrap peer and one provider for each offer, until the context is left.

    With a `swarm_key` the network is private. `step` is told what is being waited for, `steps(len(offers))` times;
    `tell` gets what the providers report. Raises `Unavailable`.
    """
    chain, network = directory / "chain.json", directory / "network.json"
    key = ("--swarm-key", str(swarm_key)) if swarm_key else ()
    async with AsyncExitStack() as stack, open_background() as background:

        async def start(name: str, *command: str) -> Child:
            child = await _spawn(directory, name, command)
            stack.push_async_callback(child.end)
            return child

        step("a local TON with a faucet")
        devnet = await start("devnet", "chain.devnet", "--config-out", str(chain))
        await devnet.wait_ready()
        step("a bootstrap peer")
        bootstrap = await start(
            "relay", "p2p.node", "relay", "--home", str(directory / "relay"), "--chain", str(chain),
            "--network-out", str(network), *key,
        )  # fmt: skip
        await bootstrap.wait_ready()
        providers = [
            await start(
                f"provider-{number}", "p2p.node", "provide", "--home", str(directory / f"provider-{number}"),
                "--network", str(network), "--faucet", *key, *offer.flags,
            )
            for number, offer in enumerate(offers, start=1)
        ]  # fmt: skip
        for number, provider in enumerate(providers, start=1):
            step(f"provider {number} of {len(providers)}, each loading its model")
            await provider.wait_ready()
            background.start_soon(provider.follow, tell)
        yield LocalNetwork(network, read_network(network), providers)


async def _spawn(directory: Path, name: str, command: Sequence[str]) -> Child:
    log = directory / f"{name}.log"
    with log.open("wb") as errors:
        process = await _open_process([sys.executable, "-m", *command, "--json", "--until-stdin-closes"], errors)
    return Child(name, process, log)


async def _open_process(command: Sequence[str], errors: IO[bytes]) -> trio.Process:
    return await trio.lowlevel.open_process(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        # Ctrl-C is for us: we end the children in order, and the client can still pay for what it got.
        start_new_session=True,
    )
