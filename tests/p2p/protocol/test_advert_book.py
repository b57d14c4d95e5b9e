"""What is kept of what providers say, and who makes room."""

from __future__ import annotations

import random

import msgspec
import pytest
from back_to_back import CLIENT, NETWORK
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from test_advert import MODEL, NOW, OTHER, advert, signed

from chain.keys import Ed25519Signer
from p2p.errors import RemoteError
from p2p.keys import verify_by_peer
from p2p.protocol import advert_book
from p2p.protocol.advert import CLOCK_TOLERANCE_S, MAX_LIFETIME_S, Advert
from p2p.protocol.advert_book import FAILURE_S, MAX_BOOK_BYTES, MIN_RENEWAL_S, AdvertBook, Listing

SIZE = len(signed().body)
LATER = NOW + MIN_RENEWAL_S


def book(adverts: int = 100) -> AdvertBook:
    """With room for so many adverts of the usual size."""
    return AdvertBook(network=NETWORK, verify=verify_by_peer, limit_bytes=adverts * SIZE)


def signer(number: int) -> Ed25519Signer:
    return Ed25519Signer(number.to_bytes(32, "big"))


def peer(number: int) -> str:
    return advert(signer(number)).peer


def hear(kept: AdvertBook, number: int, source: str, now: float = NOW, **changes: object) -> Advert | None:
    return kept.add(signed(signer(number), **changes), now, source=source)


def known(kept: AdvertBook, numbers: range) -> list[int]:
    return [number for number in numbers if kept.known(peer(number))]


def test_only_a_higher_seq_replaces_an_advert() -> None:
    kept = book()
    assert kept.add(signed(seq=5), NOW, source="a") == advert(seq=5)
    assert kept.add(signed(seq=5, tier="attested"), LATER, source="b") is None
    assert kept.add(signed(seq=4), LATER, source="b") is None
    assert kept.known(advert().peer) == advert(seq=5)
    assert kept.add(signed(seq=6, models=(OTHER,)), LATER, source="b") == advert(seq=6, models=(OTHER,))
    assert [listing.model for listing in kept.listings(None, NOW)] == [OTHER]
    assert len(kept) == 1


def test_a_provider_may_not_be_in_the_news_all_the_time() -> None:
    kept = book()
    assert hear(kept, 1, "a", NOW, seq=1)
    assert hear(kept, 1, "b", LATER - 1, seq=2) is None
    assert hear(kept, 1, "b", LATER, seq=2)
    assert hear(kept, 1, peer(1), LATER, seq=3), "but whoever asks it gets the latest"


@pytest.mark.parametrize(
    "changes",
    [
        {"issued_at": int(NOW) + CLOCK_TOLERANCE_S + 1, "expires_at": int(NOW) + 200},
        {"expires_at": int(NOW)},
        {"network": "mainnet"},
        {"peer": advert(CLIENT).peer},
    ],
)
def test_an_unsound_advert_is_refused_and_leaves_the_known_one_alone(changes: dict[str, object]) -> None:
    kept = book()
    kept.add(signed(), NOW, source="a")
    with pytest.raises(RemoteError):
        kept.add(signed(seq=9, **changes), NOW, source="a")
    assert kept.known(advert().peer) == advert()


def test_listings_are_of_the_model_asked_for_and_alive() -> None:
    kept = book()
    kept.add(signed(models=(MODEL, OTHER)), NOW, source="a")
    kept.add(signed(CLIENT, models=(OTHER,), expires_at=int(NOW) + 10), NOW, source="a")
    both, mine = advert(models=(MODEL, OTHER)), advert(CLIENT, models=(OTHER,), expires_at=int(NOW) + 10)
    assert list(kept.listings(MODEL.id, NOW)) == [Listing(both, MODEL)]
    assert list(kept.listings(OTHER.id, NOW)) == [Listing(both, OTHER), Listing(mine, OTHER)]
    assert list(kept.listings(OTHER.id, NOW + 10)) == [Listing(both, OTHER)]
    assert len(list(kept.listings(None, NOW))) == 3
    assert list(kept.listings("unheard of", NOW)) == []


def test_what_has_expired_is_forgotten() -> None:
    kept = book()
    kept.add(signed(), NOW, source="a")
    kept.add(signed(CLIENT, expires_at=int(NOW) + 10), NOW, source="a")
    kept.tick(NOW + 10)
    assert kept.known(advert(CLIENT).peer) is None
    assert kept.known(advert().peer) is not None
    assert len(kept) == 1


def test_no_replay_brings_back_who_failed_but_life_does() -> None:
    kept = book()
    hear(kept, 1, "a", seq=5)
    kept.fail(peer(1), NOW)
    assert kept.known(peer(1)) is None
    for seq in (4, 5):
        assert hear(kept, 1, "a", LATER, seq=seq) is None
    assert hear(kept, 1, "a", LATER, seq=6)
    kept.fail(peer(1), LATER)
    kept.fail(peer(1), LATER + 1)
    assert hear(kept, 1, "a", LATER + 2, seq=6) is None
    assert hear(kept, 1, peer(1), LATER + 2, seq=5) is None, "an older one it would not say itself"
    assert hear(kept, 1, peer(1), LATER + 2, seq=6), "it answers again"
    assert not kept.failed(peer(1), LATER + 2)


