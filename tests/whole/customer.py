"""An honest customer who buys one short answer after the other, and newcomers who drop in: `python -m customer ask …`

Prints a line of JSON for each: what it was, when it began, how long it took, and why it failed if it did.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Awaitable, Callable

import trio

from inference.engine import Message
from p2p import node
from p2p.console import Session
from p2p.errors import Error
from p2p.keys import verify_by_peer
from p2p.peer import LightPeer

PAUSE_S = 0.1
PATIENCE_S = 30.0


async def _tell(what: str, do: Callable[[], Awaitable[None]]) -> None:
    """Time it."""
    at, began_at, why = time.time(), time.monotonic(), ""
    try:
        with trio.fail_after(PATIENCE_S):
            await do()
    except (Error, trio.TooSlowError) as error:
        why = f"{type(error).__name__}: {error}"
    sys.stdout.write(json.dumps({"what": what, "at": at, "took_s": time.monotonic() - began_at, "why": why}) + "\n")
    sys.stdout.flush()


async def ask_for_ever(session: Session) -> None:
    """In place of the command `ask`: buys from whoever sells, and has newcomers look at the same provider."""
    network = session.network()
    async with node.open_client(session, network) as (mine, peer):
        await node.fund(mine.network, mine.ledger.wallet.address)
        (provider,) = await peer.find()

        async def buy() -> None:
            await _buy(peer)

        async def drop_in() -> None:
            await _drop_in(network.mark.name, tuple(provider.advert.addresses))

        async with trio.open_nursery() as nursery:
            for what, do in (("answer", buy), ("newcomer", drop_in)):
                nursery.start_soon(_again_and_again, what, do)


async def _again_and_again(what: str, do: Callable[[], Awaitable[None]]) -> None:
    while True:
        await _tell(what, do)
        await trio.sleep(PAUSE_S)


async def _buy(peer: LightPeer) -> None:
    """From looking around to the receipt."""
    async with peer.chat([Message("user", "why is silk strong")], model="bombyx/scripted", max_tokens=5) as answer:
        async for _ in answer:
            pass
    assert answer.receipt is not None


async def _drop_in(network: str, addresses: tuple[str, ...]) -> None:
    """A peer that nobody knows connects, and pulls the provider's advert."""
    from p2p.discovery import Directory
    from p2p.net.libp2p_host import open_host

    async with open_host(secrets.token_bytes(32), (), dht_server=False, network=network) as host:
        provider = await host.connect(addresses[0])
        await Directory(host, network=network, verify=verify_by_peer, clock=time.time).probe(provider)


if __name__ == "__main__":
    node.COMMANDS["ask"] = ask_for_ever
    node.main()
