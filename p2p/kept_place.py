"""The place that a provider keeps for whoever accepts its quote: used by a session, or given back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import trio

from p2p.errors import Error, Unavailable
from p2p.host import Host
from p2p.protocol.negotiate import PROTOCOL, GiveBack, ToClient
from p2p.stream import open_messages
from p2p.trace import Trace

if TYPE_CHECKING:
    from p2p.buying import Deal

GIVE_BACK_TIMEOUT_S = 2.0  # who cancels should not wait for long, and the provider's promise ends by itself


@asynccontextmanager
async def kept_place(host: Host, deal: Deal, trace: Trace) -> AsyncIterator[trio.Event]:
    """Yields what is to be set if a session uses the place. Where it is not set in the end the provider is told that it
    may have the place back, unless it cannot be reached.
    """
    used, reachable = trio.Event(), True
    try:
        yield used
    except Unavailable:
        reachable = False
        raise
    finally:
        if deal.keeps_place and not used.is_set() and reachable:
            await give_back(host, deal.provider, deal.signed.id, trace)


async def give_back(host: Host, provider: str, quote_id: bytes, trace: Trace) -> None:
    """Say that the place for this quote is not needed, if the provider can be told soon. Cannot be cancelled."""
    with trio.move_on_after(GIVE_BACK_TIMEOUT_S, shield=True), suppress(Error):
        async with open_messages(host, provider, PROTOCOL, ToClient, trace) as messages:
            await messages.send(GiveBack(quote_id=quote_id))
