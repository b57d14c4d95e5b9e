"""Provider records: how long they live, who is named, and what a flood can do."""

from __future__ import annotations

import pytest

from p2p.protocol.kad_messages import PROVIDERS_PER_ANSWER, Contact
from p2p.protocol.provider_records import MAX_RECORDS_PER_KEY, RECORD_LIFE_S, ProviderRecords

KEY = b"key"


def contact(number: int) -> Contact:
    return Contact(b"peer %d" % number, (b"address",))


def peers(records: ProviderRecords, key: bytes = KEY, now: float = 0.0) -> set[bytes]:
    return {each.peer for each in records.get(key, now)}


def test_a_record_lives_as_long_as_an_advert_and_from_its_last_renewal() -> None:
    records = ProviderRecords()
    assert records.get(KEY, 0.0) == ()
    assert records.add(KEY, contact(1), "", 0.0)
    assert records.add(KEY, contact(2), "", 1.0)
    moved = Contact(contact(1).peer, (b"elsewhere",))
    assert records.add(KEY, moved, "", 100.0)
    assert set(records.get(KEY, RECORD_LIFE_S)) == {moved, contact(2)}
    assert records.get(KEY, RECORD_LIFE_S + 1) == (moved,)
    assert records.get(KEY, RECORD_LIFE_S + 100) == ()
    assert len(records) == 0


def test_a_record_is_withdrawn_and_others_stay() -> None:
    records = ProviderRecords()
    for number in range(3):
        records.add(KEY, contact(number), "x" * number, 0.0)
    records.add(b"other", contact(0), "", 0.0)
    records.remove(KEY, contact(0).peer)
    records.remove(KEY, contact(0).peer)
    records.remove(b"unknown", contact(0).peer)
    assert peers(records) == {contact(1).peer, contact(2).peer}
    assert peers(records, b"other") == {contact(0).peer}


def test_of_many_all_are_named_by_turns_and_who_asks_first() -> None:
    records = ProviderRecords()
    for number in range(MAX_RECORDS_PER_KEY):
        records.add(KEY, contact(number), f"{number}", 0.0)
    first, second = records.get(KEY, 0.0), records.get(KEY, 0.0)
    assert len(first) == len(second) == PROVIDERS_PER_ANSWER
    assert set(first) | set(second) == {contact(number) for number in range(MAX_RECORDS_PER_KEY)}
    answer = records.get(KEY, 0.0, first=contact(77).peer)
    assert answer[0] == contact(77)
    assert len(set(answer)) == len(answer) == PROVIDERS_PER_ANSWER
    assert contact(1) not in records.get(b"other", 0.0, first=contact(1).peer)


@pytest.mark.parametrize("full", ["one key", "everything"])
def test_a_flood_from_one_origin_makes_room_out_of_its_own(full: str) -> None:
    limit = 100
    records = ProviderRecords(limit=10_000 if full == "one key" else limit, limit_per_key=limit)

    def key(number: int) -> bytes:
        return KEY if full == "one key" else b"key %d" % number

    for number in range(3):
        assert records.add(key(number), contact(number), f"honest {number}", 0.0)
    kept = sum(records.add(key(number), contact(number), "evil", 0.0) for number in range(10, 1000))
    assert kept == limit - 3
    assert len(records) == limit
    for number in range(2000, 2050):
        assert records.add(key(number), contact(number), f"honest {number}", 0.0)
    assert len(records) == limit
    for number in [0, 1, 2, *range(2000, 2050)]:
        assert contact(number).peer in {each.peer for each in records.get(key(number), 0.0, first=contact(number).peer)}
    assert records.add(key(0), contact(0), "honest 0", 0.0), "a renewal needs no room"
    assert not records.add(key(1), contact(5000), "evil", 0.0)


def test_nobody_has_more_than_others_and_there_is_no_room() -> None:
    records = ProviderRecords(limit=5, limit_per_key=10)
    for number in range(5):
        assert records.add(b"%d" % number, contact(number), f"{number}", 0.0)
    assert not records.add(KEY, contact(9), "9", 0.0)
    assert records.add(KEY, contact(9), "9", RECORD_LIFE_S), "the others have expired"
