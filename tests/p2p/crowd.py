"""Several providers, and bootstrap peers, in one process: a part of a swarm. Started by `swarm`.

Its only argument is a JSON object (`Crowd`). It prints JSON lines: `ready` with the peers' ids and addresses, then
`heard` for each advert that one of them took by gossip. `publish NAME` on standard input has that provider gossip a new
advert. It ends, with goodbyes, when standard input closes; the chain is a model in memory, because nothing is bought.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import trio
from market import DEPOSIT_NANO, MODEL, NETWORK, PRICES, RICH_NANO, signer

from chain.book import Book
from chain.keeper import BookKeeper
from chain.keys import verify
from chain.memory import MemoryChain
from chain.settling import SettlePolicy
from inference.measure import Measured
from inference.nursery import open_background
from inference.scripted import SCRIPTED_MODEL, Scripted, ScriptedEngine
from p2p.discovery import Directory, family_topic
from p2p.host import Host
from p2p.joining import joined
from p2p.keys import verify_by_peer
from p2p.net.libp2p_host import open_host
from p2p.protocol.sales import PriceList
from p2p.protocol.strategy import FixedPrice
from p2p.protocol.wire import encode
from p2p.provider import Provider
from p2p.trace import Trace

LISTEN = ("/ip4/127.0.0.1/tcp/0",)


class Crowd(msgspec.Struct, frozen=True):
    """Whom to start."""

    directory: str  # for their books
    providers: tuple[str, ...] = ()
    relays: tuple[str, ...] = ()
    bootstraps: tuple[str, ...] = ()


def say(event: str, **fields: object) -> None:
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def hearing(name: str) -> Trace:
    """The provider's trace, of which only the adverts that it heard are told."""

    def trace(kind: str, /, **fields: object) -> None:
        if kind == "advert":
            say("heard", by=name, **fields)

    return trace


class Part:
    """The peers of this process."""

    def __init__(self, crowd: Crowd, stack: AsyncExitStack, background: trio.Nursery) -> None:
        self._crowd = crowd
        self._stack = stack
        self._background = background
        self._chain = MemoryChain(NETWORK, now=lambda: int(time.time()), verify=verify)
        self._providers: dict[str, tuple[Host, Provider]] = {}

    async def relay(self, name: str) -> Host:
        host = await self._host(name)
        directory = Directory(host, network=NETWORK.name, verify=verify_by_peer, clock=time.time, trace=hearing(name))
        self._background.start_soon(directory.listen, [SCRIPTED_MODEL.family])
        return host

    async def provider(self, name: str) -> Host:
        engine = ScriptedEngine(Scripted())
        book = self._stack.enter_context(Book(Path(self._crowd.directory) / name, "payee", NETWORK))
        self._chain.mint(name, RICH_NANO)
        host = await self._host(name)
        provider = Provider(
            host=host,
            engine=engine,
            measured={MODEL: Measured(50, 100)},
            ledger=self._chain.ledger(name),
            keeper=BookKeeper(book),
            identity=signer(name),
            payee_key=signer(name, "payee"),
            price_list=PriceList(FixedPrice(PRICES), 1_000_000),
            deposit_min_nano=DEPOSIT_NANO // 2,
            challenge_period_s=3600,
            settle_policy=SettlePolicy(risk_nano=1),
            clock=time.time,
            trace=hearing(name),
        )
        await self._background.start(provider.run)
        self._providers[name] = (host, provider)
        return host

    async def obey(self) -> None:
        """Until standard input closes."""
        buffer = b""
        async with trio.lowlevel.FdStream(0) as orders:
            async for data in orders:
                *lines, buffer = (buffer + data).split(b"\n")
                for line in lines:
                    await self._publish(line.decode().removeprefix("publish "))

    async def _publish(self, name: str) -> None:
        host, provider = self._providers[name]
        advert, signed = provider.advert()
        await host.publish(family_topic(SCRIPTED_MODEL.family), encode(signed))
        say("published", by=name, peer=host.peer, seq=advert.seq)

    async def _host(self, name: str) -> Host:
        opened = open_host(signer(name).seed, LISTEN, dht_server=True, network=NETWORK.name)
        host = await self._stack.enter_async_context(opened)
        await self._stack.enter_async_context(joined(host, self._crowd.bootstraps))
        return host


async def main() -> None:
    crowd = msgspec.json.decode(sys.argv[1], type=Crowd)
    async with AsyncExitStack() as stack, open_background() as background:
        part = Part(crowd, stack, background)
        hosts = {name: await part.relay(name) for name in crowd.relays}
        hosts |= {name: await part.provider(name) for name in crowd.providers}
        say("ready", peers={name: [host.peer, *host.addresses()] for name, host in hosts.items()})
        await part.obey()
        background.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
