"""Core: what a provider says about itself.

An advert is signed by the provider's identity, lives at most ten minutes, and is replaced only by one with a higher
`seq`. It is a claim: the client probes the provider and asks for a binding quote before it pays.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from p2p.errors import RemoteError
from p2p.protocol.price import Prices
from p2p.protocol.wire import Bytes32, Message, Name, Nat, PeerVerifier, Signed, SignedBody, Size, open_signed

PROTOCOL = "/bombyx/advert/1"
MAX_LIFETIME_S = 600
MAX_ADVERT_BYTES = 1 << 15  # room for 64 models
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
    digest: Name  # SHA-256 of the weights, hex; empty if the provider has not seen them
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
    free_tokens: Nat = 0  # of prompt and answer together that each newcomer is given, while there are any


class Pull(Message, frozen=True, kw_only=True, tag="pull"):
    """Asks a provider for its advert; the answer is one frame, `Signed`. Also the liveness probe."""


def provider_keys(advert: Advert) -> tuple[str, ...]:
    """The DHT keys under which a provider announces itself: each model, each family, and `any`."""
    models = sorted({f"model:{model.id}" for model in advert.models})
    families = sorted({f"family:{model.family}" for model in advert.models})
    return (*models, *families, "any")


def lookup_key(model: str | None) -> str:
    """The DHT key under which providers of `model` are found."""
    return f"model:{model}" if model else "any"


def open_advert(signed: Signed, *, network: str, now: float, verify: PeerVerifier) -> Advert:
    """A checked advert of the peer that it names. Raises `RemoteError`.

    Its code is `untimely` for one that is expired, or from a clock ahead of ours: whoever passed it on may be honest.
    """
    if len(signed.body) > MAX_ADVERT_BYTES:
        raise RemoteError("bad_advert", "over the size limit")
    advert = open_signed(signed, Advert, by=lambda body: body.peer, network=network, verify=verify)
    if not 0 < advert.expires_at - advert.issued_at <= MAX_LIFETIME_S:
        raise RemoteError("bad_advert", "a lifetime outside the limit")
    if advert.issued_at > now + CLOCK_TOLERANCE_S:
        raise RemoteError("untimely", "issued in the future")
    if advert.expires_at <= now:
        raise RemoteError("untimely", "expired")
    if len(advert.models) > MAX_MODELS or len(advert.addresses) > MAX_ADDRESSES:
        raise RemoteError("bad_advert", "too many models or addresses")
    if len({model.id for model in advert.models}) != len(advert.models):
        raise RemoteError("bad_advert", "the same model twice")
    return advert
