"""Core: what a provider says about itself, and the bounded collection of what others said.

An advert is signed by the provider's identity, lives at most ten minutes, and is replaced only by one with a higher
`seq`. It is a claim: the client probes the provider and asks for a binding quote before it pays.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import msgspec

from p2p.errors import RemoteError
from p2p.protocol.price import Prices
from p2p.protocol.wire import Bytes32, Message, Name, Nat, PeerVerifier, Signed, SignedBody, Size, open_signed

PROTOCOL = "/bombyx/advert/1"
MAX_LIFETIME_S = 600
# Room for 64 models; a full book stays within some hundred megabytes.
MAX_ADVERT_BYTES = 1 << 15
MAX_ADVERTS = 10_000
# A peer whose clock is this much ahead of ours is still believed.
CLOCK_TOLERANCE_S = 60
MAX_MODELS = 64
MAX_ADDRESSES = 16

Tier = Literal["open", "attested"]


class ModelOffer(msgspec.Struct, frozen=True, kw_only=True):
    """One model that a provider serves, with the speed it measured itself."""

    id: Name
    family: Name
    quantisation: Name
    digest: Name  # SHA-256 of the weights, hex
    context: Size
    prices: Prices
    ttft_ms: Nat
    tokens_per_s: Nat
    slots_free: Nat
    slots_total: Nat
    features: tuple[Name, ...] = ()


class ChannelOffer(msgspec.Struct, frozen=True, kw_only=True):
    """On what terms a provider takes payment channels."""

    payee: Name
    payee_key: Bytes32
    deposit_min_nano: Nat
    challenge_period_s: Nat


class Advert(SignedBody, frozen=True, kw_only=True, tag="bombyx/advert/1"):
    """A provider's whole offer."""

    peer: Name
    addresses: tuple[Name, ...]
    seq: Nat
    issued_at: Nat
    expires_at: Nat
    models: tuple[ModelOffer, ...]
    channel: ChannelOffer
    tier: Tier = "open"


class Pull(Message, frozen=True, kw_only=True, tag="pull"):
    """Asks a provider for its advert; the answer is one frame, `Signed`. Also the liveness probe."""


class Listing(NamedTuple):
    """One provider's offer of one model."""

    advert: Advert
    model: ModelOffer


def provider_keys(advert: Advert) -> tuple[str, ...]:
    """The DHT keys under which a provider announces itself: each model, each family, and `any`."""
    models = sorted({f"model:{model.id}" for model in advert.models})
    families = sorted({f"family:{model.family}" for model in advert.models})
    return (*models, *families, "any")


def lookup_key(model: str | None) -> str:
    """The DHT key under which providers of `model` are found."""
    return f"model:{model}" if model else "any"


def open_advert(signed: Signed, *, network: str, now: float, verify: PeerVerifier) -> Advert:
    """A checked advert of the peer that it names. Raises `RemoteError`."""
    if len(signed.body) > MAX_ADVERT_BYTES:
        raise RemoteError("bad_advert", "over the size limit")
    advert = open_signed(signed, Advert, by=lambda body: body.peer, network=network, verify=verify)
    if not 0 < advert.expires_at - advert.issued_at <= MAX_LIFETIME_S:
        raise RemoteError("bad_advert", "a lifetime outside the limit")
    if advert.issued_at > now + CLOCK_TOLERANCE_S:
        raise RemoteError("bad_advert", "issued in the future")
    if advert.expires_at <= now:
        raise RemoteError("bad_advert", "expired")
    if len(advert.models) > MAX_MODELS or len(advert.addresses) > MAX_ADDRESSES:
        raise RemoteError("bad_advert", "too many models or addresses")
    if len({model.id for model in advert.models}) != len(advert.models):
        raise RemoteError("bad_advert", "the same model twice")
    return advert


class AdvertBook:
    """The newest advert of each peer, at most `limit` of them; the soonest to expire makes room."""

    def __init__(self, *, network: str, verify: PeerVerifier, limit: int = MAX_ADVERTS) -> None:
        self._network = network
        self._verify = verify
        self._limit = limit
        self._adverts: dict[str, Advert] = {}

    def __len__(self) -> int:
        return len(self._adverts)

    def add(self, signed: Signed, now: float) -> Advert | None:
        """Keep the advert if it is news: `None` for one that we have or that is older. Raises `RemoteError`."""
        advert = open_advert(signed, network=self._network, now=now, verify=self._verify)
        if not self._is_news(advert):
            return None
        if advert.peer not in self._adverts and len(self._adverts) >= self._limit:
            self._make_room(now)
        self._adverts[advert.peer] = advert
        return advert

    def accepts(self, signed: Signed, now: float) -> bool:
        """Whether `add` would keep it: what a gossip validator asks. Raises `RemoteError`."""
        return self._is_news(open_advert(signed, network=self._network, now=now, verify=self._verify))

    def known(self, peer: str) -> Advert | None:
        """The newest advert of a peer."""
        return self._adverts.get(peer)

    def drop(self, peer: str) -> None:
        """Forget a peer, for example one that failed a probe."""
        self._adverts.pop(peer, None)

    def tick(self, now: float) -> None:
        """Forget what has expired."""
        for peer in [peer for peer, advert in self._adverts.items() if advert.expires_at <= now]:
            del self._adverts[peer]

    def listings(self, model: str | None, now: float) -> Iterator[Listing]:
        """Every live offer of `model`, or of any model."""
        for advert in self._adverts.values():
            if advert.expires_at > now:
                yield from (Listing(advert, offer) for offer in advert.models if model in (None, offer.id))

    def _is_news(self, advert: Advert) -> bool:
        known = self.known(advert.peer)
        return known is None or advert.seq > known.seq

    def _make_room(self, now: float) -> None:
        self.tick(now)
        if len(self._adverts) >= self._limit:
            self.drop(min(self._adverts, key=lambda peer: self._adverts[peer].expires_at))
