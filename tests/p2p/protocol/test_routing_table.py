"""The routing table: who gets in, who is in doubt, and who is handed out."""

from __future__ import annotations

import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from p2p.protocol.kad_messages import Contact, K, kad_id, shared_prefix_bits
from p2p.protocol.routing_table import CHECK_AFTER_S, CHECK_AGAIN_S, MAX_PER_ORIGIN, MAX_WAITING, RoutingTable

ME = b"me"


def contacts(count: int, bits: int = 0) -> list[Contact]:
    """So many peers that share exactly so many leading bits with us."""
    found: list[Contact] = []
    number = 0
    while len(found) < count:
        peer = b"peer %d" % number
        if shared_prefix_bits(kad_id(ME), kad_id(peer)) == bits:
            found.append(Contact(peer, (b"address",)))
        number += 1
    return found


def full_bucket() -> tuple[RoutingTable, list[Contact], list[Contact]]:
    """A table with one full bucket, heard of at 0, 1, 2 …; those in it, and others that would belong there."""
    table = RoutingTable(ME)
    peers = contacts(K + MAX_WAITING + 2)
    for now, contact in enumerate(peers[:K]):
        assert table.heard(contact, "", float(now)) is None
    return table, peers[:K], peers[K:]


def known(table: RoutingTable) -> list[Contact]:
    return [entry.contact for entry in table]


def test_the_closest_come_nearest_first_without_who_asks() -> None:
    table = RoutingTable(ME)
    peers = [Contact(b"%d" % number, ()) for number in range(60)]
    for contact in peers:
        table.heard(contact, "", 0.0)
    target = kad_id(b"target")
    nearest = sorted(known(table), key=lambda contact: kad_id(contact.peer) ^ target)
    assert table.closest(target) == nearest[:K]
    assert table.closest(target, 3) == nearest[:3]
    assert table.closest(target, 3, but=nearest[1].peer) == [nearest[0], nearest[2], nearest[3]]
    assert len(table.closest(target, 1000)) == len(table) == len(known(table))


def test_a_newcomer_waits_until_a_place_is_free() -> None:
    table, inside, outside = full_bucket()
    now = inside.index(inside[-1]) + CHECK_AGAIN_S
    assert table.heard(outside[0], "", now) == inside[0], "whoever has been silent for longest is to be checked"
    table.heard(outside[0], "", now)
    assert table.get(outside[0].peer) is None
    table.heard(inside[0], "", now)
    assert table.heard(outside[0], "", now) == inside[1]
    table.failed(inside[1].peer)
    assert table.get(inside[1].peer) is None
    assert table.get(outside[0].peer) is not None
    assert len(table) == K


def test_a_lively_bucket_is_left_alone_and_few_wait_for_it() -> None:
    table, inside, outside = full_bucket()
    for contact in outside:
        assert table.heard(contact, "", CHECK_AGAIN_S - 1) is None
    for contact in inside:
        table.failed(contact.peer)
    assert set(known(table)) == set(outside[-MAX_WAITING:]), "the last heard of"
    table.failed(outside[-1].peer)
    assert len(table) == MAX_WAITING - 1


def test_who_waits_and_fails_waits_no_more() -> None:
    table, inside, outside = full_bucket()
    table.heard(outside[0], "", 0.0)
    table.failed(outside[0].peer)
    table.failed(inside[0].peer)
    assert len(table) == K - 1
    table.failed(b"never heard of")


def test_one_origin_gets_few_places_in_a_bucket() -> None:
    table = RoutingTable(ME)
    peers = contacts(K + 5)
    for contact in peers[: MAX_PER_ORIGIN + 3]:
        table.heard(contact, "192.0.2.0/24", 0.0)
    assert known(table) == peers[:MAX_PER_ORIGIN]
    for contact in contacts(3, bits=1):
        table.heard(contact, "192.0.2.0/24", 0.0)
    assert len(table) == MAX_PER_ORIGIN + 3, "each bucket counts by itself"
    table.heard(peers[0], "192.0.2.0/24", 1.0)
    assert table.get(peers[0].peer) is not None, "who is in stays in"


def test_one_that_moves_to_an_origin_with_all_its_places_taken_loses_its_own_to_who_waits() -> None:
    table, inside, outside = full_bucket()
    for contact in inside[:MAX_PER_ORIGIN]:
        table.heard(contact, "a", 100.0)
    table.heard(outside[0], "", 100.0)
    table.heard(inside[0], "a", 101.0)
    assert table.get(inside[0].peer) is not None, "it is one of those"
    assert table.heard(inside[-1], "a", 102.0) is None
    assert table.get(inside[-1].peer) is None
    assert table.get(outside[0].peer) is not None
    assert [entry.origin for entry in table].count("a") == MAX_PER_ORIGIN


