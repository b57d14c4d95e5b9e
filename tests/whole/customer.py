"""An honest customer who buys one short answer after the other, and newcomers who drop in: `python -m customer ask …`

Prints a line of JSON for each: what it was, when it began, how long it took to the first piece of the answer or to the
advert, and why it failed if it did.
"""

from __future__ import annotations

import json
import math
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from inference.engine import Message
from p2p import node, wiring
from p2p.console import Session
from p2p.discovery import Directory
from p2p.errors import Error
from p2p.keys import verify_by_peer
from p2p.net.libp2p_host import open_host
from p2p.peer import LightPeer

PAUSE_S = 0.1
PATIENCE_S = 30.0


async def _tell(what: str, do: Callable[[], Awaitable[float]]) -> None:
    """Do it and say so. It returns when there was something to show for it."""
    at, began_at, shown_at, why = time.time(), time.monotonic(), math.inf, ""
    try:
        with trio.fail_after(PATIENCE_S):
            shown_at = await do()
    except (Error, trio.TooSlowError) as error:
        why = f"{type(error).__name__}: {error}"
    record = {"what": what, "at": at, "first_s": None if why else shown_at - began_at, "why": why}
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


async def ask_for_ever(session: Session) -> None:
    """In place of the command `ask`: buys from whoever sells, and has newcomers look at the same provider."""
    network = session.network()
    async with wiring.open_client(session, network) as (mine, peer):
        await wiring.fund(mine.network, mine.ledger.wallet.address)
        (provider,) = await peer.find()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(_again_and_again, "answer", partial(_buy, peer))
            drop_in = partial(_drop_in, network.mark.name, provider.advert.addresses[0])
            nursery.start_soon(_again_and_again, "newcomer", drop_in)


async def _again_and_again(what: str, do: Callable[[], Awaitable[float]]) -> None:
    while True:
        await _tell(what, do)
        await trio.sleep(PAUSE_S)


async def _buy(peer: LightPeer) -> float:
    """From looking around to the receipt; returns when the first piece was there."""
    first_at = math.inf
    async with peer.chat([Message("user", "why is silk strong")], model="bombyx/scripted", max_tokens=5) as answer:
        async for _ in answer:
            first_at = min(first_at, time.monotonic())
    assert answer.parts[-1].receipt is not None
    return first_at


async def _drop_in(network: str, address: str) -> float:
    """A peer that nobody knows connects, and pulls the provider's advert."""
    async with open_host(secrets.token_bytes(32), (), dht_server=False, network=network) as host:
        provider = await host.connect(address)
        await Directory(host, network=network, verify=verify_by_peer, clock=time.time).probe(provider)
        return time.monotonic()


if __name__ == "__main__":
    node.COMMANDS["ask"] = ask_for_ever
    node.main()
