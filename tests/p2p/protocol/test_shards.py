"""Shards: which keys a provider announces and where a client looks, in networks small and large."""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict

import pytest

from p2p.protocol.kad_messages import PROVIDERS_PER_ANSWER, Contact
from p2p.protocol.provider_records import MAX_RECORDS_PER_KEY
from p2p.protocol.shards import (
    CROWDED_S,
    MAX_CROWDED,
    MAX_DEPTH,
    MAX_LOOKUPS,
    Announcing,
    CrowdedKeys,
    Searching,
    announced_keys,
    record_key,
)


def peer(number: int) -> bytes:
    return b"peer %d" % number


def test_keys_are_multihashes_of_the_name_and_of_its_shards() -> None:
    digest = hashlib.sha256(b"any").digest()
    assert record_key("any") == b"\x12\x20" + digest
    shard = hashlib.sha256(peer(1)).hexdigest()
    assert announced_keys("any", peer(1)) == [
        b"\x12\x20" + digest,
        *(b"\x12\x20" + hashlib.sha256(f"any#{shard[:depth]}".encode()).digest() for depth in (1, 2, 3)),
    ]


def test_a_key_with_room_is_the_only_one() -> None:
    announcing = Announcing("any", peer(1), CrowdedKeys())
    assert announcing.next(0.0) == record_key("any")
    announcing.heard(is_held=True, is_crowded=False, now=0.0)
    assert announcing.next(0.0) is None
    search = Searching("any", 5, random.Random(1).randrange)
    assert search.next() == record_key("any")
    search.heard([Contact(peer(1), ())], is_crowded=False)
    assert search.next() is None
    assert search.found() == [Contact(peer(1), ())]


def test_where_a_provider_was_crowded_out_it_comes_back_much_later() -> None:
    crowded = CrowdedKeys()
    keys = announced_keys("any", peer(1))
    announcing = Announcing("any", peer(1), crowded)
    for key, is_held in zip(keys, (False, True, False, True), strict=True):
        assert announcing.next(0.0) == key
        announcing.heard(is_held=is_held, is_crowded=True, now=0.0)
    assert announcing.next(0.0) is None, f"there is nothing below depth {MAX_DEPTH}"
    later = Announcing("any", peer(1), crowded)
    assert later.next(CROWDED_S - 1) == keys[1], "where it is held it renews"
    assert Announcing("any", peer(1), crowded).next(CROWDED_S) == keys[0]
    for number in range(MAX_CROWDED):
        crowded.add(b"%d" % number, 0.0)
    assert not crowded.has(keys[0], 0.0), "the oldest is forgotten"


class Records:
    """The DHT as one server that never loses anything."""

    def __init__(self) -> None:
        self.keys: defaultdict[bytes, list[Contact]] = defaultdict(list)
        self.chance = random.Random(7)

    def announce(self, number: int, crowded: CrowdedKeys) -> int:
        announcing = Announcing("any", peer(number), crowded)
        announced = 0
        while (key := announcing.next(0.0)) is not None:
            holders = self.keys[key]
            contact = Contact(peer(number), ())
            if contact not in holders and len(holders) < MAX_RECORDS_PER_KEY:
                holders.append(contact)
            is_crowded = len(holders) >= PROVIDERS_PER_ANSWER
            announcing.heard(is_held=contact in holders, is_crowded=is_crowded, now=0.0)
            announced += 1
        return announced

    def find(self, limit: int) -> tuple[list[Contact], int]:
        search = Searching("any", limit, self.chance.randrange)
        lookups = 0
        while (key := search.next()) is not None:
            found = self.chance.sample(self.keys[key], min(PROVIDERS_PER_ANSWER, len(self.keys[key])))
            search.heard(found, is_crowded=len(found) == PROVIDERS_PER_ANSWER)
            lookups += 1
        return search.found(), lookups


@pytest.mark.parametrize("providers", [10, 60, 200, 1000])
def test_no_key_holds_many_and_every_provider_is_found(providers: int) -> None:
    records = Records()
    crowded = [CrowdedKeys() for _ in range(providers)]
    for _ in range(3):  # renewals: who came early learns later that a key is crowded
        announced = [records.announce(number, crowded[number]) for number in range(providers)]
    assert max(map(len, records.keys.values())) <= MAX_RECORDS_PER_KEY
    assert max(announced) <= MAX_DEPTH
    held = sum(map(len, records.keys.values()))
    assert sum(announced) == held, "where it was crowded out, a provider does not try again"
    assert held <= 3 * providers
    times_found: defaultdict[bytes, int] = defaultdict(int)
    for _ in range(providers):
        found, lookups = records.find(32)
        assert len(found) == len(set(found)) == min(32, providers)
        assert lookups <= MAX_DEPTH
        for contact in found:
            times_found[contact.peer] += 1
    assert len(times_found) == providers, "everybody is found by somebody"


def test_who_wants_many_gets_them_from_further_shards() -> None:
    records = Records()
    for _ in range(3):
        for number in range(500):
            records.announce(number, CrowdedKeys())
    found, lookups = records.find(400)
    assert len(set(found)) == len(found) == 400
    assert 5 < lookups <= MAX_LOOKUPS
    found, lookups = records.find(10_000)
    assert len(found) == 500
    assert lookups <= MAX_LOOKUPS