def test_one_that_waited_is_left_out_if_its_origin_has_its_places_by_then() -> None:
    table, inside, outside = full_bucket()
    table.heard(outside[0], "x", 0.0)
    for contact in inside[:MAX_PER_ORIGIN]:
        table.heard(contact, "x", 1.0)
    table.failed(inside[-1].peer)
    assert table.get(outside[0].peer) is None
    assert len(table) == K - 1
    for contact in outside[1:]:
        table.heard(contact, "x", 1.0)
    assert len(table) == K - 1
    assert table.heard(outside[1], "x", CHECK_AFTER_S) is None


def test_the_silent_are_checked_and_in_doubt_until_they_answer() -> None:
    table = RoutingTable(ME)
    one, two, three = contacts(3)
    assert table.deadline() == math.inf
    for now, contact in enumerate((one, two, three)):
        table.heard(contact, "", float(now))
    assert table.deadline() == CHECK_AFTER_S
    assert table.due(CHECK_AFTER_S - 0.1) == []
    assert table.due(CHECK_AFTER_S + 1) == [one, two]
    assert table.closest(0) == [three]
    assert table.doubt(one.peer) is None, "it is in doubt already"
    assert table.doubt(three.peer) == three
    assert table.doubt(b"never heard of") is None
    assert table.deadline() == math.inf
    moved = Contact(two.peer, (b"elsewhere",))
    table.heard(moved, "", CHECK_AFTER_S + 2)
    assert table.closest(0) == [moved]
    assert table.deadline() == 2 * CHECK_AFTER_S + 2
    table.failed(one.peer)
    assert len(table) == 2


def test_buckets_that_may_lack_servers_lie_beyond_the_neighbours() -> None:
    table = RoutingTable(ME)
    for contact in [*contacts(2, bits=4), *contacts(K - 3, bits=5)]:
        table.heard(contact, "", 0.0)
    assert table.sparse_buckets() == [], "with so few, all are neighbours"
    for contact in [*contacts(K), *contacts(2, bits=2)]:
        table.heard(contact, "", 0.0)
    assert table.sparse_buckets() == [1]


PEERS = [Contact(b"p%d" % number, ()) for number in range(150)]


class TableMachine(RuleBasedStateMachine):
    """Whatever happens, the bounds hold and only those who answered last are handed out."""

    some_peer = st.sampled_from(PEERS)

    def __init__(self) -> None:
        super().__init__()
        self.table = RoutingTable(ME)
        self.now = 0.0
        self.doubted: set[bytes] = set()

    @rule(contact=some_peer, origin=st.sampled_from(["", "", "a", "b"]))
    def heard(self, contact: Contact, origin: str) -> None:
        silent = self.table.heard(contact, origin, self.now)
        assert silent is None or self.table.get(silent.peer)
        self.doubted.discard(contact.peer)

    @rule(first=st.integers(0, 100))
    def heard_of_many(self, first: int) -> None:
        for contact in PEERS[first : first + 50]:
            self.heard(contact, "")

    @rule(contact=some_peer)
    def failed(self, contact: Contact) -> None:
        self.table.failed(contact.peer)
        assert self.table.get(contact.peer) is None

    @rule(contact=some_peer)
    def doubt(self, contact: Contact) -> None:
        if self.table.doubt(contact.peer):
            self.doubted.add(contact.peer)

    @rule(seconds=st.sampled_from([1.0, 70.0, CHECK_AFTER_S]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.doubted.update(contact.peer for contact in self.table.due(self.now))
        assert self.table.deadline() > self.now

    @invariant()
    def the_bounds_hold(self) -> None:
        buckets: dict[int, list[str]] = {}
        for entry in self.table:
            buckets.setdefault(shared_prefix_bits(kad_id(ME), entry.id), []).append(entry.origin)
        for origins in buckets.values():
            assert len(origins) <= K
            assert all(origins.count(origin) <= MAX_PER_ORIGIN for origin in "ab")

    @invariant()
    def nobody_in_doubt_is_handed_out(self) -> None:
        handed_out = {contact.peer for contact in self.table.closest(0, 1000)}
        assert handed_out == {entry.contact.peer for entry in self.table if not entry.is_doubted}
        assert not handed_out & self.doubted


TestTable = TableMachine.TestCase
TestTable.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
