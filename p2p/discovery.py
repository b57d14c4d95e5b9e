"""Finding each other: providers announce themselves, clients find them and look whether they are there.

Cold: the DHT names peers for a model, a family or anything, and the advert is then pulled from the provider itself,
which is also the probe of whether it lives. Warm: adverts come by gossip, one topic a family, checked before they are
passed on. Nothing is announced unless `Announcer` runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import trio

from p2p.errors import Error, RemoteError, Unavailable
from p2p.host import Host, PeerAddress, Stream
from p2p.protocol.advert import PROTOCOL, Advert, AdvertBook, ModelOffer, Pull, lookup_key, provider_keys
from p2p.protocol.wire import MAX_FRAME_BYTES, PeerVerifier, Signed, decode, encode
from p2p.stream import MessageStream, open_messages
from p2p.trace import Trace, silent

# A provider record and an advert are renewed twice within the advert's life.
RENEW_S = 240.0
PROBE_TIMEOUT_S = 5.0
MAX_FOUND = 32  # each of the two ways of finding may name so many
MAX_PROBES_AT_ONCE = 8
SERVE_TIMEOUT_S = 10.0


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


class Announcer:
    """Serves our advert to whoever pulls it, and renews it in the DHT and by gossip while it runs."""

    def __init__(self, host: Host, make_advert: Callable[[], tuple[Advert, Signed]]) -> None:
        self._host = host
        self._make_advert = make_advert

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Announce for ever; `started` once the DHT knows of us, as far as it could be reached."""
        self._host.serve(PROTOCOL, self._serve)
        await self._renew()
        task_status.started()
        while True:
            await trio.sleep(RENEW_S)
            await self._renew()

    async def _serve(self, stream: Stream) -> None:
        messages = MessageStream[Pull](stream, Pull)
        await messages.answer(SERVE_TIMEOUT_S)
        _, signed = self._make_advert()
        await messages.send(signed)
        await messages.close()

    async def _renew(self) -> None:
        advert, signed = self._make_advert()
        async with trio.open_nursery() as nursery:
            for key in provider_keys(advert):
                nursery.start_soon(self._try, partial(self._host.provide, key))
            for family in sorted({model.family for model in advert.models}):
                topic = family_topic(family)
                nursery.start_soon(self._try, partial(self._host.publish, topic, encode(signed)))

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

    async def find(self, model: str | None) -> Sequence[Found]:
        """Providers of `model` (or of anything) that are known or can be found, and that answer now.

        Raises `Unavailable` if none is known and the network cannot be asked.
        """
        heard = [listing.advert.peer for listing in self.book.listings(model, self._clock())]
        known = set(heard[-MAX_FOUND:])  # the last heard of
        try:
            announced = await self._host.find_providers(lookup_key(model), MAX_FOUND)
        except Unavailable:
            if not known:
                raise
            announced = ()
        for address in announced:
            self._host.learn(address)
            known.add(address.peer)
        known.discard(self._host.peer)
        found: list[Found] = []
        limiter = trio.CapacityLimiter(MAX_PROBES_AT_ONCE)
        async with trio.open_nursery() as nursery:
            for peer in sorted(known):
                nursery.start_soon(self._probe_into, found, peer, model, limiter)
        return sorted(found, key=lambda one: one.peer)

    async def probe(self, peer: str) -> tuple[Advert, int]:
        """Pull a peer's advert: what it says, and the round trip in ms. Raises `Error`."""
        async with open_messages(self._host, peer, PROTOCOL, Signed) as messages:
            asked_at = trio.current_time()
            await messages.send(Pull())
            signed = await messages.answer(PROBE_TIMEOUT_S)
            rtt_ms = max(1, round(1000 * (trio.current_time() - asked_at)))
        advert = self.book.add(signed, self._clock()) or self.book.known(peer)
        if advert is None or advert.peer != peer:
            raise RemoteError("bad_advert", "it speaks for another peer")
        return advert, rtt_ms

    async def listen(self, families: Iterable[str]) -> None:
        """Take adverts by gossip for ever."""
        async with trio.open_nursery() as nursery:
            for family in families:
                nursery.start_soon(self._listen_to, family_topic(family))

    async def _listen_to(self, topic: str) -> None:
        async with self._host.subscribe(topic, self._is_good) as payloads:
            async for payload in payloads:
                try:
                    advert = self.book.add(decode(payload, Signed), self._clock())
                except RemoteError:
                    continue  # it expired on the way between the validator and us
                if advert is not None:
                    self._host.learn(PeerAddress(advert.peer, advert.addresses))
                    self._trace("advert", peer=advert.peer, seq=advert.seq)

    def _is_good(self, payload: bytes, _forwarder: str) -> bool:
        """Whether a gossiped advert may be passed on: signed, current, and not older than what we have."""
        if len(payload) > MAX_FRAME_BYTES // 16:
            return False
        try:
            return self.book.accepts(decode(payload, Signed), self._clock())
        except RemoteError:
            return False

    async def _probe_into(
        self, found: list[Found], peer: str, model: str | None, limiter: trio.CapacityLimiter
    ) -> None:
        async with limiter:
            try:
                with trio.fail_after(PROBE_TIMEOUT_S):
                    advert, rtt_ms = await self.probe(peer)
            except (Error, trio.TooSlowError) as error:
                self.book.drop(peer)
                self._trace("probe_failed", peer=peer, why=str(error) or "too slow")
                return
        for offer in advert.models:
            if model in (None, offer.id):
                found.append(Found(advert, offer, rtt_ms))
                return
