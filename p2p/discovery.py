"""Finding each other: providers announce themselves, clients find them and look whether they are there.

Cold: the DHT names peers for a model, a family or anything, and the advert is then pulled from the provider itself,
which is also the probe of whether it lives. Warm: adverts come by gossip, one topic a family, checked before they are
passed on. Nothing is announced unless `Announcer` runs.
"""

from __future__ import annotations

import math
import random
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import trio

from p2p.errors import Error, RemoteError, Unavailable
from p2p.host import Host, PeerAddress, Stream, Verdict
from p2p.protocol.advert import PROTOCOL, Advert, ModelOffer, Pull, lookup_key, provider_keys
from p2p.protocol.advert_book import MIN_RENEWAL_S, AdvertBook
from p2p.protocol.wire import PeerVerifier, Signed, decode, encode
from p2p.recent import Recent
from p2p.stream import MessageStream, open_messages
from p2p.trace import Trace, silent

# A provider record and an advert are renewed twice within the advert's life.
RENEW_S = 240.0
# At first we know little of the network, and it of us: what is announced then is announced again soon, and ever later.
FIRST_RENEWAL_S = 30.0
# Each wait is shorter by up to this share, so that those who began together do not go on together.
RENEWAL_SPREAD = 0.25
# At the start, for an address to be known; and between two announcements, or the second would be taken for noise.
SETTLE_S = MIN_RENEWAL_S + 1.0
PROBE_TIMEOUT_S = 5.0
WITHDRAW_TIMEOUT_S = 2.0
# Who announces something, and that a provider is there with so many free slots, is as good as new for so long. An
# application asks many times a second; a choice by what was free long ago would send all of it to the same one.
SEARCH_KEPT_S = 15.0
PROBE_KEPT_S = 1.0
MAX_FOUND = 32  # each of the two ways of finding may name so many
MAX_PROBES_AT_ONCE = 16
# While providers answer, the next is waited for so long, and all of them no longer than one could take alone.
GRACE_S = 2.0
SERVE_TIMEOUT_S = 10.0
TIDY_S = 60.0  # how often what has expired is forgotten

# What a bootstrap peer listens to. Adverts of other families travel among the providers that serve them.
KNOWN_FAMILIES = ("deepseek", "gemma", "glm", "gpt-oss", "llama", "mistral", "qwen", "smollm")


def family_topic(family: str) -> str:
    """The gossip topic of one model family, in the network that the host belongs to."""
    return f"adverts/{family}"


@dataclass(frozen=True)
class Found:
    """A provider that answered a probe just now, and what it offers of what was looked for."""

    advert: Advert
    model: ModelOffer
    rtt_ms: int

    @property
    def peer(self) -> str:
        return self.advert.peer


class Sought(NamedTuple):
    """One model, every model of a family, or else any."""

    model: str | None
    family: str = ""

    @property
    def key(self) -> str:
        """Under which its providers are in the DHT."""
        return f"family:{self.family}" if self.family else lookup_key(self.model)

    def among(self, offers: Sequence[ModelOffer]) -> Sequence[ModelOffer]:
        """What a provider has of it."""
        if self.family:
            return [offer for offer in offers if offer.family == self.family]
        return [offer for offer in offers if self.model in (None, offer.id)][:1]


