"""Core: the adverts of others, in bounded room that is shared out among those through whom they came.

Identities cost nothing, so a stranger can sign adverts without end, and honest peers will pass them on. What cannot be
kept out is kept in its place: when room is short, it is the heaviest source that gives way. A provider that answered us
itself is its own source, so that no flood displaces those who are there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from p2p.protocol.advert import MAX_LIFETIME_S, Advert, ModelOffer, open_advert
from p2p.protocol.wire import PeerVerifier, Signed, decode

# Some 12,000 adverts of one model each.
MAX_BOOK_BYTES = 8 << 20
MAX_FAILURES = 10_000
# Who did not answer is not asked again for so long, unless nobody else is there or a newer advert came.
FAILURE_S = 60
# Adverts of one provider that others pass on sooner than that are no news: nobody needs them, and all would carry them.
MIN_RENEWAL_S = 5
_SWEEP_S = 10.0


class Listing(NamedTuple):
    """One provider's offer of one model."""

    advert: Advert
    model: ModelOffer


class _Kept(NamedTuple):
    """An advert as its provider encoded it: decoded it would take eight times as much memory."""

    body: bytes
    seq: int
    expires_at: int
    models: tuple[str, ...]
    source: str  # the peer that handed it to us; the provider itself once it answered a probe
    heard_at: float

    @property
    def advert(self) -> Advert:
        return decode(self.body, Advert)

    def offers(self, model: str | None, now: float) -> bool:
        return self.expires_at > now and (model in self.models if model is not None else bool(self.models))


class _Failure(NamedTuple):
    seq: int  # of the advert that led there; -1 if there was none
    at: float


class AdvertBook:
    """The newest advert of each peer."""

    def __init__(self, *, network: str, verify: PeerVerifier, limit_bytes: int = MAX_BOOK_BYTES) -> None:
        self._network = network
        self._verify = verify
        self._limit_bytes = limit_bytes
        self._kept: dict[str, _Kept] = {}
        self._bytes_of: defaultdict[str, int] = defaultdict(int)  # each source's
        self._bytes = 0
        self._failures: dict[str, _Failure] = {}  # the oldest first
        self._swept_at = 0.0

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, signed: Signed, now: float, *, source: str) -> Advert | None:
        """Keep an advert that `source` handed to us, if it is news. Raises `RemoteError`.

        Returns `None` for one that is not newer than what we know of its provider, dead or alive, and for one that
        others pass on too soon after the last. Only what comes from the provider itself brings back one that failed.
        """
        advert = open_advert(signed, network=self._network, now=now, verify=self._verify)
        if not self._is_news(advert, source, now):
            self._prove(advert, source)
            return None
        known = self._forget(advert.peer)
        if known is not None and known.source == advert.peer:
            source = advert.peer
        self._failures.pop(advert.peer, None)
        models = tuple(model.id for model in advert.models)
        self._keep(advert.peer, _Kept(signed.body, advert.seq, advert.expires_at, models, source, now))
        self._make_room(now)
        return advert

    def known(self, peer: str) -> Advert | None:
        """The newest advert of a peer."""
        kept = self._kept.get(peer)
        return kept.advert if kept else None

    def fail(self, peer: str, now: float) -> None:
        """The peer did not answer, or not as it should: forget it, and take no replay of what it said before."""
        known, before = self._forget(peer), self._failures.pop(peer, None)
        seq = known.seq if known else before.seq if before else -1
        self._failures[peer] = _Failure(seq, now)
        if len(self._failures) > MAX_FAILURES:
            del self._failures[next(iter(self._failures))]

    def failed(self, peer: str, now: float) -> bool:
        """Whether the peer failed so lately that others should be asked first."""
        failure = self._failures.get(peer)
        return failure is not None and now < failure.at + FAILURE_S

    def tick(self, now: float) -> None:
        """Forget what has expired."""
        self._swept_at = now
        for peer in [peer for peer, kept in self._kept.items() if kept.expires_at <= now]:
            self._forget(peer)
        for peer in [peer for peer, failure in self._failures.items() if failure.at + MAX_LIFETIME_S <= now]:
            del self._failures[peer]

    def listings(self, model: str | None, now: float) -> Iterator[Listing]:
        """Every live offer of `model`, or of any model."""
        for kept in self._kept.values():
            if kept.offers(model, now):
                advert = kept.advert
                yield from (Listing(advert, offer) for offer in advert.models if model in (None, offer.id))

    def candidates(self, model: str | None, now: float, limit: int, draw: Callable[[int], int]) -> Sequence[str]:
        """Whom to probe: up to `limit` peers that offer the model, first those that answered before.

        The others are taken from each source by turns. `draw(n)` gives a number below n, at random.
        """
        peers = [peer for peer, kept in self._kept.items() if kept.offers(model, now)]
        proven = [peer for peer in reversed(peers) if self._kept[peer].source == peer]
        rumoured: defaultdict[str, list[str]] = defaultdict(list)
        for peer in peers:
            if (source := self._kept[peer].source) != peer:
                rumoured[source].append(peer)
        return [*proven[:limit], *_by_turns(list(rumoured.values()), limit - len(proven), draw)]

    def _is_news(self, advert: Advert, source: str, now: float) -> bool:
        known, failure = self._kept.get(advert.peer), self._failures.get(advert.peer)
        if source == advert.peer:
            return (known is None or advert.seq > known.seq) and (failure is None or advert.seq >= failure.seq)
        if known is not None and (advert.seq <= known.seq or now < known.heard_at + MIN_RENEWAL_S):
            return False
        return failure is None or advert.seq > failure.seq

    def _prove(self, advert: Advert, source: str) -> None:
        """The provider itself has said again what we knew from others."""
        known = self._kept.get(advert.peer)
        if source == advert.peer and known is not None and known.seq == advert.seq:
            self._forget(advert.peer)
            self._keep(advert.peer, known._replace(source=source))

    def _keep(self, peer: str, kept: _Kept) -> None:
        self._kept[peer] = kept
        self._bytes_of[kept.source] += len(kept.body)
        self._bytes += len(kept.body)

    def _forget(self, peer: str) -> _Kept | None:
        kept = self._kept.pop(peer, None)
        if kept is not None:
            self._bytes -= len(kept.body)
            self._bytes_of[kept.source] -= len(kept.body)
            if not self._bytes_of[kept.source]:
                del self._bytes_of[kept.source]
        return kept

    def _make_room(self, now: float) -> None:
        """The heaviest source loses what it handed over first."""
        if self._bytes > self._limit_bytes and now >= self._swept_at + _SWEEP_S:  # it looks at all of them
            self.tick(now)
        while self._bytes > self._limit_bytes:
            heaviest = max(self._bytes_of, key=self._bytes_of.__getitem__)
            self._forget(next(peer for peer, kept in self._kept.items() if kept.source == heaviest))


def _by_turns(groups: list[list[str]], count: int, draw: Callable[[int], int]) -> list[str]:
    """Up to `count`, one of each group and again one of each, until there are no more."""
    chosen: list[str] = []
    while groups and len(chosen) < count:
        chosen += [group.pop(draw(len(group))) for group in groups[: count - len(chosen)]]
        groups = [group for group in groups if group]
    return chosen
