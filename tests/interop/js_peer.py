"""A js-libp2p peer in a process of its own, at our command: `peer.mjs`, seen from Python."""

from __future__ import annotations

import hashlib
import itertools
import json
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from javascript import NODE, needs_packages

from chain.keys import Ed25519Signer
from p2p.keys import peer_id_of
from p2p.swarm_key import encode

HERE = Path(__file__).parent
LISTEN = ("/ip4/127.0.0.1/tcp/0",)
GLOBAL_ID = -239
PATIENCE_S = 60.0  # for what a busy machine does not do at once

needs_js = needs_packages(HERE)


def signer(*words: str) -> Ed25519Signer:
    return Ed25519Signer(hashlib.sha256("/".join(words).encode()).digest())


class JsPeer:
    """It does what `do` says. What it says unasked is kept until it is waited for."""

    def __init__(self, name: str, process: trio.Process) -> None:
        self.peer = peer_id_of(signer(name).public_key)
        self.payer_key = signer(name, "payer").public_key
        self.addresses: Sequence[str] = ()
        self._process = process
        self._ids = itertools.count()
        self._said: list[dict[str, Any]] = []
        self._news = trio.Condition()

    async def do(self, order: str, **given: object) -> Any:
        """What it answers to one of its `orders`. Raises `JsError`."""
        assert self._process.stdin is not None
        number = next(self._ids)
        line = json.dumps(_plain({"id": number, "order": order, **given}))
        await self._process.stdin.send_all(line.encode() + b"\n")
        answer = await self._next(lambda said: said.get("id") == number)
        if "error" in answer:
            raise JsError(answer["error"])
        return answer["result"]

    async def until(self, condition: Callable[[Any], bool], order: str, **given: object) -> Any:
        """Repeat an order until its answer is as it should be, and return that."""
        with trio.fail_after(PATIENCE_S):
            while not condition(answer := await self.do(order, **given)):  # noqa: ASYNC110  # it tells nobody
                await trio.sleep(0.05)
        return answer

    async def event(self, kind: str, **wanted: object) -> dict[str, Any]:
        """The first of what it said unasked that is of this kind and has these values."""
        return await self._next(lambda said: wanted.items() <= said.items() and said.get("event") == kind)

    async def listen(self) -> None:
        """Take down what it says, until it ends."""
        assert self._process.stdout is not None
        rest = b""
        async for data in self._process.stdout:
            *lines, rest = (rest + data).split(b"\n")
            async with self._news:
                self._said += [_revived(json.loads(line)) for line in lines]
                self._news.notify_all()

    async def _next(self, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        with trio.fail_after(PATIENCE_S):
            async with self._news:
                while not (found := next(filter(fits, self._said), None)):
                    await self._news.wait()
                self._said.remove(found)
                return found


class JsError(Exception):
    """What it threw."""


@asynccontextmanager
async def js_peer(
    name: str,
    *,
    network: str = "test",
    listen: Sequence[str] = LISTEN,
    server: bool = True,
    swarm_key: bytes | None = None,
) -> AsyncIterator[JsPeer]:
    """Up until the context is left, with the identity that `signer(name)` gives."""
    seeds = {"seed": signer(name).seed, "payerSeed": signer(name, "payer").seed}
    place = {"network": network, "globalId": GLOBAL_ID, "listen": listen, "server": server}
    settings = {**seeds, **place, "swarmKey": swarm_key and encode(swarm_key)}
    command = [str(NODE), str(HERE / "peer.mjs"), json.dumps(_plain(settings))]
    async with trio.open_nursery() as nursery:
        process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        peer = JsPeer(name, process)
        try:
            nursery.start_soon(peer.listen)
            peer.addresses = (await peer.event("ready", peer=peer.peer))["addresses"]
            yield peer
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
        nursery.cancel_scope.cancel()


def _plain(value: Any) -> Any:
    """As JSON can hold it: bytes become `0x…`."""
    if isinstance(value, bytes):
        return f"0x{value.hex()}"
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _revived(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("0x"):
        return bytes.fromhex(value[2:])
    if isinstance(value, dict):
        return {key: _revived(item) for key, item in value.items()}
    return [_revived(item) for item in value] if isinstance(value, list) else value