class Announcer:
    """Serves our advert to whoever pulls it, and renews it in the DHT and by gossip while it runs: in time, and when
    our addresses change."""

    def __init__(
        self,
        host: Host,
        make_advert: Callable[[], tuple[Advert, Signed]],
        trace: Trace = silent,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`draw` gives numbers from 0 to 1."""
        self._host = host
        self._trace = trace
        self._make_advert = make_advert
        self._draw = draw

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Announce until cancelled; `started` once the DHT knows of us, as far as it could be reached.

        In the end the DHT is asked to forget us, so that nobody looks for one who has left.
        """
        self._host.serve(PROTOCOL, self._serve, timeout_s=SERVE_TIMEOUT_S)
        try:
            with trio.move_on_after(SETTLE_S):
                await self._host.moved(())
            announced = await self._renew(())
            task_status.started()
            wait_s = FIRST_RENEWAL_S
            while True:
                settled_at = trio.current_time() + SETTLE_S
                with trio.move_on_after(wait_s * (1 - RENEWAL_SPREAD * self._draw())):
                    await self._host.moved(announced)
                    await trio.sleep_until(settled_at)
                announced = await self._renew(announced)
                wait_s = min(2 * wait_s, RENEW_S)
        finally:
            with trio.move_on_after(WITHDRAW_TIMEOUT_S, shield=True):
                await self._withdraw()

    async def _serve(self, stream: Stream) -> None:
        messages = MessageStream[Pull](stream, Pull, self._trace)
        await messages.answer()
        _, signed = self._make_advert()
        await messages.send(signed)
        await messages.close()

    async def _renew(self, before: Sequence[str]) -> Sequence[str]:
        """Announce us everywhere, and return at which addresses."""
        advert, signed = self._make_advert()
        async with trio.open_nursery() as nursery:
            for key in provider_keys(advert):
                nursery.start_soon(self._try, partial(self._host.provide, key))
            for family in sorted({model.family for model in advert.models}):
                topic = family_topic(family)
                nursery.start_soon(self._try, partial(self._host.publish, topic, encode(signed)))
        if advert.addresses != before:
            self._trace("reachable", addresses=advert.addresses)
        return advert.addresses

    async def _withdraw(self) -> None:
        advert, _ = self._make_advert()
        async with trio.open_nursery() as nursery:
            for key in provider_keys(advert):
                nursery.start_soon(self._try, partial(self._host.withdraw, key))

    async def _try(self, announce: Callable[[], Awaitable[None]]) -> None:
        """One announcement; a network that is not there yet is tried again at the next renewal."""
        with suppress(Unavailable):
            await announce()


class Directory:
    """Finds providers and keeps what it learnt of them."""

    def __init__(
        self,
        host: Host,
        *,
        network: str,
        verify: PeerVerifier,
        clock: Callable[[], float],
        trace: Trace = silent,
    ) -> None:
        self._host = host
        self._clock = clock
        self._trace = trace
        self.book = AdvertBook(network=network, verify=verify)
        self._searches = Recent[Sequence[PeerAddress]](SEARCH_KEPT_S)
        self._probes = Recent[tuple[Advert, int]](PROBE_KEPT_S)

    async def find(self, model: str | None, *, family: str = "") -> Sequence[Found]:
        """Providers of `model` (or of anything) that are known or can be found, and that answer now, or did just now.

        Of a `family` each of its models that a provider has.

        Raises `Unavailable` if none is known and the network cannot be asked.
        """
        now, sought = self._clock(), Sought(model, family)
        searched = sought.key not in self._searches
        peers = await self._peers(sought)
        found = await self._probe_all([peer for peer in peers if not self.book.failed(peer, now)], sought)
        if not found:  # those that failed before; and if all did just now, the fault may have been ours
            self._searches.forget(sought.key)
            found = await self._probe_all(peers if searched else await self._peers(sought), sought)
        return sorted(found, key=lambda one: one.peer)

    async def _peers(self, sought: Sought) -> Sequence[str]:
        """Who is said to have it, whether they answer or not. Raises `Unavailable`."""
        known = self.book.candidates(sought.model, self._clock(), MAX_FOUND, secrets.randbelow)
        try:
            search = partial(self._host.find_providers, sought.key, MAX_FOUND)
            announced = await self._searches.get(sought.key, search)
        except Unavailable:
            if not known:
                raise
            announced = ()
        for address in announced:
            self._host.learn(address)
        peers = dict.fromkeys([*known, *(address.peer for address in announced)])
        peers.pop(self._host.peer, None)
        return list(peers)

    def fail(self, peer: str, why: str, kind: str = "probe_failed") -> None:
        """The peer is there no more, or not as it should be: others are asked first for a while."""
        self.book.fail(peer, self._clock())
        self._probes.forget(peer)
        self._searches.clear()  # others may have come
        self._trace(kind, peer=peer, why=why)

    async def probe(self, peer: str) -> tuple[Advert, int]:
        """Pull a peer's advert: what it says, and the round trip in ms. Raises `Error`."""
        async with open_messages(self._host, peer, PROTOCOL, Signed, self._trace) as messages:
            asked_at = trio.current_time()
            await messages.send(Pull())
            signed = await messages.answer(PROBE_TIMEOUT_S)
            rtt_ms = max(1, round(1000 * (trio.current_time() - asked_at)))
        return self.take(signed, peer), rtt_ms

    def take(self, signed: Signed, peer: str) -> Advert:
        """What a peer says of itself. Raises `RemoteError`."""
        advert = self.book.add(signed, self._clock(), source=peer) or self.book.known(peer)
        if advert is None or advert.peer != peer:
            raise RemoteError("bad_advert", "it speaks for another peer")
        return advert

    async def listen(self, families: Iterable[str]) -> None:
        """Take adverts by gossip for ever."""
        async with AsyncExitStack() as topics:
            for family in families:
                await topics.enter_async_context(self._host.subscribe(family_topic(family), self._hear))
            while True:
                await trio.sleep(TIDY_S)
                self.book.tick(self._clock())

    def _hear(self, payload: bytes, forwarder: str) -> Verdict:
        """Take a gossiped advert if it is signed, current, and newer than what we have."""
        try:
            advert = self.book.add(decode(payload, Signed), self._clock(), source=forwarder)
        except RemoteError as error:
            return Verdict.IGNORE if error.code == "untimely" else Verdict.REJECT
        if advert is None:
            return Verdict.IGNORE
        self._host.learn(PeerAddress(advert.peer, advert.addresses))
        self._trace("advert", peer=advert.peer, seq=advert.seq)
        return Verdict.ACCEPT

    async def _probe_all(self, peers: Sequence[str], sought: Sought) -> list[Found]:
        """Those that answer, probed in this order and several at once."""
        found: list[Found] = []
        asked_at: dict[str, float] = {}  # those that have not answered yet
        left = iter(peers)
        over_at = math.inf  # set by the first that has what is wanted

        async def probe_some() -> None:
            nonlocal over_at
            for peer in left:
                asked_at[peer] = trio.current_time()
                answered = await self._found(peer, sought)
                del asked_at[peer]
                if answered:
                    found.extend(answered)
                    now = trio.current_time()
                    over_at = min(over_at, now + PROBE_TIMEOUT_S)
                    patience.deadline = min(over_at, now + GRACE_S)

        with trio.CancelScope() as patience:
            async with trio.open_nursery() as nursery:
                for _ in range(MAX_PROBES_AT_ONCE):
                    nursery.start_soon(probe_some)
        if patience.cancelled_caught:
            for peer in [peer for peer, at in asked_at.items() if at <= patience.deadline - GRACE_S]:
                self.fail(peer, "much slower than others")
        return found

    async def _found(self, peer: str, sought: Sought) -> Sequence[Found]:
        """The peer with what it offers of that; nothing if it has none, or does not answer in time."""
        try:
            with trio.fail_after(PROBE_TIMEOUT_S):
                advert, rtt_ms = await self._probes.get(peer, partial(self.probe, peer))
        except (Error, trio.TooSlowError) as error:
            self.fail(peer, str(error) or "too slow")
            return ()
        return [Found(advert, offer, rtt_ms) for offer in sought.among(advert.models)]
