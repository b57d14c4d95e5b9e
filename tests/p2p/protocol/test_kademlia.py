"""One Kademlia core against a scripted network: what it asks, answers, believes and forgets."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from p2p.protocol.kad_messages import (
    ALPHA,
    PROVIDERS_PER_ANSWER,
    AddProvider,
    Contact,
    FindNode,
    GetProviders,
    GetValue,
    K,
    Ping,
    Request,
    Response,
    kad_id,
)
from p2p.protocol.kad_tasks import ENOUGH_WITNESSES, Announced, Found, Located, Sought, Withdrawn
from p2p.protocol.kademlia import (
    FIRST_REFRESH_S,
    MAX_CHECKS,
    MAX_REMEMBERED,
    MAX_UNCHECKED,
    OPERATION_TIMEOUT_S,
    PATIENCE_S,
    QUERY_TIMEOUT_S,
    REFRESH_S,
    REQUESTS_AT_ONCE,
    SNAPSHOT,
    Abandon,
    Ask,
    Event,
    Kademlia,
)
from p2p.protocol.provider_records import RECORD_LIFE_S
from p2p.protocol.routing_table import CHECK_AFTER_S

ME = b"me"
KEY = b"key"
ADDRESSES = (b"address",)
NOTHING = Response()


def contact(number: int) -> Contact:
    return Contact(b"peer %d" % number, (b"address %d" % number,))


def a_core(*, server: bool = True) -> Kademlia:
    return Kademlia(ME, server=server, entropy=bytes(32), now=0.0)


def knowing(count: int, *, server: bool = True) -> Kademlia:
    """A core that has heard of so many servers at 0."""
    core = a_core(server=server)
    for number in range(count):
        core.table.heard(contact(number), "", 0.0)
    return core


def asks(events: list[Event]) -> list[Ask]:
    return [event for event in events if isinstance(event, Ask)]


def answer_all(
    core: Kademlia, events: list[Event], answer: Callable[[Contact, Request], Response | None]
) -> list[Event]:
    """Answer every question, and those that follow from it; returns everything that happened."""
    happened = list(events)
    todo = asks(events)
    while todo:
        ask = todo.pop(0)
        response = answer(ask.contact, ask.requests[-1])
        more = core.failed(ask.query, 0.0) if response is None else core.answered(ask.query, response, 0.0)
        happened += more
        todo += asks(more)
    return happened


# What others ask


def test_requests_are_answered_from_the_table_and_the_records() -> None:
    core = knowing(2 * K)
    closest = tuple(core.table.closest(kad_id(KEY)))
    asking = closest[0].peer
    without = tuple(core.table.closest(kad_id(KEY), but=asking))
    assert core.receive(b"x", "", FindNode(KEY), 0.0) == Response(closer=closest)
    assert core.receive(asking, "", FindNode(KEY), 0.0) == Response(closer=without)
    assert core.receive(asking, "", GetValue(KEY), 0.0) == Response(closer=without)
    assert core.receive(b"x", "", Ping(), 0.0) == NOTHING
    assert core.receive(b"x", "", AddProvider(KEY, ADDRESSES), 0.0) is None
    assert core.receive(asking, "", GetProviders(KEY), 0.0) == Response(without, (Contact(b"x", ADDRESSES),))
    assert core.receive(asking, "", GetProviders(KEY), RECORD_LIFE_S) == Response(without)


def test_an_announcement_is_taken_back_by_its_maker_alone() -> None:
    core = a_core()
    for peer in (b"x", b"y"):
        core.receive(peer, "", AddProvider(KEY, ADDRESSES), 0.0)
    core.receive(b"x", "", AddProvider(KEY, ()), 0.0)
    core.receive(b"z", "", AddProvider(KEY, ()), 0.0)
    assert core.receive(b"x", "", GetProviders(KEY), 0.0) == Response((), (Contact(b"y", ADDRESSES),))


def test_who_asks_too_often_hears_nothing_for_a_while_and_nobody_else_does() -> None:
    core = knowing(5)
    core.receive(b"provider", "", AddProvider(KEY, ADDRESSES), 0.0)
    core.receive(b"evil", "", AddProvider(b"early", ADDRESSES), 0.0)
    answers = [core.receive(b"evil", "", GetProviders(KEY), 0.0) for _ in range(10 * REQUESTS_AT_ONCE)]
    assert answers[0] != NOTHING
    assert set(answers[REQUESTS_AT_ONCE:]) == {NOTHING}
    core.receive(b"evil", "", AddProvider(KEY, ADDRESSES), 0.0)
    core.receive(b"evil", "", AddProvider(b"early", ()), 0.0)
    assert len(core.records) == 1, "what it announces is not taken, what it takes back is"
    assert core.receive(b"good", "", GetProviders(KEY), 0.0) == answers[0]
    assert core.receive(b"evil", "", GetProviders(KEY), 10.0) == answers[0]


def test_a_flood_of_announcements_from_one_network_takes_no_place_of_others() -> None:
    core = a_core()
    core.receive(b"honest", "198.51.100.0/24", AddProvider(KEY, ADDRESSES), 0.0)
    for number in range(1000):
        core.receive(contact(number).peer, "192.0.2.0/24", AddProvider(KEY, ADDRESSES), 0.0)
    core.receive(b"late", "203.0.113.0/24", AddProvider(KEY, ADDRESSES), 0.0)
    for peer in (b"honest", b"late"):
        named = core.receive(peer, "", GetProviders(KEY), 0.0)
        assert named is not None
        assert named.providers[0].peer == peer
        assert len(named.providers) == PROVIDERS_PER_ANSWER


# Joining, and who is there


def test_joining_looks_for_ourselves_then_for_those_in_between() -> None:
    core = a_core()
    operation, events = core.join([contact(0)], 0.0)
    (ask,) = asks(events)
    assert (ask.contact, ask.requests) == (contact(0), (FindNode(ME),))
    others = [contact(number) for number in range(1, 3 * K)]
    happened = answer_all(core, events, lambda peer, request: Response(tuple(others[int(peer.peer[5:]) % 40 :][:K])))
    located = happened[-1]
    assert isinstance(located, Located)
    assert located.operation == operation
    assert len(located.closest) == K
    assert set(located.closest) <= {entry.contact for entry in core.table}
    assert core.deadline() == FIRST_REFRESH_S
    events = core.tick(FIRST_REFRESH_S)
    happened = answer_all(core, events, lambda peer, request: NOTHING)
    requests = dict.fromkeys(ask.requests[0] for ask in asks(happened))
    keys = [request.key for request in requests if isinstance(request, FindNode)]
    assert keys[0] == ME
    assert [256 - (kad_id(key) ^ kad_id(ME)).bit_length() for key in keys[1:]] == core.table.sparse_buckets()
    assert len(happened) == len(asks(happened)), "nobody waits for what comes of a refresh"
    assert core.deadline() == CHECK_AFTER_S


def test_a_refresh_ends_though_nobody_answers() -> None:
    core = knowing(5)
    events = core.tick(FIRST_REFRESH_S)
    assert {ask.requests for ask in asks(events)} == {(FindNode(ME),)}
    while core.deadline() < FIRST_REFRESH_S + REFRESH_S:
        core.tick(core.deadline())
    assert (len(core.table), core._refresh_keys, core._tasks) == (0, [], {})
    assert asks(core.tick(FIRST_REFRESH_S + REFRESH_S)), "one who has lost everybody tries again"


def test_a_server_is_known_once_it_has_answered() -> None:
    core = a_core()
    (ask,) = asks(core.noticed(contact(1), 0.0))
    assert (ask.contact, ask.requests) == (contact(1), (Ping(),))
    assert core.noticed(contact(1), 0.0) == [], "it is being asked"
    assert len(core.table) == 0
    assert core.answered(ask.query, NOTHING, 0.0, addresses=(b"its own words",)) == []
    assert core.table.closest(0) == [Contact(contact(1).peer, (b"its own words",))]
    assert core.noticed(Contact(contact(1).peer, (b"its own words",)), 0.0) == []
    assert len(core.noticed(contact(1), 0.0)) == 1, "it has moved"
    assert core.noticed(Contact(ME, ()), 0.0) == []
    (ask,) = asks(core.noticed(contact(2), 0.0))
    assert core.failed(ask.query, 0.0) == []
    assert core.table.get(contact(2).peer) is None


@pytest.mark.parametrize("lives", [True, False])
def test_a_broken_connection_is_a_doubt_until_the_server_answers(lives: bool) -> None:
    core = knowing(3)
    (ask,) = asks(core.lost(contact(1).peer, 0.0))
    assert (ask.contact, ask.requests) == (contact(1), (Ping(),))
    assert contact(1) not in core.table.closest(0)
    assert core.lost(contact(1).peer, 0.0) == []
    if lives:
        core.answered(ask.query, NOTHING, 0.0)
    else:
        core.failed(ask.query, 0.0)
    assert (contact(1) in core.table.closest(0)) is lives
    assert (core.table.get(contact(1).peer) is not None) is lives
    assert core.lost(b"a client", 0.0) == []


def test_the_silent_are_asked_and_the_dead_forgotten() -> None:
    core = knowing(3)
    answer_all(core, core.tick(FIRST_REFRESH_S), lambda peer, request: NOTHING)
    checks = asks(core.tick(CHECK_AFTER_S))
    assert {ask.contact for ask in checks} == {contact(0), contact(1), contact(2)}
    assert {ask.requests for ask in checks} == {(Ping(),)}
    for ask in checks[1:]:
        core.failed(ask.query, CHECK_AFTER_S)
    core.answered(checks[0].query, NOTHING, CHECK_AFTER_S)
    assert core.table.closest(0) == [checks[0].contact]


def test_whoever_has_been_silent_longest_is_asked_when_its_place_is_wanted() -> None:
    core = a_core()
    near = [each for each in map(contact, range(200)) if (kad_id(each.peer) ^ kad_id(ME)) >> 255][: K + 1]
    for each in near[:K]:
        core.table.heard(each, "", 0.0)
    (ask,) = asks(core.noticed(near[K], 100.0))
    (check,) = asks(core.answered(ask.query, NOTHING, 100.0))
    assert (check.contact, check.requests) == (near[0], (Ping(),))
    core.failed(check.query, 100.0)
    assert core.table.get(near[0].peer) is None
    assert core.table.get(near[K].peer) is not None


def test_few_checks_run_at_a_time_and_few_newcomers_wait() -> None:
    core = a_core()
    events = [event for number in range(1000) for event in core.noticed(contact(number), 0.0)]
    assert len(events) == MAX_CHECKS
    assert len(core._unchecked) == MAX_UNCHECKED
    happened = answer_all(core, events, lambda peer, request: NOTHING)
    assert len(happened) == MAX_CHECKS + MAX_UNCHECKED


def test_the_known_are_restored_when_they_answer() -> None:
    core = knowing(SNAPSHOT + 100)
    core.table.heard(contact(5), "", 1.0)
    core.table.doubt(contact(6).peer)
    known = core.snapshot()
    assert known[0] == contact(5)
    assert contact(6) not in known
    assert len(known) == min(SNAPSHOT, len(core.table) - 1)
    again = a_core()
    events = again.restore(known, 10.0)
    assert len(again.table) == 0
    answer_all(again, events, lambda peer, request: NOTHING if peer in known[:30] else None)
    assert {entry.contact for entry in again.table} == set(known[:30])
    assert len(again._remembered) == MAX_REMEMBERED
    _, events = again.join((), 10.0)
    assert len(asks(events)) == ALPHA


def test_one_who_has_lost_everybody_starts_from_those_it_knew() -> None:
    core = knowing(2)
    for number in range(2):
        (ask,) = asks(core.lost(contact(number).peer, 0.0))
        core.failed(ask.query, 0.0)
    assert len(core.table) == 0
    _, events = core.locate(KEY, 0.0)
    assert {ask.contact for ask in asks(events)} == {contact(0), contact(1)}


# Look-ups


def test_locating_gives_those_that_answered() -> None:
    core = knowing(50)
    _, events = core.locate(KEY, 0.0)
    assert len(events) == ALPHA
    happened = answer_all(core, events, lambda peer, request: None if peer == contact(7) else NOTHING)
    located = happened[-1]
    assert isinstance(located, Located)
    assert contact(7) not in located.closest
    everyone = sorted((each for each in map(contact, range(50))), key=lambda each: kad_id(each.peer) ^ kad_id(KEY))
    known = {entry.contact for entry in core.table} | {contact(7)}
    expected = [each for each in everyone if each in known and each != contact(7)][:K]
    assert set(located.closest) <= set(expected)


def test_nobody_to_ask_is_an_empty_result_at_once() -> None:
    core = a_core(server=False)
    assert core.locate(KEY, 0.0)[1] == [Located(1, ())]
    assert core.announce(KEY, ADDRESSES, 0.0)[1] == [Announced(2, (), False)]
    assert core.find(KEY, 5, 0.0)[1] == [Found(3, (), False)]
    assert core.seek(b"x", 0.0)[1] == [Sought(4, Contact(b"x", ()))]
    assert core.withdraw(KEY, 0.0)[1] == [Withdrawn(5)]


def test_the_impatient_ask_another_and_the_silent_fail() -> None:
    core = knowing(ALPHA + 1)
    _, events = core.locate(KEY, 0.0)
    first = asks(events)
    assert core.deadline() == PATIENCE_S
    (another,) = asks(core.tick(PATIENCE_S))
    assert another.contact not in [ask.contact for ask in first]
    core.answered(another.query, NOTHING, PATIENCE_S)
    assert core.deadline() == QUERY_TIMEOUT_S
    events = core.tick(QUERY_TIMEOUT_S)
    assert [event.query for event in events if isinstance(event, Abandon)] == [ask.query for ask in first]
    assert events[-1] == Located(1, (another.contact,))
    assert core.answered(first[0].query, NOTHING, QUERY_TIMEOUT_S) == [], "too late"
    assert core.failed(first[0].query, QUERY_TIMEOUT_S) == []


def test_an_operation_ends_in_time_with_what_there_is() -> None:
    everyone = sorted(map(contact, range(1000)), key=lambda each: kad_id(each.peer) ^ kad_id(KEY), reverse=True)
    ever_closer = iter(everyone)
    core = a_core()
    core.table.heard(next(ever_closer), "", 0.0)
    now = 0.0
    operation, events = core.locate(KEY, now)
    while now + 0.9 < OPERATION_TIMEOUT_S:
        now += 0.9
        open_asks, events = asks(events), []
        for ask in open_asks:
            events += core.answered(ask.query, Response(tuple(islice(ever_closer, 3))), now)
        assert len(events) == ALPHA
    ended = core.tick(OPERATION_TIMEOUT_S)
    assert ended[: len(events)] == [Abandon(ask.query) for ask in asks(events)]
    located = ended[len(events)]
    assert isinstance(located, Located)
    assert located.operation == operation
    assert len(located.closest) == K


def test_an_announcement_goes_to_the_closest_and_counts_where_it_is_named() -> None:
    core = knowing(30)
    closest = core.table.closest(kad_id(KEY))
    holders = closest[::2]

    def answer(peer: Contact, request: Request) -> Response | None:
        if isinstance(request, FindNode):
            return NOTHING
        if peer == closest[1]:
            return None
        return Response((), (contact(77), Contact(ME, ()))) if peer in holders else Response((), (contact(77),))

    operation, events = core.announce(KEY, ADDRESSES, 0.0)
    happened = answer_all(core, events, answer)
    told = [ask for ask in asks(happened) if len(ask.requests) == 2]
    assert {ask.requests for ask in told} == {(AddProvider(KEY, ADDRESSES), GetProviders(KEY))}
    assert len(told) == K
    result = happened[-1]
    assert isinstance(result, Announced)
    assert (result.operation, set(result.servers), result.is_crowded) == (operation, set(holders), False)
    assert core.records.get(KEY, 0.0) == (Contact(ME, ADDRESSES),), "a server holds its own"
    operation, events = core.withdraw(KEY, 0.0)
    assert [(ask.contact, ask.requests) for ask in asks(events)] == [
        (holder, (AddProvider(KEY, ()),)) for holder in result.servers
    ]
    assert answer_all(core, events, answer)[-1] == Withdrawn(operation)
    assert core.records.get(KEY, 0.0) == ()
    assert core.withdraw(KEY, 0.0)[1] == [Withdrawn(operation + len(holders) + 1)]


def test_a_withdrawal_that_is_not_answered_ends_as_well() -> None:
    core = knowing(3)
    _, events = core.announce(KEY, ADDRESSES, 0.0)
    answer_all(core, events, lambda peer, request: Response((), (Contact(ME, ()),)))
    operation, events = core.withdraw(KEY, 0.0)
    assert core.tick(PATIENCE_S) == []
    assert core.tick(QUERY_TIMEOUT_S)[-1] == Withdrawn(operation)


@pytest.mark.parametrize(("full", "is_crowded"), [(2, False), (3, True)])
def test_a_key_is_crowded_if_most_who_know_of_it_say_so(full: int, is_crowded: bool) -> None:
    many = tuple(contact(number) for number in range(100, 100 + PROVIDERS_PER_ANSWER))
    core = knowing(5, server=False)
    crowded = core.table.closest(kad_id(KEY))[:full]

    def answer(peer: Contact, request: Request) -> Response:
        return Response((), many if peer in crowded else many[:1])

    found = answer_all(core, core.find(KEY, 1000, 0.0)[1], answer)[-1]
    assert isinstance(found, Found)
    assert found.is_crowded is is_crowded
    assert set(found.providers) == set(many)
    announced = answer_all(core, core.announce(KEY, ADDRESSES, 0.0)[1], answer)[-1]
    assert isinstance(announced, Announced)
    assert announced.is_crowded is is_crowded


def test_finding_ends_once_enough_witnesses_named_enough() -> None:
    core = knowing(K, server=False)
    _, events = core.find(KEY, 3, 0.0)
    happened: list[Event] = []
    queue = asks(events)
    answered = 0
    while not any(isinstance(event, Found) for event in happened):
        ask = queue.pop(0)
        providers = tuple(contact(100 + 10 * answered + number) for number in range(10))
        more = core.answered(ask.query, Response((), (*providers, Contact(ME, ()))), 0.0)
        happened += more
        queue += asks(more)
        answered += 1
    assert answered == ENOUGH_WITNESSES
    found = happened[-1]
    assert isinstance(found, Found)
    assert found.providers == (contact(100), contact(110), contact(120)), "one of each witness, by turns"
    assert [event for event in happened if isinstance(event, Abandon)] == [Abandon(ask.query) for ask in queue]


def test_of_a_providers_addresses_those_that_most_name_come_first() -> None:
    core = knowing(3, server=False)
    liar = core.table.closest(kad_id(KEY))[0]
    lies = tuple(b"lie %d" % number for number in range(8))

    def answer(peer: Contact, request: Request) -> Response:
        return Response((), (Contact(b"x", lies if peer == liar else (b"true",)),))

    found = answer_all(core, core.find(KEY, 5, 0.0)[1], answer)[-1]
    assert isinstance(found, Found)
    assert found.providers == (Contact(b"x", (b"true", *lies[:7])),)


def test_a_server_finds_what_was_announced_to_itself() -> None:
    core = a_core()
    core.receive(b"x", "", AddProvider(KEY, ADDRESSES), 0.0)
    core.announce(KEY, ADDRESSES, 0.0)
    assert core.find(KEY, 5, 0.0)[1] == [Found(2, (Contact(b"x", ADDRESSES),), False)]


def test_a_peer_is_sought_from_others_alone() -> None:
    core = knowing(10)
    lost = contact(3)
    moved = Contact(lost.peer, (b"elsewhere",))
    happened = answer_all(core, core.seek(lost.peer, 0.0)[1], lambda peer, request: Response((moved, lost)))
    assert lost not in [ask.contact for ask in asks(happened)]
    assert happened[-1] == Sought(1, moved)
    assert len(asks(happened)) <= ENOUGH_WITNESSES + ALPHA
    operation, events = core.seek(b"nobody", 0.0)
    assert answer_all(core, events, lambda peer, request: NOTHING)[-1] == Sought(operation, Contact(b"nobody", ()))


class CoreMachine(RuleBasedStateMachine):
    """Whatever the network does, every operation ends, and nothing grows without bound."""

    numbers = st.integers(0, 60)

    def __init__(self) -> None:
        super().__init__()
        self.core = a_core()
        self.now = 0.0
        self.open: dict[int, Ask] = {}
        self.waiting: dict[int, float] = {}

    def take(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case Ask(query, peer, _):
                    assert peer.peer != ME
                    self.open[query] = event
                case Abandon(query):
                    del self.open[query]
                case result:
                    del self.waiting[result.operation]

    def start(self, started: tuple[int, list[Event]]) -> None:
        operation, events = started
        self.waiting[operation] = self.now
        self.take(events)

    @rule(number=numbers)
    def locate(self, number: int) -> None:
        self.start(self.core.locate(b"%d" % number, self.now))

    @rule(number=numbers)
    def announce(self, number: int) -> None:
        self.start(self.core.announce(b"%d" % number, ADDRESSES, self.now))

    @rule(number=numbers)
    def withdraw(self, number: int) -> None:
        self.start(self.core.withdraw(b"%d" % number, self.now))

    @rule(number=numbers, limit=st.integers(1, 50))
    def find(self, number: int, limit: int) -> None:
        self.start(self.core.find(b"%d" % number, limit, self.now))

    @rule(number=numbers)
    def seek(self, number: int) -> None:
        self.start(self.core.seek(contact(number).peer, self.now))

    @rule(number=numbers)
    def join(self, number: int) -> None:
        self.start(self.core.join([contact(number)], self.now))

    @rule(number=numbers)
    def noticed(self, number: int) -> None:
        self.take(self.core.noticed(contact(number), self.now))

    @rule(number=numbers)
    def lost(self, number: int) -> None:
        self.take(self.core.lost(contact(number).peer, self.now))

    @rule(
        chance=st.integers(0, 100),
        closer=st.lists(numbers, max_size=K),
        providers=st.lists(numbers, max_size=70),
        includes_us=st.booleans(),
    )
    def answered(self, chance: int, closer: list[int], providers: list[int], includes_us: bool) -> None:
        if self.open:
            query = list(self.open)[chance % len(self.open)]
            del self.open[query]
            us = [Contact(ME, ())] if includes_us else []
            response = Response((*us, *map(contact, closer)), (*us, *map(contact, providers)))
            self.take(self.core.answered(query, response, self.now))

    @rule(chance=st.integers(0, 100))
    def failed(self, chance: int) -> None:
        if self.open:
            query = list(self.open)[chance % len(self.open)]
            del self.open[query]
            self.take(self.core.failed(query, self.now))

    @rule(number=numbers, kind=st.sampled_from([FindNode, GetProviders, GetValue]))
    def receive(self, number: int, kind: type[FindNode] | type[GetProviders] | type[GetValue]) -> None:
        response = self.core.receive(contact(number).peer, "", kind(b"%d" % number), self.now)
        assert response is not None
        assert len(response.closer) <= K
        assert contact(number).peer not in [each.peer for each in response.closer]

    @rule()
    def time_passes(self) -> None:
        self.now = max(self.now, self.core.deadline())
        self.take(self.core.tick(self.now))
        assert self.core.deadline() > self.now

    @rule()
    def long_silence(self) -> None:
        until = self.now + 2 * OPERATION_TIMEOUT_S + QUERY_TIMEOUT_S
        while self.core.deadline() <= until:
            self.time_passes()
        self.now = until
        assert not self.waiting, "an announcement is two walks at the most, each of which ends in time"

    @invariant()
    def the_rim_knows_what_is_open(self) -> None:
        assert set(self.open) == set(self.core._queries)
        assert set(self.core._punctual) <= set(self.core._queries)
        assert {query for _, queries in self.core._tasks.values() for query in queries} == set(self.core._queries)
        assert len(self.core._checking) <= MAX_CHECKS


TestCore = CoreMachine.TestCase
TestCore.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
