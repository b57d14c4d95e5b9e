"""One channel, two ends, and a road between them that loses, repeats and reorders."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from itertools import product

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from chain.channel import MOVES, Lane, Move, Payee, Payer, State, require_acceptable
from chain.errors import BadVoucher, ChannelUnusable, InsufficientDeposit
from chain.keys import Ed25519Signer, verify
from chain.ledger import ChannelState, ChannelTerms
from chain.voucher import RELEASE_TAG, VOUCHER_TAG, Claim, claim_is_good, sign_claim

CHANNEL = bytes(range(32))
GLOBAL_ID = -239
PAYER = Ed25519Signer(b"v" * 32)
PAYEE = Ed25519Signer(b"r" * 32)
OTHER = Ed25519Signer(b"o" * 32)


def payer(deposited_nano: int = 100, delivered_nano: int = 0, authorised_nano: int = 0) -> Payer:
    return Payer(
        CHANNEL,
        GLOBAL_ID,
        PAYER,
        deposited_nano=deposited_nano,
        delivered_nano=delivered_nano,
        authorised_nano=authorised_nano,
    )


def payee(
    deposited_nano: int = 100, delivered_nano: int = 0, accepted: Claim | None = None, exposure_max_nano: int = 0
) -> Payee:
    return Payee(
        CHANNEL,
        GLOBAL_ID,
        PAYER.public_key,
        verify,
        deposited_nano=deposited_nano,
        delivered_nano=delivered_nano,
        accepted=accepted,
        exposure_max_nano=exposure_max_nano,
    )


def accept_and_save(end: Payee, claim: Claim) -> bool:
    """Whether it was news; then it is on disk as well."""
    news = end.accept(claim)
    if news:
        end.saved(authorised_nano=claim.amount_nano)
    return news


def voucher(amount_nano: int, *, signer: Ed25519Signer = PAYER, channel: bytes = CHANNEL) -> Claim:
    return sign_claim(signer, VOUCHER_TAG, GLOBAL_ID, channel, amount_nano)


# The table


@pytest.mark.parametrize(("state", "move"), list(product(State, Move)))
def test_every_move_is_in_the_table_or_refused(state: State, move: Move) -> None:
    for end in (payer(), payee()):
        end.state = state
        if (state, move) in MOVES:
            end.move(move)
            assert end.state is MOVES[state, move]
        else:
            with pytest.raises(ChannelUnusable, match=f"{state.name} cannot {move.name}"):
                end.move(move)
            assert end.state is state


def test_the_table_leads_only_onwards_and_always_to_the_end() -> None:
    order = list(State)
    assert all(order.index(begin) <= order.index(end) for (begin, _), end in MOVES.items())
    assert all(MOVES[state, Move.CLOSE] is State.CLOSED for state in State)


@pytest.mark.parametrize("state", [state for state in State if state is not State.OPEN])
def test_vouchers_are_for_open_channels(state: State) -> None:
    paying, paid = payer(), payee()
    paying.state = paid.state = state
    with pytest.raises(ChannelUnusable, match=state.name):
        paying.authorise(1)
    with pytest.raises(ChannelUnusable, match=state.name):
        paid.accept(voucher(1))


def test_a_channel_opens_with_its_deposit_and_a_stale_look_takes_nothing_back() -> None:
    end = payer(deposited_nano=0)
    assert end.state is State.UNFUNDED
    end.funded(100)
    assert (end.state, end.deposited_nano) == (State.OPEN, 100)
    end.funded(60)
    assert end.deposited_nano == 100
    end.funded(150)
    assert end.deposited_nano == 150


# Vouchers


def test_the_payer_signs_up_to_the_deposit_and_never_less_than_before() -> None:
    end = payer()
    assert end.authorise(40) == voucher(40)
    assert end.authorise(10) == voucher(40)
    with pytest.raises(InsufficientDeposit):
        end.authorise(101)
    assert end.authorised_nano == 40
    assert end.authorise(100) == voucher(100)


def test_the_payee_takes_what_is_higher_and_ignores_what_is_late() -> None:
    end = payee()
    assert accept_and_save(end, voucher(40))
    assert not end.accept(voucher(40))
    assert not end.accept(voucher(39))
    assert not end.accept(Claim(CHANNEL, -5, b"s" * 64))
    assert end.accepted == voucher(40)


def test_a_voucher_counts_from_when_it_is_on_disk() -> None:
    end = payee()
    end.enter(b"s").paid_nano = 40
    end.deliver(b"s", 30)
    assert end.accept(voucher(40))
    assert (end.unpaid_nano, end.exposed_nano, end.debt_nano, end.unsaved_nano) == (-10, 30, 30, 30)
    assert end.accept(voucher(40)), "it may come again, and again is to be saved"
    assert end.accept(voucher(35)), "so would a lower one be, which the disk has not seen either"
    assert end.accepted == voucher(40)
    end.saved(authorised_nano=35)
    assert (end.exposed_nano, end.unsaved_nano) == (0, 30)
    end.saved(authorised_nano=40, delivered_nano=30)
    assert (end.exposed_nano, end.debt_nano, end.unsaved_nano) == (0, 0, 0)
    assert not end.accept(voucher(40))


@pytest.mark.parametrize(
    "claim",
    [
        voucher(101),
        voucher(1 << 63),
        Claim(CHANNEL, 1 << 80, b"s" * 64),
        voucher(50, signer=OTHER),
        voucher(50, channel=bytes(32)),
        sign_claim(PAYER, RELEASE_TAG, GLOBAL_ID, CHANNEL, 50),
        sign_claim(PAYER, VOUCHER_TAG, GLOBAL_ID + 1, CHANNEL, 50),
        Claim(CHANNEL, 50, b""),
    ],
)
def test_a_bad_voucher_changes_nothing(claim: Claim) -> None:
    end = payee()
    end.accept(voucher(40))
    with pytest.raises(BadVoucher):
        end.accept(claim)
    assert end.accepted == voucher(40)


def test_unpaid_work_is_written_off_and_credit_is_kept() -> None:
    end = payee()
    end.enter(b"s")
    end.deliver(b"s", 30)
    assert end.unpaid_nano == 30
    assert end.write_off() == 30
    assert end.delivered_nano == 0
    end.accept(voucher(40))
    end.deliver(b"s", 10)
    assert end.unpaid_nano == -30
    assert end.write_off() == 0
    assert end.delivered_nano == 10


@pytest.mark.parametrize(
    ("authorised", "delivered", "settled", "amount"),
    [(50, 30, 0, 30), (30, 50, 0, 30), (50, 30, 40, 40), (0, 20, 0, 0)],
)
def test_a_release_is_for_what_was_delivered_and_paid_but_not_below_what_is_settled(
    authorised: int, delivered: int, settled: int, amount: int
) -> None:
    end = payee(delivered_nano=delivered, accepted=voucher(authorised) if authorised else None)
    end.settled_nano = settled
    release = end.release(PAYEE)
    assert release.amount_nano == amount
    assert claim_is_good(verify, PAYEE.public_key, RELEASE_TAG, GLOBAL_ID, release)
    assert end.release(PAYEE) == release, "asked again, the same"
    assert end.state is State.RELEASED


def test_a_channel_is_not_released_while_a_session_runs() -> None:
    end = payee(accepted=voucher(40))
    end.enter(b"s")
    with pytest.raises(ChannelUnusable, match="session"):
        end.release(PAYEE)
    assert end.state is State.OPEN
    end.leave(b"s", until=0)
    assert end.release(PAYEE).amount_nano == 0


# Several sessions


def test_a_session_that_dies_writes_off_its_own_work_and_not_anothers() -> None:
    end = payee()
    good, bad = end.enter(b"good"), end.enter(b"bad")
    assert good.shared
    assert bad.shared
    end.deliver(b"good", 20)
    end.deliver(b"bad", 30)
    end.accept(voucher(10))
    good.paid_nano = 10
    assert end.unpaid_nano == 40
    end.leave(b"bad", until=5)
    assert (end.delivered_nano, end.unpaid_nano, end.lost_nano) == (20, 10, 30)
    with pytest.raises(ChannelUnusable, match="already"):
        end.enter(b"good")


def test_a_session_lives_on_what_was_paid_for_it_and_not_on_what_was_paid_ahead_for_another() -> None:
    end = payee()
    end.enter(b"dead")
    end.enter(b"alive").paid_nano = 60
    accept_and_save(end, voucher(60))
    end.deliver(b"dead", 40)
    assert end.unpaid_nano == -20
    assert (end.exposed_nano, end.debt_nano) == (40, 40)
    end.leave(b"dead", until=5)
    assert (end.delivered_nano, end.exposed_nano, end.lost_nano) == (0, 0, 40)


def test_what_a_session_left_unpaid_takes_up_the_window_while_others_of_the_payer_may_be_dead_too() -> None:
    end, other = payee(), payee()
    end.kin = other.kin = [end, other]
    for session in (b"a", b"b"):
        end.enter(session)
    other.enter(b"c")
    end.deliver(b"a", 30)
    end.leave(b"a", until=25)
    assert (end.exposed_nano, end.debt_nano) == (0, 0), "it is not asked for any more"
    assert end.forgotten_nano(24.9) == other.forgotten_nano(24.9) == 30
    end.deliver(b"b", 20)
    end.leave(b"b", until=30)
    assert [other.forgotten_nano(now) for now in (24.9, 25, 30)] == [50, 20, 0]
    end.enter(b"d")
    end.deliver(b"d", 10)
    end.leave(b"d", until=40)
    other.leave(b"c", until=40)
    assert end.forgotten_nano(31) == 0, "no other is left"
    assert end.unsaved_lost == [end]
    end.saved(lost_nano=60)
    assert end.unsaved_lost == []


def test_what_a_crash_would_cost_is_counted_over_all_channels_of_the_payer() -> None:
    end, other = payee(), payee()
    end.kin = other.kin = [end, other]
    end.enter(b"a")
    other.enter(b"b")
    accept_and_save(end, voucher(50))
    end.deliver(b"a", 30)
    other.begin(b"b", 20)
    assert end.unsaved_nano == other.unsaved_nano == 50
    assert end.unsaved_earned == [end]
    end.saved(delivered_nano=30)
    assert (end.unsaved_nano, end.unsaved_earned) == (20, [])


def test_all_sessions_together_are_paid_one_window_ahead() -> None:
    end = payer(1000)
    for name in (b"a", b"b", b"c"):
        end.enter(name)
    assert end.pay(b"a", 60, 100).amount_nano == 60
    assert end.pay(b"b", 60, 100).amount_nano == 100
    assert end.pay(b"c", 60, 100).amount_nano == 100
    end.deliver(b"a", 60)
    assert end.pay(b"c", 60, 100).amount_nano == 160
    end.leave(b"b")
    assert end.pay(b"c", 60, 100).amount_nano == 160, "what is left of b's credit is consumed first"


def test_the_payer_pays_what_the_payee_waits_for_within_the_window_and_the_deposit() -> None:
    end = payer(1000)
    end.enter(b"a")
    end.deliver(b"a", 50)
    end.asked_for(120)
    assert end.owed_nano(100) == 120
    assert end.pay(b"a", 0, 100).amount_nano == 120
    end.asked_for(1 << 60)
    assert end.pay(b"a", 0, 100).amount_nano == 150
    end.deliver(b"a", 930)
    assert end.pay(b"a", 0, 100).amount_nano == 1000
    end.leave(b"a")
    end.enter(b"b")
    assert end.owed_nano(100) < 0, "a session that comes alone begins anew"


def open_lanes(end: Payee, *sessions: bytes, window_nano: int = 100) -> None:
    for session in sessions:
        end.enter(session).window_nano = window_nano


@pytest.mark.parametrize(
    ("exposure_max_nano", "sessions", "window_nano"),
    [
        pytest.param(0, 1, 100, id="one"),
        pytest.param(0, 3, 100, id="no more than one for all"),
        pytest.param(1000, 0, 0, id="nobody"),
        pytest.param(1000, 3, 300, id="one each"),
        pytest.param(250, 3, 250, id="up to the limit"),
    ],
)
def test_what_a_payer_may_owe_grows_with_its_sessions(exposure_max_nano: int, sessions: int, window_nano: int) -> None:
    end = payee(exposure_max_nano=exposure_max_nano)
    open_lanes(end, *(bytes([number]) for number in range(sessions)))
    assert end.window_nano == window_nano


def test_what_a_payer_may_owe_is_for_all_its_channels_and_the_dead_keep_their_part_for_a_while() -> None:
    end, other = payee(exposure_max_nano=1000), payee(exposure_max_nano=1000)
    end.kin = other.kin = [end, other]
    open_lanes(end, b"a", b"b")
    open_lanes(other, b"c", window_nano=50)
    assert end.window_nano == other.window_nano == 250
    end.deliver(b"a", 90)
    end.leave(b"a", until=25)
    assert (end.window_nano, end.forgotten_nano(24)) == (250, 90)
    assert end.room_nano(b"b", 24, 1) == 100, "its own"
    other.deliver(b"c", 140)
    assert end.room_nano(b"b", 25, 1) == 10, "what is over is in neither"
    assert (end.forgotten_nano(25), end.window_nano) == (0, 150)


def test_while_another_waits_nobody_gets_beyond_its_share() -> None:
    end = payee()
    open_lanes(end, b"a", b"b")
    end.deliver(b"a", 60)
    assert end.room_nano(b"a", 0, 1) == 40, "nobody else wants any"
    end.lanes[b"b"].waits = True
    assert end.room_nano(b"a", 0, 1) == -10
    assert end.room_nano(b"b", 0, 1) == 40, "as much as there is, or its share, if that is less"
    end.deliver(b"b", 30)
    end.lanes[b"b"].waits, end.lanes[b"a"].waits = False, True
    assert end.room_nano(b"b", 0, 1) == 10


def test_a_share_is_one_token_at_least() -> None:
    end = payee()
    open_lanes(end, *(bytes([number]) for number in range(30)))
    for lane in end.lanes.values():
        lane.waits = True
    assert end.room_nano(b"\0", 0, 7) == 7
    end.deliver(b"\0", 7)
    assert end.room_nano(b"\0", 0, 7) == 0


def test_work_under_way_counts_and_so_does_debt_on_the_payers_other_channels() -> None:
    end, other = payee(), payee()
    end.kin = other.kin = [end, other]
    end.enter(b"a")
    other.enter(b"b")
    end.begin(b"a", 30)
    assert (end.exposed_nano, end.debt_nano) == (30, 0)
    assert (other.exposed_nano, other.debt_nano) == (30, 0)
    end.deliver(b"a", 25)
    assert (end.exposed_nano, end.debt_nano) == (25, 25)
    assert (other.exposed_nano, other.debt_nano) == (25, 25)
    accept_and_save(other, voucher(40))
    assert (end.exposed_nano, other.exposed_nano) == (25, 25), "credit pays on its own channel only"


# What a payee looks at first

TERMS = ChannelTerms(
    payer="0:" + "1" * 64,
    payee="0:" + "2" * 64,
    payer_key=PAYER.public_key,
    payee_key=PAYEE.public_key,
    challenge_period_s=3600,
    open_before=2000,
    salt=b"s" * 32,
)
ON_CHAIN = ChannelState(terms=TERMS, deposited_nano=100, settled_nano=0, close_at=0, balance_nano=100)


def look(state: ChannelState) -> None:
    require_acceptable(
        state,
        payee=TERMS.payee,
        payee_key=PAYEE.public_key,
        payer_key=PAYER.public_key,
        deposit_min_nano=100,
        challenge_period_min_s=3600,
    )


def test_a_channel_with_our_terms_is_served() -> None:
    look(ON_CHAIN)
    look(msgspec.structs.replace(ON_CHAIN, deposited_nano=101))
    look(msgspec.structs.replace(ON_CHAIN, terms=msgspec.structs.replace(TERMS, challenge_period_s=3601)))


@pytest.mark.parametrize(
    ("terms", "state", "fault"),
    [
        ({"payee": TERMS.payer}, {}, "another wallet"),
        ({"payee_key": OTHER.public_key}, {}, "another payee key"),
        ({"payer_key": OTHER.public_key}, {}, "another payer key"),
        ({"challenge_period_s": 3599}, {}, "too short"),
        ({}, {"deposited_nano": 99}, "too small"),
        ({}, {"close_at": 1}, "closing"),
    ],
)
def test_a_channel_with_other_terms_is_not(terms: dict[str, object], state: dict[str, object], fault: str) -> None:
    changed = msgspec.structs.replace(ON_CHAIN, terms=msgspec.structs.replace(TERMS, **terms), **state)
    with pytest.raises(ChannelUnusable, match=fault):
        look(changed)


# Everything at once


@dataclass
class Disk:
    """What both ends persisted, as the book keeps it."""

    payer_authorised: int = 0
    payer_delivered: int = 0
    payee_accepted: Claim | None = None
    payee_delivered: int = 0
    payer_state: State = State.OPEN
    payee_state: State = State.OPEN


class Road(RuleBasedStateMachine):
    """Vouchers are lost, repeated and reordered, and both ends crash between any two steps."""

    def __init__(self) -> None:
        super().__init__()
        self.deposit = 1000
        self.disk = Disk()
        self.road: list[Claim] = []
        self.highest_sent = self.highest_accepted = 0
        self.released: Claim | None = None
        self.payer, self.payee = payer(self.deposit), payee(self.deposit)

    @rule(more=st.integers(0, 300))
    def authorise(self, more: int) -> None:
        total = self.payer.authorised_nano + more
        if self.payer.state is not State.OPEN:
            with pytest.raises(ChannelUnusable):
                self.payer.authorise(total)
        elif total > self.deposit:
            with pytest.raises(InsufficientDeposit):
                self.payer.authorise(total)
        else:
            claim = self.payer.authorise(total)
            self.disk.payer_authorised = claim.amount_nano
            self.road.append(claim)
            self.highest_sent = max(self.highest_sent, claim.amount_nano)

    @precondition(lambda self: self.road)
    @rule(data=st.data(), keep=st.booleans())
    def arrive(self, data: st.DataObject, keep: bool) -> None:
        place = data.draw(st.integers(0, len(self.road) - 1))
        claim = self.road[place] if keep else self.road.pop(place)
        if self.payee.state is not State.OPEN:
            with pytest.raises(ChannelUnusable):
                self.payee.accept(claim)
            return
        news = accept_and_save(self.payee, claim)
        assert news == (claim.amount_nano > self.highest_accepted)
        if news:
            self.disk.payee_accepted = claim
            self.highest_accepted = claim.amount_nano

    @precondition(lambda self: self.road)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        self.road.pop(data.draw(st.integers(0, len(self.road) - 1)))

    @rule(amount=st.integers(-5, 1 << 70), signer=st.sampled_from([PAYER, PAYEE, OTHER]))
    def forge(self, amount: int, signer: Ed25519Signer) -> None:
        """A signature over another amount, or by another key: never taken."""
        with suppress(BadVoucher, ChannelUnusable):
            assert not self.payee.accept(Claim(CHANNEL, amount, voucher(1 << 60, signer=signer).signature))

    @rule(nano=st.integers(0, 200))
    def work(self, nano: int) -> None:
        if self.payee.state is State.OPEN:
            self.payee.lanes.setdefault(b"s", Lane())
            self.payee.deliver(b"s", nano)
            self.disk.payee_delivered = self.payee.delivered_nano

    @rule()
    def write_off(self) -> None:
        unpaid, delivered = self.payee.unpaid_nano, self.payee.delivered_nano
        assert self.payee.write_off() == delivered - self.payee.delivered_nano == max(0, unpaid)
        assert self.payee.unpaid_nano <= 0
        self.disk.payee_delivered = self.payee.delivered_nano

    @precondition(lambda self: self.payee.state is State.OPEN)
    @rule(more=st.integers(1, 500))
    def top_up(self, more: int) -> None:
        self.deposit += more
        self.payee.funded(self.deposit)
        if self.payer.state is State.OPEN:
            self.payer.funded(self.deposit)

    @precondition(lambda self: self.payee.state in {State.OPEN, State.RELEASED})
    @rule()
    def release(self) -> None:
        self.payee.leave(b"s", until=0)
        claim = self.payee.release(PAYEE)
        self.disk.payee_state = self.payee.state
        assert self.released in (None, claim), "there is one release, whatever comes after"
        self.released = claim

    @rule()
    def restart_payer(self) -> None:
        self.payer = payer(self.deposit, self.disk.payer_delivered, self.disk.payer_authorised)
        self.payer.state = self.disk.payer_state

    @rule()
    def restart_payee(self) -> None:
        self.payee = payee(self.deposit, self.disk.payee_delivered, self.disk.payee_accepted)
        self.payee.state = self.disk.payee_state
        self.payee.released_nano = self.released.amount_nano if self.released else None

    @invariant()
    def nothing_above_the_deposit_and_nothing_goes_down(self) -> None:
        assert self.highest_accepted == self.payee.authorised_nano <= self.highest_sent <= self.deposit
        assert self.payer.authorised_nano == self.highest_sent

    @invariant()
    def a_released_channel_takes_no_voucher(self) -> None:
        if self.released is not None:
            assert self.payee.state is State.RELEASED
            assert self.released.amount_nano <= self.payee.authorised_nano


Road.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestRoad = Road.TestCase
