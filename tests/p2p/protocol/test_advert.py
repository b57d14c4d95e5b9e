"""What providers say about themselves."""

from __future__ import annotations

import msgspec
import pytest
from back_to_back import CLIENT, NETWORK, PRICES, PROVIDER

from chain.keys import Ed25519Signer
from p2p.errors import RemoteError
from p2p.keys import peer_id_of, verify_by_peer
from p2p.protocol.advert import (
    CLOCK_TOLERANCE_S,
    MAX_ADDRESSES,
    MAX_ADVERT_BYTES,
    MAX_LIFETIME_S,
    MAX_MODELS,
    Advert,
    ChannelOffer,
    ModelOffer,
    lookup_key,
    open_advert,
    provider_keys,
)
from p2p.protocol.price import Prices
from p2p.protocol.wire import Signed, sign

NOW = 1000.0
MODEL = ModelOffer(
    id="org/model-1b",
    family="fam",
    quantisation="q4",
    digest="d" * 64,
    context=4096,
    prices=PRICES,
    ttft_ms=100,
    tokens_per_s=50,
    slots_free=1,
    slots_total=2,
)
OTHER = msgspec.structs.replace(MODEL, id="org/model-7b")


def advert(signer: Ed25519Signer = PROVIDER, /, **changes: object) -> Advert:
    plain = Advert(
        network=NETWORK,
        peer=peer_id_of(signer.public_key),
        addresses=("/ip4/127.0.0.1/tcp/4001",),
        seq=1,
        issued_at=int(NOW),
        expires_at=int(NOW) + 300,
        models=(MODEL,),
        channel=ChannelOffer(payee="0:" + "0" * 64, payee_key=b"k" * 32, deposit_min_nano=1, challenge_period_s=3600),
    )
    return msgspec.structs.replace(plain, **changes)


def signed(signer: Ed25519Signer = PROVIDER, /, **changes: object) -> Signed:
    return sign(advert(signer, **changes), signer)


def opened(received: Signed, now: float = NOW) -> Advert:
    return open_advert(received, network=NETWORK, now=now, verify=verify_by_peer)


def models(count: int) -> tuple[ModelOffer, ...]:
    return tuple(msgspec.structs.replace(MODEL, id=f"m{n}") for n in range(count))


@pytest.mark.parametrize(
    ("changes", "now"),
    [
        ({}, NOW),
        ({}, NOW + 299.9),
        ({}, NOW - CLOCK_TOLERANCE_S),
        ({"expires_at": int(NOW) + MAX_LIFETIME_S}, NOW),
        ({"models": models(MAX_MODELS)}, NOW),
        ({"models": ()}, NOW),
        ({"addresses": ("/ip4/127.0.0.1/tcp/1",) * MAX_ADDRESSES}, NOW),
        ({"tier": "attested"}, NOW),
    ],
)
def test_a_sound_advert_opens(changes: dict[str, object], now: float) -> None:
    assert opened(signed(**changes), now) == advert(**changes)


@pytest.mark.parametrize(
    ("changes", "now", "code"),
    [
        ({}, NOW + 300, "untimely"),
        ({}, NOW - CLOCK_TOLERANCE_S - 1, "untimely"),
        ({"expires_at": int(NOW)}, NOW, "bad_advert"),
        ({"expires_at": int(NOW) + MAX_LIFETIME_S + 1}, NOW, "bad_advert"),
        ({"models": models(MAX_MODELS + 1)}, NOW, "bad_advert"),
        ({"models": (MODEL, MODEL)}, NOW, "bad_advert"),
        ({"addresses": ("/ip4/127.0.0.1/tcp/1",) * (MAX_ADDRESSES + 1)}, NOW, "bad_advert"),
        ({"models": (msgspec.structs.replace(MODEL, features=("f" * 200,) * 200),)}, NOW, "bad_advert"),
        ({"models": (msgspec.structs.replace(MODEL, ttft_ms=-1),)}, NOW, "malformed"),
        ({"models": (msgspec.structs.replace(MODEL, prices=Prices(0, 0, 1 << 53)),)}, NOW, "malformed"),
        ({"seq": 1 << 63}, NOW, "malformed"),
        ({"issued_at": -1, "expires_at": 1}, NOW, "malformed"),
        ({"addresses": ("/" * 257,)}, NOW, "malformed"),
        ({"tier": "best"}, NOW, "malformed"),
        ({"network": "mainnet"}, NOW, "wrong_network"),
        ({"peer": peer_id_of(CLIENT.public_key)}, NOW, "bad_signature"),
        ({"peer": "12D3KooWjunk"}, NOW, "bad_signature"),
    ],
)
def test_an_unsound_advert_is_refused(changes: dict[str, object], now: float, code: str) -> None:
    with pytest.raises(RemoteError) as caught:
        opened(signed(**changes), now)
    assert caught.value.code == code


def test_an_advert_over_the_size_limit_is_refused_unread() -> None:
    with pytest.raises(RemoteError, match="size limit"):
        opened(Signed(b"\xc1" * (MAX_ADVERT_BYTES + 1), b"s" * 64))


def test_dht_keys() -> None:
    offer = advert(models=(OTHER, MODEL))
    assert provider_keys(offer) == ("model:org/model-1b", "model:org/model-7b", "family:fam", "any")
    assert lookup_key("org/model-1b") in provider_keys(offer)
    assert lookup_key(None) == "any"
