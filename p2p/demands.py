"""Demands that are published: by gossip, one topic a family, checked before they are passed on.

A provider that has what is wanted tells the client so, by its advert on a stream of its own, so that the client can ask
it for a standing quote though it knew nothing of it. Nothing is published unless `publish` runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack, suppress
from functools import partial

import trio

from p2p.discovery import RENEW_S, SETTLE_S, Directory
from p2p.errors import Error, RemoteError, Unavailable
from p2p.host import Host, PeerAddress, Stream, Verdict
from p2p.protocol.advert import MAX_LIFETIME_S, Advert
from p2p.protocol.demand import PROTOCOL, Demand, DemandBook, Wanted
from p2p.protocol.rates import Rates
from p2p.protocol.wire import BodySigner, PeerVerifier, Signed, decode, encode, sign
from p2p.stream import MessageStream, open_messages
from p2p.trace import Trace, silent

MAX_WAITING = 16  # demands that a provider has still to answer
ANSWER_TIMEOUT_S = 10.0
# A demand names addresses that providers then dial: whoever signs many must not have them all dial at somebody else.
ANSWERS_PER_S, ANSWERS_BURST = 0.2, 10.0
PER_CLIENT_S, PER_CLIENT_BURST = 1 / 120, 2.0


def demand_topic(family: str) -> str:
    """The gossip topic of the demands for one family's models."""
    return f"demands/{family}"


class Demands:
    """Hears the demands of others, and passes on what is one. A provider also answers those that `suit` it."""

    def __init__(
        self,
        host: Host,
        *,
        network: str,
        verify: PeerVerifier,
        clock: Callable[[], float],
        suit: Callable[[Wanted], bool] = lambda _: False,
        trace: Trace = silent,
    ) -> None:
        self._host = host
        self._clock = clock
        self._suit = suit
        self._trace = trace
        self._book = DemandBook(network=network, verify=verify)
        self._in_all = Rates(per_s=ANSWERS_PER_S, burst=ANSWERS_BURST)
        self._per_client = Rates(per_s=PER_CLIENT_S, burst=PER_CLIENT_BURST)
        self._send, self._suitable = trio.open_memory_channel[Demand](MAX_WAITING)

    async def listen(self, families: Iterable[str]) -> None:
        """Take and pass on demands for ever."""
        async with AsyncExitStack() as topics:
            for family in families:
                hear = partial(self._hear, family)
                await topics.enter_async_context(self._host.subscribe(demand_topic(family), hear))
            await trio.sleep_forever()

    async def answer(self, make_advert: Callable[[], tuple[Advert, Signed]]) -> None:
        """Tell the clients whose demands suit us that we are there, for ever."""
        async for demand in self._suitable:
            self._host.learn(PeerAddress(demand.client, demand.addresses))
            _, advert = make_advert()
            with suppress(Error), trio.move_on_after(ANSWER_TIMEOUT_S):
                async with open_messages(self._host, demand.client, PROTOCOL, Signed, self._trace) as messages:
                    await messages.send(advert)
                self._trace("offered", peer=demand.client, per_day=demand.wanted.per_day)

    def _hear(self, family: str, payload: bytes, forwarder: str) -> Verdict:
        try:
            demand = self._book.add(decode(payload, Signed), self._clock(), source=forwarder)
        except RemoteError as error:
            return Verdict.IGNORE if error.code == "untimely" else Verdict.REJECT
        if demand is None:
            return Verdict.IGNORE
        if demand.family != family:
            return Verdict.REJECT
        if demand.addresses and self._suit(demand.wanted):
            self._take_up(demand)
        return Verdict.ACCEPT

    def _take_up(self, demand: Demand) -> None:
        now = self._clock()
        if self._per_client.take(demand.client, now) and self._in_all.take("", now):
            with suppress(trio.WouldBlock):
                self._send.send_nowait(demand)


async def publish(
    host: Host,
    wanted: Wanted,
    family: str,
    *,
    network: str,
    signer: BodySigner,
    directory: Directory,
    clock: Callable[[], float],
    trace: Trace = silent,
) -> None:
    """Say to everybody what is wanted, again in time, until cancelled; `directory` gets to know who has it."""

    async def hear(stream: Stream) -> None:
        messages = MessageStream[Signed](stream, Signed, trace)
        advert = directory.take(await messages.answer(), messages.peer)
        trace("interested", peer=advert.peer)

    host.serve(PROTOCOL, hear, timeout_s=ANSWER_TIMEOUT_S)
    with trio.move_on_after(SETTLE_S):
        await host.moved(())  # until there is an address to be told
    seq, wait_s = 0, SETTLE_S
    while True:
        now = clock()
        seq = max(seq + 1, int(now * 1000))  # it rises even if the clock is set back
        demand = Demand(
            network=network,
            client=host.peer,
            addresses=tuple(host.addresses()),
            family=family,
            seq=seq,
            issued_at=int(now),
            expires_at=int(now) + MAX_LIFETIME_S,
            wanted=wanted,
        )
        with suppress(Unavailable):
            await host.publish(demand_topic(family), encode(sign(demand, signer)))
        await trio.sleep(wait_s)
        wait_s = min(2 * wait_s, RENEW_S)
