"""A channel at the provider: who may use it, and when it is closed; real signatures, no chain and no clock."""

from __future__ import annotations

import pytest
from back_to_back import CHANNEL, GLOBAL_ID, PAYER

from chain.channel import Payee, State
from chain.errors import ChannelUnusable
from chain.keys import verify
from chain.ledger import ChannelState, ChannelTerms
from chain.voucher import VOUCHER_TAG, Claim, sign_claim
from p2p.errors import Refused
from p2p.protocol.incoming import LOST_PART, Incoming, is_forgotten
from p2p.protocol.session import SESSIONS_PER_CHANNEL_MAX

DEPOSIT = 10_000
WAIT_S = 100


def incoming(*, retired_at: float | None = None) -> Incoming:
    payee = Payee(CHANNEL, GLOBAL_ID, PAYER.public_key, verify, deposited_nano=DEPOSIT)
    return Incoming(payee, "client", retired_at=retired_at)


def voucher(nano: int) -> Claim:
    return sign_claim(PAYER, VOUCHER_TAG, GLOBAL_ID, CHANNEL, nano)


def shown(*, deposited: int = DEPOSIT, settled: int = 0, close_at: int = 0) -> ChannelState:
    terms = ChannelTerms(
        payer="0:0",
        payee="0:1",
        payer_key=PAYER.public_key,
        payee_key=bytes(32),
        challenge_period_s=3600,
        open_before=0,
        salt=bytes(32),
    )
    return ChannelState(
        terms=terms, deposited_nano=deposited, settled_nano=settled, close_at=close_at, balance_nano=deposited
    )


def test_so_many_answers_at_a_time_and_none_while_it_ends() -> None:
    one = incoming()
    for _ in range(SESSIONS_PER_CHANNEL_MAX):
        one.enter()
    with pytest.raises(Refused, match="as many answers as it may"):
        one.enter()
    with pytest.raises(Refused, match="still being paid"):
        one.require_idle()
    for _ in range(SESSIONS_PER_CHANNEL_MAX):
        one.leave()
    one.require_idle()
    one.ending = True
    with pytest.raises(Refused):
        one.enter()
    with pytest.raises(Refused):
        one.require_idle()


def test_it_follows_the_chain() -> None:
    one = incoming()
    one.follow(shown(deposited=DEPOSIT + 5, settled=7))
    assert (one.payee.deposited_nano, one.payee.settled_nano) == (DEPOSIT + 5, 7)
    assert one.payee.accepted == Claim(CHANNEL, 7, b""), "somebody carried a voucher that we do not have"
    one.follow(shown(close_at=1))
    one.follow(shown(close_at=1))
    assert one.payee.state is State.CLOSING
    with pytest.raises(ChannelUnusable, match="closing"):
        one.require_usable()


def test_who_leaves_too_much_unpaid_is_served_no_more() -> None:
    one = incoming()
    one.payee.lost_nano = DEPOSIT // LOST_PART
    one.require_usable()
    one.payee.lost_nano += 1
    with pytest.raises(ChannelUnusable, match="without paying"):
        one.require_usable()


def test_a_retired_one_is_never_served_over() -> None:
    with pytest.raises(Refused) as caught:
        incoming(retired_at=0).require_usable()
    assert caught.value.reason == "channel_retired"


def test_a_retired_one_is_closed_when_the_wait_is_over_or_no_higher_voucher_can_come() -> None:
    one = incoming(retired_at=1000)
    one.payee.accept(voucher(500))
    assert not one.is_to_be_closed(1000 + WAIT_S - 1, WAIT_S)
    assert one.is_to_be_closed(1000 + WAIT_S, WAIT_S)
    one.shown = True
    assert one.is_to_be_closed(1000, WAIT_S)
    used_up = incoming(retired_at=1000)
    used_up.payee.accept(voucher(DEPOSIT))
    assert used_up.is_to_be_closed(1000, WAIT_S)
    assert used_up.standing().retired


@pytest.mark.parametrize("state", [state for state in State if state not in {State.OPEN, State.CLOSING}])
def test_one_that_is_released_or_gone_is_not_ours_to_close(state: State) -> None:
    one = incoming(retired_at=0)
    one.payee.state = state
    assert not one.is_to_be_closed(WAIT_S, WAIT_S)


def test_one_that_is_in_use_or_about_to_be_released_is_not_closed() -> None:
    assert not incoming().is_to_be_closed(1 << 40, WAIT_S)
    one = incoming(retired_at=0)
    one.ending = True
    assert not one.is_to_be_closed(1 << 40, WAIT_S)


def test_a_first_voucher_is_within_a_window_of_what_was_settled() -> None:
    assert not is_forgotten(20, settled_nano=0, window_nano=20)
    assert is_forgotten(21, settled_nano=0, window_nano=20)
    assert not is_forgotten(1020, settled_nano=1000, window_nano=20)
    assert is_forgotten(1021, settled_nano=1000, window_nano=20)
