"""What providers say about themselves, and what is kept of it."""

from __future__ import annotations

import msgspec
import pytest
from back_to_back import CLIENT, NETWORK, PRICES, PROVIDER
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

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
    AdvertBook,
    ChannelOffer,
    Listing,
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


def book(limit: int = 10) -> AdvertBook:
    return AdvertBook(network=NETWORK, verify=verify_by_peer, limit=limit)


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
        ({}, NOW + 300, "bad_advert"),
        ({}, NOW - CLOCK_TOLERANCE_S - 1, "bad_advert"),
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
    with pytest.raises(RemoteError):
        book().add(signed(**changes), now)


def test_an_advert_over_the_size_limit_is_refused_unread() -> None:
    with pytest.raises(RemoteError, match="size limit"):
        opened(Signed(b"\xc1" * (MAX_ADVERT_BYTES + 1), b"s" * 64))


def test_only_a_higher_seq_replaces_an_advert() -> None:
    kept = book()
    assert kept.add(signed(seq=5), NOW) == advert(seq=5)
    assert kept.add(signed(seq=5, tier="attested"), NOW) is None
    assert kept.add(signed(seq=4), NOW) is None
    assert not kept.accepts(signed(seq=5), NOW)
    assert kept.accepts(signed(seq=6), NOW)
    assert kept.known(advert().peer) == advert(seq=5), "asking keeps nothing"
    assert kept.add(signed(seq=6, models=(OTHER,)), NOW) == advert(seq=6, models=(OTHER,))
    assert [listing.model for listing in kept.listings(None, NOW)] == [OTHER]
    assert len(kept) == 1


def test_a_refused_advert_leaves_the_known_one_alone() -> None:
    kept = book()
    kept.add(signed(), NOW)
    with pytest.raises(RemoteError):
        kept.add(Signed(signed(seq=9).body, b"s" * 64), NOW)
    assert kept.known(advert().peer) == advert()


def test_listings_are_of_the_model_asked_for_and_alive() -> None:
    kept = book()
    kept.add(signed(models=(MODEL, OTHER)), NOW)
    kept.add(signed(CLIENT, models=(OTHER,), expires_at=int(NOW) + 10), NOW)
    both, mine = advert(models=(MODEL, OTHER)), advert(CLIENT, models=(OTHER,), expires_at=int(NOW) + 10)
    assert list(kept.listings(MODEL.id, NOW)) == [Listing(both, MODEL)]
    assert list(kept.listings(OTHER.id, NOW)) == [Listing(both, OTHER), Listing(mine, OTHER)]
    assert list(kept.listings(OTHER.id, NOW + 10)) == [Listing(both, OTHER)]
    assert len(list(kept.listings(None, NOW))) == 3
    assert list(kept.listings("unheard of", NOW)) == []


def test_a_peer_is_forgotten_when_dropped_or_expired() -> None:
    kept = book()
    kept.add(signed(), NOW)
    kept.add(signed(CLIENT, expires_at=int(NOW) + 10), NOW)
    kept.tick(NOW + 10)
    assert kept.known(advert(CLIENT).peer) is None
    assert kept.known(advert().peer) == advert()
    kept.drop(advert().peer)
    kept.drop(advert().peer)
    assert len(kept) == 0


def test_a_full_book_forgets_the_expired_first_and_then_the_soonest_to_expire() -> None:
    signers = [Ed25519Signer(bytes([n]) * 32) for n in range(4)]
    kept = book(limit=2)
    for signer, lifetime_s in zip(signers, (10, 200, 100, 50), strict=True):
        kept.add(signed(signer, expires_at=int(NOW) + lifetime_s), NOW)
        assert len(kept) <= 2
    assert [signer for signer in signers if kept.known(advert(signer).peer)] == [signers[1], signers[3]]
    late = NOW + 60
    kept.add(signed(signers[0]), late)
    assert [signer for signer in signers if kept.known(advert(signer).peer)] == [signers[0], signers[1]]
    kept.add(signed(signers[0], seq=2), late)
    assert len(kept) == 2, "a newer advert of a known peer needs no room"


def test_dht_keys() -> None:
    offer = advert(models=(OTHER, MODEL))
    assert provider_keys(offer) == ("model:org/model-1b", "model:org/model-7b", "family:fam", "any")
    assert lookup_key("org/model-1b") in provider_keys(offer)
    assert lookup_key(None) == "any"


SIGNERS = [Ed25519Signer(bytes([n]) * 32) for n in range(5)]


class Gossip(RuleBasedStateMachine):
    """Adverts come in any order, late or twice: the book stays bounded, and no peer's `seq` goes down."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.kept = book(limit=3)

    @rule(signer=st.sampled_from(SIGNERS), seq=st.integers(0, 5), age=st.integers(-90, 90), life=st.integers(1, 120))
    def hear(self, signer: Ed25519Signer, seq: int, age: int, life: int) -> None:
        issued = int(self.now) - age
        heard = advert(signer, seq=seq, issued_at=issued, expires_at=issued + life)
        received, peer = sign(heard, signer), heard.peer
        before = self.kept.known(peer)
        if issued > self.now + CLOCK_TOLERANCE_S or issued + life <= self.now:
            with pytest.raises(RemoteError):
                self.kept.add(received, self.now)
        elif self.kept.add(received, self.now) is None:
            assert before is not None
            assert before.seq >= seq
        else:
            assert before is None or before.seq < seq
            assert self.kept.known(peer) == heard

    @rule(seconds=st.integers(1, 60))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def clean(self) -> None:
        self.kept.tick(self.now)
        assert len(list(self.kept.listings(None, self.now))) == len(self.kept)

    @invariant()
    def bounded(self) -> None:
        assert len(self.kept) <= 3
        assert all(listing.advert.expires_at > self.now for listing in self.kept.listings(None, self.now))


Gossip.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
TestGossip = Gossip.TestCase
