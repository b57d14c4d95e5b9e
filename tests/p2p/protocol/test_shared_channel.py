"""Several sessions on one channel, and everything that can befall them, in any order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from back_to_back import CHANNEL, GLOBAL_ID, PAYEE, PAYER, PRICES
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from shared_channel import DEPOSIT_NANO, WINDOW_NANO, SharedChannel, Talk

from chain.errors import ChannelUnusable
from chain.voucher import VOUCHER_TAG, sign_claim
from p2p.errors import PaymentError, Unavailable
from p2p.protocol.price import Tokens, cost_nano
from p2p.protocol.session import HEARTBEAT_S, SILENCE_S, State

SESSIONS_MAX = 4
TOKEN_NANO = cost_nano(PRICES, Tokens(output=1))
FOUND_OUT_BEATS = int(SILENCE_S / HEARTBEAT_S) + 2
SIDES = st.sampled_from(["client", "provider"])


def agree_again(world: SharedChannel) -> None:
    """Everybody notices what is broken, and one more answer, alone on the channel, makes both ends agree."""
    for talk in world.talks:
        world.break_stream(talk)
        world.notice(talk, "provider")
        world.notice(talk, "client")
    world.finish_saving()
    world.forget()
    assert not world.payer.lanes
    assert not world.payee.lanes
    before = world.completed
    talk = world.start(100, [1] * 30)
    world.drain()
    assert talk.client is not None
    assert talk.client.state is State.DONE
    assert world.completed == before + 2
    assert world.payer.authorised_nano == world.payee.authorised_nano
    assert world.payer.delivered_nano == world.payee.delivered_nano <= world.payer.authorised_nano
    assert world.payer.delivered_nano - world.received_nano <= WINDOW_NANO * world.incidents
    lost_nano = world.delivered_nano - world.payee.delivered_nano
    assert lost_nano <= world.limit_nano * world.incidents


ONE_DEATH = given(
    prompts=st.lists(st.integers(1, 3000), min_size=1, max_size=SESSIONS_MAX),
    choices=st.lists(st.integers(0, 11), max_size=150),
    rest=st.lists(st.integers(0, 11), max_size=60),
    who=SIDES,
    events=st.integers(0, 3),
)


def one_death_costs_each_side_one_window_at_most(
    prompts: list[int], choices: list[int], rest: list[int], who: str, events: int
) -> None:
    """One side dies in front of one of its next events; both notice, agree again, and count."""
    world = SharedChannel()
    for prompt_tokens in prompts:
        world.start(prompt_tokens, [2] * 60)
    get_on(world, choices)
    world.lives[who] = events
    get_on(world, rest)
    world.lives[who] = None
    if not world.incidents:
        world.die(who)
    for talk in world.talks:
        world.notice(talk, "client")
        world.notice(talk, "provider")
    agree_again(world)
    assert world.incidents <= 1


@settings(max_examples=100, deadline=None, derandomize=True)
@ONE_DEATH
def test_one_death_costs_each_side_one_window_at_most(
    prompts: list[int], choices: list[int], rest: list[int], who: str, events: int
) -> None:
    one_death_costs_each_side_one_window_at_most(prompts, choices, rest, who, events)


def streaming(sessions: int) -> SharedChannel:
    """Each client has something of its answer."""
    world = SharedChannel()
    for _ in range(sessions):
        world.start(50, [1] * 100)
    while not all(talk.client and talk.client.tokens.output for talk in world.talks):
        for move, talk in world.movable():
            move(talk)
    return world


def work_until_held(world: SharedChannel, *talks: Talk) -> None:
    """The engines get on, and nobody hears of it."""
    while waiting := [talk for talk in talks if not talk.held]:
        for talk in waiting:
            world.save(talk) if talk.unsaved else world.work(talk)


def test_a_session_that_is_dead_and_not_found_out_gets_nothing_for_what_another_left_unpaid() -> None:
    world = streaming(2)
    one, other = world.talks
    world.die("client")
    work_until_held(world, one, other)
    handed_over_nano = world.delivered_nano
    world.notice(one, "provider")
    for _ in range(FOUND_OUT_BEATS):
        world.beat()
    assert world.delivered_nano == handed_over_nano
    assert other.provider is not None
    assert other.provider.state is State.FAILED, "it was silent for too long"
    assert WINDOW_NANO - TOKEN_NANO < world.payee.lost_nano <= WINDOW_NANO
    assert world.provider_disk.lost_nano == world.payee.lost_nano
    agree_again(world)


def test_a_session_that_lives_goes_on_in_what_is_left_of_the_window() -> None:
    world = streaming(2)
    broken, alive = world.talks
    work_until_held(world, broken)
    world.break_stream(broken)
    world.notice(broken, "client")
    world.notice(broken, "provider")
    left_nano = WINDOW_NANO - world.payee.forgotten_nano(world.now)
    assert 0 < left_nano < 4 * TOKEN_NANO
    while moves := world.movable():
        move, talk = moves[0]
        move(talk)
        assert world.payee.exposed_nano <= left_nano
    assert alive.client is not None
    assert alive.client.state is State.DONE
    agree_again(world)


def get_on(world: SharedChannel, choices: Sequence[int]) -> None:
    """Some messages arrive and engines work, in any order between sessions."""
    for choice in choices:
        moves = world.movable()
        if moves:
            move, talk = moves[choice % len(moves)]
            move(talk)


class Street(RuleBasedStateMachine):
    """Sessions begin, get on, break off and end in any order, while both processes are killed and restarted."""

    def __init__(self) -> None:
        super().__init__()
        self.tally: Counter[str] = Counter()
        self.world = self._new_world()

    def _new_world(self) -> SharedChannel:
        return SharedChannel(self.tally)

    @initialize(prompts=st.lists(st.integers(1, 1500), min_size=1, max_size=SESSIONS_MAX))
    def several_at_once(self, prompts: list[int]) -> None:
        for prompt_tokens in prompts:
            self.world.start(prompt_tokens, [2] * 40)

    @precondition(lambda self: len(self.world.talks) < SESSIONS_MAX)
    @rule(prompt_tokens=st.integers(1, 1500), pieces=st.lists(st.integers(1, 3), max_size=60))
    def start(self, prompt_tokens: int, pieces: Sequence[int]) -> None:
        self.world.start(prompt_tokens, pieces)

    @precondition(lambda self: self.world.movable())
    @rule(choices=st.lists(st.integers(0, 11), min_size=1, max_size=80))
    def get_on(self, choices: list[int]) -> None:
        get_on(self.world, choices)

    @precondition(lambda self: self.world.talks)
    @rule(choice=st.integers(0, SESSIONS_MAX - 1))
    def cancel(self, choice: int) -> None:
        self.world.cancel(self._talk(choice))

    @precondition(lambda self: self.world.talks)
    @rule(choice=st.integers(0, SESSIONS_MAX - 1))
    def break_stream(self, choice: int) -> None:
        self.world.break_stream(self._talk(choice))

    @precondition(lambda self: any(talk.broken for talk in self.world.talks))
    @rule(choice=st.integers(0, SESSIONS_MAX - 1), who=SIDES)
    def notice(self, choice: int, who: str) -> None:
        broken = [talk for talk in self.world.talks if talk.broken]
        self.world.notice(broken[choice % len(broken)], who)
        self.world.forget()

    @rule(who=SIDES, events=st.integers(0, 30))
    def doom(self, who: str, events: int) -> None:
        """Its process will die in front of one of its next events: a save, a message, or between two."""
        self.world.lives[who] = events

    @rule(who=SIDES)
    def die(self, who: str) -> None:
        self.world.die(who)
        self.world.forget()

    @rule()
    def release(self) -> None:
        """Close together if no session runs at either end. After that there is another channel."""
        if self.world.release():
            self._count_the_money()
            self.world = self._new_world()

    @rule(seconds=st.sampled_from([1.0, 6.0, 31.0]))
    def wait(self, seconds: float) -> None:
        self.world.wait(seconds)
        self.world.forget()

    def teardown(self) -> None:
        """Leave what is left, and both ends agree again by one more answer; then close, and count the money."""
        world = self.world
        world.lives = {"client": None, "provider": None}
        world.drain()
        if not world.incidents:
            assert all(talk.over for talk in world.talks), "nothing went wrong, so nobody waits for ever"
        for _ in range(2 * FOUND_OUT_BEATS):
            if not all(talk.over or talk.broken for talk in world.talks):
                world.beat()
        assert all(talk.over or talk.broken for talk in world.talks), "nor does anybody else whose stream is whole"
        agree_again(world)
        assert world.release()
        self._count_the_money()

    def _count_the_money(self) -> None:
        """What the payee can have and what the payer gets back are the deposit; and no voucher counts any more."""
        world = self.world
        world.die("provider")
        again = world.payee.release(PAYEE)
        assert again == world.provider_disk.released == world.client_disk.released
        assert 0 <= again.amount_nano <= world.provider_disk.authorised_nano
        with pytest.raises(ChannelUnusable):
            world.payee.accept(sign_claim(PAYER, VOUCHER_TAG, GLOBAL_ID, CHANNEL, DEPOSIT_NANO))

    def _talk(self, choice: int) -> Talk:
        return self.world.talks[choice % len(self.world.talks)]

    @invariant()
    def what_was_accepted_was_signed_and_saved_before(self) -> None:
        world = self.world
        assert world.provider_disk.authorised_nano <= world.payee.authorised_nano
        assert world.payee.authorised_nano <= world.client_disk.authorised_nano <= DEPOSIT_NANO

    @invariant()
    def each_incident_costs_at_most_what_may_be_owed(self) -> None:
        """The client: signed for and not received. The provider: handed over and not to be had from the chain."""
        world = self.world
        signed_nano = max(world.payer.authorised_nano, world.client_disk.authorised_nano)
        assert signed_nano - world.received_nano <= WINDOW_NANO * (1 + world.incidents)
        unpaid_nano = world.delivered_nano - world.payee.authorised_nano
        assert unpaid_nano <= world.limit_nano * (1 + world.incidents)

    @invariant()
    def what_the_payer_owes_fits(self) -> None:
        payee = self.world.payee
        assert payee.exposed_nano + payee.forgotten_nano(self.world.now) <= self.world.limit_nano

    @invariant()
    def nobody_blames_an_honest_peer(self) -> None:
        for error in self.world.failures:
            assert isinstance(error, Unavailable | PaymentError), repr(error)

    @invariant()
    def without_incidents_nothing_fails(self) -> None:
        assert not self.world.unprovoked


Street.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None, derandomize=True)
TestStreet = Street.TestCase


class WideStreet(Street):
    """The provider lets a payer owe more than one window where it has several answers under way."""

    def _new_world(self) -> SharedChannel:
        return SharedChannel(self.tally, exposure_max_nano=5 * WINDOW_NANO // 2)


WideStreet.TestCase.settings = settings(max_examples=50, stateful_step_count=40, deadline=None, derandomize=True)
TestWideStreet = WideStreet.TestCase
