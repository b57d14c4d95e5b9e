"""Which addresses are announced: the rule as a table, and what properties hold of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.protocol.addresses import Address, Reach, parse, reach_of
from p2p.protocol.reachability import ANSWER_LIFE_S, MAX_CANDIDATES, Reachability, Status, Verdict

MACHINE = parse("/ip4/127.0.0.1/tcp/4001")
SITE = parse("/ip4/192.168.1.7/tcp/4001")
WORLD = parse("/ip4/8.8.8.8/tcp/4001")
ROUTER = parse("/ip4/9.9.9.9/tcp/4001")  # our listening port, at the router's address
ELSEWHERE = parse("/ip4/9.9.9.9/tcp/61000")  # some other port of the router
RELAY = parse("/ip4/1.1.1.1/tcp/4001")
PLACE = RELAY._replace(relay="relay")
NEAR_RELAY = parse("/ip4/10.0.0.1/tcp/4001")


class Case(NamedTuple):
    what: str
    listening: tuple[Address, ...]
    network: Reach | None
    announced: tuple[Address, ...]
    status: Status
    believed: bool = False
    observed: Address | None = None
    observed_from: int = 50000  # the port of ours from which we dialled the observer
    mapped: Address | None = None
    open: tuple[Address, ...] = ()
    closed: tuple[Address, ...] = ()
    place: Address | None = None


PUBLIC, PRIVATE, UNKNOWN = Status

CASES = [
    Case("nobody else is there yet", (MACHINE,), None, (MACHINE,), PUBLIC),
    Case("a network on this machine", (MACHINE, SITE), Reach.MACHINE, (MACHINE, SITE), PUBLIC),
    Case("a network of this site, untested", (MACHINE, SITE), Reach.SITE, (SITE,), UNKNOWN),
    Case("a network of this site, open", (MACHINE, SITE), Reach.SITE, (SITE,), PUBLIC, open=(SITE,)),
    Case("a network of this site, closed", (MACHINE, SITE), Reach.SITE, (), PRIVATE, closed=(SITE,)),
    Case("a public network, at home", (MACHINE, SITE), Reach.WORLD, (), PRIVATE),
    Case("at home, seen from outside", (SITE,), Reach.WORLD, (), UNKNOWN, observed=ELSEWHERE),
    Case("the router forwards our port", (SITE,), Reach.WORLD, (ROUTER,), PUBLIC, observed=ELSEWHERE, open=(ROUTER,)),
    Case("it does not", (SITE,), Reach.WORLD, (), PRIVATE, observed=ELSEWHERE, closed=(ROUTER,)),
    Case("it does not, and we have a place", (SITE,), Reach.WORLD, (PLACE,), PRIVATE, place=RELAY),
    Case("a place while nobody has tried", (SITE,), Reach.WORLD, (PLACE,), UNKNOWN, observed=ELSEWHERE, place=RELAY),
    Case("a place that is not needed", (WORLD,), Reach.WORLD, (WORLD,), PUBLIC, open=(WORLD,), place=RELAY),
    Case("a place at a private relay", (SITE,), Reach.WORLD, (), PRIVATE, place=NEAR_RELAY),
    Case("a place beside what is untested", (SITE,), Reach.SITE, (SITE, PLACE), UNKNOWN, place=RELAY),
    Case(
        "dialled from where we listen",
        (SITE,),
        Reach.WORLD,
        (ELSEWHERE,),
        PUBLIC,
        observed=ELSEWHERE,
        observed_from=4001,
        open=(ELSEWHERE,),
        closed=(ROUTER,),
    ),
    Case(
        "a port that the router opened", (SITE,), Reach.WORLD, (ELSEWHERE,), PUBLIC, mapped=ELSEWHERE, open=(ELSEWHERE,)
    ),
    Case("one that it only says it opened", (SITE,), Reach.WORLD, (), UNKNOWN, mapped=ELSEWHERE),
    Case("a public address, untested", (WORLD,), Reach.WORLD, (), UNKNOWN),
    Case("a public address behind a firewall", (WORLD,), Reach.WORLD, (), PRIVATE, closed=(WORLD,)),
    Case("a relay is believed", (SITE, WORLD), None, (WORLD,), UNKNOWN, believed=True),
    Case("until somebody finds it closed", (WORLD,), None, (), PRIVATE, believed=True, closed=(WORLD,)),
    Case("what others see of a relay is not", (SITE,), Reach.WORLD, (), UNKNOWN, believed=True, observed=ELSEWHERE),
    Case("a peer that only dials", (), Reach.WORLD, (), PRIVATE, observed=ELSEWHERE, place=RELAY),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_what_is_announced(case: Case) -> None:
    core = Reachability(believed=case.believed)
    core.listens(case.listening)
    if case.network is not None:
        core.joined(case.network)
    if case.observed:
        core.observed("observer", case.observed, case.observed_from)
    core.mapped(case.mapped)
    for address in case.open:
        core.answered("checker", address, True, 0)
    for address in case.closed:
        core.answered("checker", address, False, 0)
    core.placed("relay", case.place)
    assert (core.announced(), core.status) == (case.announced, case.status)
    assert core.wants_place is (case.status is not PUBLIC and bool(case.listening))


def at_home() -> Reachability:
    core = Reachability()
    core.listens([SITE])
    core.joined(Reach.WORLD)
    core.observed("observer", ELSEWHERE, 50000)
    return core


@pytest.mark.parametrize(
    ("answers", "verdict"),
    [
        ("", Verdict.UNTESTED),
        ("a+", Verdict.OPEN),
        ("a-", Verdict.CLOSED),
        ("a+ b-", Verdict.CLOSED),
        ("a+ b- c+", Verdict.OPEN),
        ("a+ b- b+", Verdict.OPEN),  # b thought better of it
        ("a+ a+ a+ b- c-", Verdict.CLOSED),  # one peer has one voice
    ],
)
def test_the_majority_says_whether_an_address_is_open(answers: str, verdict: Verdict) -> None:
    core = at_home()
    for answer in answers.split():
        core.answered(answer[0], ROUTER, answer[1] == "+", 0)
    assert core.verdict(ROUTER) is verdict


def test_answers_grow_old() -> None:
    core = at_home()
    core.answered("a", ROUTER, True, 0)
    core.answered("b", ROUTER, False, 100)
    core.tick(ANSWER_LIFE_S)
    assert core.verdict(ROUTER) is Verdict.CLOSED
    core.tick(ANSWER_LIFE_S + 100)
    assert core.verdict(ROUTER) is Verdict.UNTESTED


def test_the_network_is_as_wide_as_its_farthest_member() -> None:
    core = at_home()
    core.joined(Reach.SITE)
    assert core.network is Reach.WORLD
    assert [core.holds(address) for address in (MACHINE, SITE, WORLD)] == [False, False, True]


def test_a_port_is_seen_at_one_place_or_at_several() -> None:
    core = at_home()
    assert core.outside(50000) == (ELSEWHERE,)
    assert core.outside(4001) == ()
    core.observed("another", ELSEWHERE, 50000)
    assert core.outside(50000) == (ELSEWHERE,)
    core.observed("another", ROUTER, 50000)  # a router that gives each conversation a port of its own
    core.observed("a neighbour", SITE, 50000)
    assert core.outside(50000) == (ELSEWHERE, ROUTER)


def test_a_place_is_given_up() -> None:
    core = at_home()
    core.placed("relay", RELAY)
    core.placed("relay", None)
    core.placed("unknown", None)
    assert core.announced() == ()


ADDRESSES = st.sampled_from([MACHINE, SITE, WORLD, ROUTER, ELSEWHERE, NEAR_RELAY, RELAY])
HEARD = st.one_of(
    st.tuples(st.just("observed"), st.integers(0, 20).map(str), ADDRESSES, st.booleans()),
    st.tuples(st.just("answered"), st.integers(0, 20).map(str), ADDRESSES, st.booleans()),
    st.tuples(st.just("mapped"), st.none(), st.none() | ADDRESSES, st.none()),
    st.tuples(st.just("placed"), st.integers(0, 3).map(str), st.none() | ADDRESSES, st.none()),
    st.tuples(st.just("joined"), st.sampled_from(Reach), st.none(), st.none()),
)


@given(st.lists(ADDRESSES, max_size=4), st.booleans(), st.lists(HEARD, max_size=60))
def test_whatever_is_heard(listening: list[Address], believed: bool, heard: list[Any]) -> None:
    core = Reachability(believed=believed)
    core.listens(listening)
    for what, who, address, flag in heard:
        match what:
            case "observed":
                core.observed(who, address, 4001 if flag else 50000)
            case "answered":
                core.answered(who, address, flag, 0)
            case "mapped":
                core.mapped(address)
            case "placed":
                core.placed(who, address)
            case "joined":
                core.joined(who)
    announced = core.announced()
    assert len(set(announced)) == len(announced)
    assert len([address for address in announced if not address.relay]) <= MAX_CANDIDATES
    assert all((reach := reach_of(address)) is not None and reach >= core.network for address in announced)
    assert all(core.verdict(address) is not Verdict.CLOSED for address in announced if not address.relay)
    if core.network is Reach.WORLD and not believed:
        assert all(core.verdict(address) is Verdict.OPEN for address in announced if not address.relay)
    assert bool(listening) or not announced


def test_a_routers_way_with_ports_is_known_once_two_have_said() -> None:
    core = Reachability()
    core.joined(Reach.WORLD)
    assert core.keeps_port(4001) is None
    core.observed("a", ELSEWHERE, 4001)
    assert core.keeps_port(4001) is None
    core.observed("b", ELSEWHERE, 4001)
    assert core.keeps_port(4001) is True
    core.observed("c", parse("/ip6/2600::1/tcp/4001"), 4001)
    assert core.keeps_port(4001) is True, "one address of each kind"
    core.observed("d", ROUTER, 50000)
    assert core.keeps_port(4001) is True, "another port of ours"
    core.observed("b", ROUTER, 4001)
    assert core.keeps_port(4001) is False