def test_failures_are_remembered_for_a_while_and_not_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = book()
    kept.fail("unheard of", NOW)
    assert kept.failed("unheard of", NOW + FAILURE_S - 1)
    assert not kept.failed("unheard of", NOW + FAILURE_S)
    assert not kept.failed("another", NOW)
    hear(kept, 1, "a", seq=5)
    kept.fail(peer(1), NOW)
    kept.tick(NOW + MAX_LIFETIME_S)
    assert hear(kept, 1, "a", NOW + 200, seq=5), "nothing that old could be replayed"
    monkeypatch.setattr(advert_book, "MAX_FAILURES", 2)
    for name in ("x", "y", "z"):
        kept.fail(name, NOW)
    assert [kept.failed(name, NOW) for name in ("x", "y", "z")] == [False, True, True]


def test_the_heaviest_source_makes_room_and_loses_its_oldest_first() -> None:
    kept = book(adverts=6)
    for number in range(1, 6):
        hear(kept, number, "flood")
    hear(kept, 6, "honest")
    for number in range(7, 11):
        hear(kept, number, "flood")
    assert known(kept, range(1, 11)) == [5, 6, 7, 8, 9, 10]
    for number in range(11, 14):
        hear(kept, number, "honest")
    assert known(kept, range(1, 14)) == [8, 9, 10, 11, 12, 13], "in the end each has half"


def test_a_flood_displaces_nobody_who_answered_us() -> None:
    kept = book(adverts=4)
    hear(kept, 1, peer(1))
    hear(kept, 2, "a")
    hear(kept, 2, peer(2))  # the same word again, from its own mouth
    for number in range(3, 20):
        hear(kept, number, f"source {number % 2}")
    assert known(kept, range(1, 20)) == [1, 2, 18, 19]
    hear(kept, 1, "a", LATER, seq=2)  # renewed through others, it still is one that answered
    for number in range(20, 40):
        hear(kept, number, f"source {number % 2}", LATER)
    assert known(kept, range(1, 20)) == [1, 2]


def test_the_expired_make_room_first() -> None:
    kept = book(adverts=2)
    hear(kept, 1, "a", expires_at=int(NOW) + 10)
    hear(kept, 2, "b")
    hear(kept, 3, "b", NOW + 20)
    assert known(kept, range(1, 4)) == [2, 3]


def test_a_full_book_is_bounded_in_bytes() -> None:
    kept = AdvertBook(network=NETWORK, verify=verify_by_peer, limit_bytes=64 * SIZE)
    dice = random.Random(1)
    for number in range(1, 200):
        features = ("f" * dice.randrange(200),) * dice.randrange(20)
        hear(kept, number, f"source {number % 3}", models=(msgspec.structs.replace(MODEL, features=features),))
        held = sum(len(one.body) for one in kept._kept.values())
        assert held == kept._bytes == sum(kept._bytes_of.values()) <= 64 * SIZE
    assert len(kept) > 5
    assert MAX_BOOK_BYTES > 10_000 * SIZE


def test_whom_to_probe_first() -> None:
    kept = book()
    for number in range(1, 31):
        hear(kept, number, "flood")
    hear(kept, 31, "honest")
    hear(kept, 32, "honest", models=(OTHER,))
    hear(kept, 33, peer(33))
    hear(kept, 34, peer(34))
    chosen = kept.candidates(MODEL.id, NOW, 5, lambda n: n - 1)
    assert chosen == [peer(34), peer(33), peer(30), peer(31), peer(29)]
    assert kept.candidates(MODEL.id, NOW, 1, lambda n: 0) == [peer(34)]
    assert kept.candidates(MODEL.id, NOW, 4, lambda n: 0)[2:] == [peer(1), peer(31)]
    assert set(kept.candidates(None, NOW, 100, lambda n: 0)) == {peer(number) for number in range(1, 35)}
    kept.fail(peer(34), NOW)
    assert kept.candidates(MODEL.id, NOW, 1, lambda n: 0) == [peer(33)]


class Gossip(RuleBasedStateMachine):
    """Adverts come in any order, late or twice: the book stays bounded, and no peer's `seq` goes down."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.kept = book(adverts=3)

    @rule(
        number=st.integers(1, 5),
        source=st.sampled_from(["a", "b", "itself"]),
        seq=st.integers(0, 5),
        age=st.integers(-90, 90),
        life=st.integers(1, 120),
    )
    def hear(self, number: int, source: str, seq: int, age: int, life: int) -> None:
        issued = int(self.now) - age
        source = peer(number) if source == "itself" else source
        received = signed(signer(number), seq=seq, issued_at=issued, expires_at=issued + life)
        before = self.kept.known(peer(number))
        if issued > self.now + CLOCK_TOLERANCE_S or issued + life <= self.now:
            with pytest.raises(RemoteError):
                self.kept.add(received, self.now, source=source)
        elif self.kept.add(received, self.now, source=source) is not None:
            assert before is None or before.seq < seq

    @rule(number=st.integers(1, 5))
    def fail(self, number: int) -> None:
        self.kept.fail(peer(number), self.now)
        assert self.kept.failed(peer(number), self.now)

    @rule(seconds=st.integers(1, 60))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def clean(self) -> None:
        self.kept.tick(self.now)
        assert len(list(self.kept.listings(None, self.now))) == len(self.kept)

    @invariant()
    def bounded(self) -> None:
        sizes = [len(kept.body) for kept in self.kept._kept.values()]
        assert sum(sizes) == self.kept._bytes <= 3 * SIZE
        assert all(listing.advert.expires_at > self.now for listing in self.kept.listings(None, self.now))


Gossip.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
TestGossip = Gossip.TestCase
