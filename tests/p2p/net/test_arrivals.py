"""Who may come in, and who makes room."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from p2p.net.arrivals import GRACE_S, IDLE_S, SWEEP_S, Arrivals, Begin, Drop, Use
from p2p.net.limits import InboundLimits

FEW = InboundLimits(
    connections=4,
    connections_per_address=2,
    handshakes=4,
    handshakes_per_address=2,
    handshakes_per_s=1,
    burst_s=100,
)
LATER = 1000.0


class Door:
    """The core, and what connections are used for."""

    def __init__(self, limits: InboundLimits = FEW) -> None:
        self.uses: dict[int, Use] = {}
        self.core = Arrivals(limits, lambda one: self.uses.get(one, Use.NONE), 0.0)
        self._numbers = itertools.count()

    def come(self, *ips: str, now: float = 0.0) -> list[str]:
        """One after the other; who begins (`+`) and who goes (`-`)."""
        return [told for ip in ips for told in told_of(self.core.arrive(next(self._numbers), ip, now))]

    def open(self, *ips: str, now: float = 0.0, use: Use = Use.NONE) -> list[str]:
        """The same with a handshake; who goes."""
        told = []
        for ip in ips:
            number = next(self._numbers)
            assert Begin(number) in self.core.arrive(number, ip, now)
            self.uses[number] = use
            told += told_of(self.core.shaken(number, now))
        return told


def told_of(events: list[Begin | Drop]) -> list[str]:
    return [f"{'+' if isinstance(event, Begin) else '-'}{event.connection}" for event in events]


@pytest.mark.parametrize(
    ("ips", "told"),
    [
        ("a b c d", "+0 +1 +2 +3"),
        ("a a a", "+0 +1 +2 -0"),  # a silent one makes room for the next from there
        ("a a a a", "+0 +1 +2 -0 +3 -1"),
        ("a b c d e", "+0 +1 +2 +3 +4 -0"),
        ("a b b c d", "+0 +1 +2 +3 +4 -1"),  # the oldest at the most crowded address
        ("b a b c d", "+0 +1 +2 +3 +4 -0"),
        ("a b b c c", "+0 +1 +2 +3 +4 -1"),
    ],
)
def test_who_shakes_hands(ips: str, told: str) -> None:
    assert Door().come(*ips.split()) == told.split()


@pytest.mark.parametrize(
    ("ips", "told", "order"),
    [
        ("a b c d", "", "1 2 3 4"),
        ("a a b", "", "1 3 2"),  # turns go round
        ("a a a", "-1", "2 3"),  # as many may wait as may shake hands
        ("b c d a a a", "-4 -5", "1 2 3 6"),
    ],
)
def test_who_waits_for_a_turn(ips: str, told: str, order: str) -> None:
    door = Door(InboundLimits(**(vars(FEW) | {"burst_s": 0.5, "handshakes_per_s": 2})))
    assert door.come("first") == ["+0"]
    assert door.come(*ips.split()) == told.split()
    begun, now = [], 0.0
    while door.core.deadline() < SWEEP_S:
        assert door.core.deadline() == now + 0.5
        now = door.core.deadline()
        begun += [event.connection for event in door.core.tick(now) if isinstance(event, Begin)]
    assert begun == [int(one) for one in order.split()]


def test_a_flood_from_one_address_does_not_delay_another() -> None:
    door = Door(InboundLimits(burst_s=0.1, handshakes_per_s=10))
    flood = 5000
    door.come(*["flood"] * flood)
    assert door.come("honest") == []
    assert [f"+{flood}"] in [told_of(door.core.tick(0.1 * turn)) for turn in (1, 2)]


@pytest.mark.parametrize(
    ("opened", "newcomer", "goes"),
    [
        (["a", "b", "c"], "d", []),
        (["a", "a"], "b", []),
        (["a", "a"], "a", ["-1"]),  # the newest idle one at that address
        (["a", "a:work"], "a", ["-0"]),
        (["a", "a:background"], "a", ["-1"]),
        (["a:work", "a:work"], "a", ["-2"]),  # nobody is idle, so it is the newcomer
        (["a", "b", "b", "c"], "d", ["-2"]),  # in all too many: the most crowded address
        (["a", "b:work", "b:work", "c"], "d", ["-0"]),  # and where nobody is idle there, the next
        (["a:work", "b:work", "c:work", "d:work"], "e", ["-4"]),
    ],
)
def test_who_stays(opened: list[str], newcomer: str, goes: list[str]) -> None:
    door = Door()
    for one in opened:
        ip, _, use = one.partition(":")
        assert door.open(ip, use=Use[use.upper() or "NONE"]) == []
    assert door.open(newcomer, now=GRACE_S) == goes


def test_a_young_connection_is_not_idle() -> None:
    door = Door()
    door.open("a", "a")
    assert door.open("a", now=GRACE_S - 1) == ["-2"]


def test_what_nobody_uses_is_closed() -> None:
    door = Door()
    door.open("a", "b", "c", use=Use.NONE)
    door.uses[1] = Use.BACKGROUND
    closed: dict[float, list[str]] = {}
    now = 0.0
    for _ in range(8):
        now = door.core.deadline()
        if now == 2 * SWEEP_S:
            door.uses[2] = Use.WORK
        if now == 3 * SWEEP_S:
            door.uses[2] = Use.NONE
        closed[now] = told_of(door.core.tick(now))
    assert {at: told for at, told in closed.items() if told} == {
        SWEEP_S + IDLE_S: ["-0"],
        3 * SWEEP_S + IDLE_S: ["-2"],
    }
    assert len(door.core) == 1


def test_who_left_is_forgotten_at_any_time() -> None:
    door = Door(InboundLimits(**(vars(FEW) | {"burst_s": 2})))
    assert door.come("a", "b", "c") == ["+0", "+1"]
    for number in (2, 0, 1, 1):
        door.core.left(number)
    assert len(door.core) == 0
    assert door.core.shaken(1, 0.0) == []
    assert door.core.tick(LATER) == []


class Comings(RuleBasedStateMachine):
    """Whatever comes and goes, the limits hold, and nobody is told anything once gone."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.door = Door()
        self.numbers = itertools.count()
        self.states: dict[int, str] = {}

    def hear(self, events: list[Begin | Drop]) -> None:
        for event in events:
            if isinstance(event, Begin):
                assert self.states[event.connection] == "waiting"
                self.states[event.connection] = "shaking"
            else:
                del self.states[event.connection]

    def of(self, state: str) -> list[int]:
        return [one for one, known in self.states.items() if known == state]

    @rule(ip=st.sampled_from("abcd"))
    def arrive(self, ip: str) -> None:
        number = next(self.numbers)
        self.states[number] = "waiting"
        self.hear(self.door.core.arrive(number, ip, self.now))

    @precondition(lambda self: self.of("shaking"))
    @rule(data=st.data(), use=st.sampled_from(Use))
    def shake(self, data: st.DataObject, use: Use) -> None:
        one = data.draw(st.sampled_from(self.of("shaking")))
        self.door.uses[one] = use
        self.states[one] = "open"
        self.hear(self.door.core.shaken(one, self.now))

    @precondition(lambda self: self.states)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(list(self.states)))
        del self.states[one]
        self.door.core.left(one)

    @rule(seconds=st.sampled_from([0.5, 5, 100]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        if self.now >= self.door.core.deadline():
            self.hear(self.door.core.tick(self.now))

    @invariant()
    def limited(self) -> None:
        assert len(self.door.core) == len(self.states)
        for state, most in (("waiting", 4), ("shaking", 4), ("open", 4)):
            assert len(self.of(state)) <= most


Comings.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestComings = Comings.TestCase
