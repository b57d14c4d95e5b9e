"""Core: one payment channel as each of its two ends sees it.

A channel carries one growing number from payer to payee. Three amounts stay apart: *authorised* (the highest voucher
signed), *delivered* (the value of the work handed over) and *settled* (what the chain has paid out). The channel owns
them, not the sessions that run on it. Nothing here reads a clock, a disk or a chain: the caller persists what a method
returns before it acts on it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from chain.errors import BadVoucher, ChannelUnusable, InsufficientDeposit
from chain.ledger import ChannelState
from chain.voucher import RELEASE_TAG, VOUCHER_TAG, Claim, Signer, Verifier, claim_is_good, sign_claim


class State(Enum):
    """Where a channel stands."""

    UNFUNDED = auto()  # its terms are known, its deposit is not confirmed
    OPEN = auto()
    RELEASED = auto()  # the payee signed a release: no voucher counts any more
    CLOSING = auto()  # the payer started the challenge period: settle, serve nothing
    CLOSED = auto()


class Move(Enum):
    """What moves a channel from one state to another."""

    FUND = auto()  # a deposit or top-up is confirmed on chain
    RELEASE = auto()
    START_CLOSE = auto()
    CLOSE = auto()  # the account is gone


MOVES: dict[tuple[State, Move], State] = {
    (State.UNFUNDED, Move.FUND): State.OPEN,
    (State.UNFUNDED, Move.CLOSE): State.CLOSED,
    (State.OPEN, Move.FUND): State.OPEN,
    (State.OPEN, Move.RELEASE): State.RELEASED,
    (State.OPEN, Move.START_CLOSE): State.CLOSING,
    (State.OPEN, Move.CLOSE): State.CLOSED,
    (State.RELEASED, Move.RELEASE): State.RELEASED,
    (State.RELEASED, Move.START_CLOSE): State.CLOSING,
    (State.RELEASED, Move.CLOSE): State.CLOSED,
    (State.CLOSING, Move.RELEASE): State.CLOSING,
    (State.CLOSING, Move.CLOSE): State.CLOSED,
    (State.CLOSED, Move.CLOSE): State.CLOSED,
}


def require_acceptable(
    state: ChannelState,
    *,
    payee: str,
    payee_key: bytes,
    payer_key: bytes,
    deposit_min_nano: int,
    challenge_period_min_s: int,
) -> None:
    """What a payee looks at in proven account state before it serves over a channel. Raises `ChannelUnusable`."""
    terms = state.terms
    faults = {
        "it pays another wallet": terms.payee != payee,
        "it names another payee key": terms.payee_key != payee_key,
        "it names another payer key": terms.payer_key != payer_key,
        "its challenge period is too short": terms.challenge_period_s < challenge_period_min_s,
        "its deposit is too small": state.deposited_nano < deposit_min_nano,
        "it is closing": state.close_at != 0,
    }
    for fault, found in faults.items():
        if found:
            raise ChannelUnusable(fault)


@dataclass(slots=True, eq=False)
class Lane:
    """One session's part of a channel. What is paid is fungible; a lane remembers what it was paid for."""

    delivered_nano: int = 0
    paid_nano: int = 0  # authorised for this session, what it is ahead included
    begun_nano: int = 0  # payee: work under way, not handed over yet
    window_nano: int = 0  # payee: what its quote lets it owe
    waits: bool = False  # payee: for room in the window
    shared: bool = False  # another session ran on the channel meanwhile, so totals may be out of step

    @property
    def unpaid_nano(self) -> int:
        return max(0, self.delivered_nano - self.paid_nano)

    @property
    def ahead_nano(self) -> int:
        return max(0, self.paid_nano - self.delivered_nano)


class Forgotten(NamedTuple):
    """What a session that died owed, and the window that it had: both count for a while yet."""

    until: float
    owed_nano: int
    window_nano: int


class _End(ABC):
    """What payer and payee have in common: the amounts, the lanes and the moves."""

    def __init__(self, channel: bytes, global_id: int, *, deposited_nano: int, delivered_nano: int) -> None:
        self.channel = channel
        self.global_id = global_id
        self.deposited_nano = deposited_nano
        self.delivered_nano = delivered_nano
        self.settled_nano = 0
        self.state = State.OPEN if deposited_nano else State.UNFUNDED
        self.lanes: dict[bytes, Lane] = {}

    @property
    @abstractmethod
    def authorised_nano(self) -> int:
        """The highest voucher so far."""

    @property
    def unpaid_nano(self) -> int:
        """Delivered and not authorised; negative while there is credit."""
        return self.delivered_nano - self.authorised_nano

    def move(self, move: Move) -> None:
        """Follow the table. Raises `ChannelUnusable` for a move that the state does not have."""
        try:
            self.state = MOVES[self.state, move]
        except KeyError:
            raise ChannelUnusable(f"a channel that is {self.state.name} cannot {move.name}") from None

    def funded(self, deposited_nano: int) -> None:
        """The chain confirms that the channel holds this much in all."""
        self.move(Move.FUND)
        self.deposited_nano = max(self.deposited_nano, deposited_nano)

    def enter(self, session: bytes) -> Lane:
        """A session begins on this channel. Raises `ChannelUnusable` if it runs already."""
        if session in self.lanes:
            raise ChannelUnusable("that session runs on the channel already")
        lane = self.lanes[session] = Lane()
        if len(self.lanes) > 1:
            for each in self.lanes.values():
                each.shared = True
        return lane

    def deliver(self, session: bytes, nano: int) -> None:
        """Work worth `nano` was handed over in a session."""
        assert nano >= 0
        lane = self.lanes[session]
        lane.delivered_nano += nano
        lane.begun_nano = 0
        self.delivered_nano += nano

    def write_off(self, most_nano: int | None = None) -> int:
        """Forget unpaid work, all of it or at most so much; returns how much. Credit is kept."""
        lost = max(0, self.unpaid_nano)
        if most_nano is not None:
            lost = min(lost, most_nano)
        self.delivered_nano -= lost
        return lost

    def agree_on(self, delivered_nano: int) -> None:
        """No session runs but one that just began: both ends go on from this total."""
        self.delivered_nano = delivered_nano

    def _require_open(self) -> None:
        if self.state is not State.OPEN:
            raise ChannelUnusable(f"the channel is {self.state.name}")


class Payer(_End):
    """The client's end: signs vouchers, each for more than the one before."""

    def __init__(
        self,
        channel: bytes,
        global_id: int,
        signer: Signer,
        *,
        deposited_nano: int = 0,
        delivered_nano: int = 0,
        authorised_nano: int = 0,
    ) -> None:
        super().__init__(channel, global_id, deposited_nano=deposited_nano, delivered_nano=delivered_nano)
        self._signer = signer
        self._authorised_nano = authorised_nano
        self._due_nano = 0  # the total that the payee says it waits for

    @property
    def authorised_nano(self) -> int:
        return self._authorised_nano

    def enter(self, session: bytes) -> Lane:
        if not self.lanes:
            self._due_nano = 0
        return super().enter(session)

    def leave(self, session: bytes) -> None:
        """A session is over: forget the unpaid work of one that died. Credit is kept."""
        self.write_off(self.lanes.pop(session, Lane()).unpaid_nano)

    def asked_for(self, total_nano: int) -> None:
        """The payee waits until it is authorised this much. It may count frames that were lost on the way to us."""
        self._due_nano = max(self._due_nano, total_nano)

    def owed_nano(self, window_nano: int) -> int:
        """What is to be authorised now: all that was delivered, and what was asked for within the window."""
        return max(self.delivered_nano, self._asked_nano(window_nano)) - self._authorised_nano

    def pay(self, session: bytes, ahead_nano: int, window_nano: int) -> Claim:
        """A voucher for all that was delivered, what was asked for and, for this session, `ahead_nano` more.

        All sessions together are paid at most `window_nano` ahead. Persist it, then send it. Raises as `authorise`.
        """
        lane = self.lanes[session]
        others_nano = sum(each.ahead_nano for each in self.lanes.values() if each is not lane)
        ahead_nano = max(0, min(ahead_nano, window_nano - others_nano))
        claim = self.authorise(max(self.delivered_nano + others_nano + ahead_nano, self._asked_nano(window_nano)))
        for each in self.lanes.values():
            each.paid_nano = max(each.paid_nano, each.delivered_nano)
        lane.paid_nano = max(lane.paid_nano, lane.delivered_nano + ahead_nano)
        return claim

    def _asked_nano(self, window_nano: int) -> int:
        return min(self._due_nano, self.delivered_nano + window_nano, self.deposited_nano)

    def authorise(self, total_nano: int) -> Claim:
        """A voucher for `total_nano` in all, never less than an earlier one. Persist it, then send it.

        Raises `InsufficientDeposit` or `ChannelUnusable`.
        """
        self._require_open()
        total_nano = max(total_nano, self._authorised_nano)
        if total_nano > self.deposited_nano:
            raise InsufficientDeposit(f"{total_nano} nano wanted of a deposit of {self.deposited_nano}")
        self._authorised_nano = total_nano
        return sign_claim(self._signer, VOUCHER_TAG, self.global_id, self.channel, total_nano)


class Payee(_End):
    """The provider's end: keeps the highest voucher and knows what of it is not yet on chain."""

    def __init__(
        self,
        channel: bytes,
        global_id: int,
        payer_key: bytes,
        verify: Verifier,
        *,
        deposited_nano: int = 0,
        delivered_nano: int = 0,
        accepted: Claim | None = None,
        lost_nano: int = 0,
        exposure_max_nano: int = 0,
    ) -> None:
        """`exposure_max_nano` is what all sessions of the payer may owe together, if that is more than one window."""
        super().__init__(channel, global_id, deposited_nano=deposited_nano, delivered_nano=delivered_nano)
        self._exposure_max_nano = exposure_max_nano
        self._payer_key = payer_key
        self._verify = verify
        self.accepted = accepted
        self.released_nano: int | None = None  # there is one release, however often it is asked for
        self.lost_nano = lost_nano  # what sessions that died left unpaid
        self._saved_lost_nano = lost_nano
        self._forgotten: list[Forgotten] = []
        self._saved_authorised_nano = self.authorised_nano
        self._saved_delivered_nano = delivered_nano
        self.kin: list[Payee] = [self]  # all channels of this payer: what they may owe is shared

    @property
    def authorised_nano(self) -> int:
        return self.accepted.amount_nano if self.accepted else 0

    @property
    def earned_nano(self) -> int:
        """Delivered and paid for. What is delivered beyond it need not be saved: a restart writes it off."""
        return min(self.delivered_nano, self.authorised_nano)

    @property
    def debt_nano(self) -> int:
        """What the payer owes us. Credit on one channel pays for nothing on another."""
        return sum(each._owed_nano() for each in self.kin)

    @property
    def exposed_nano(self) -> int:
        """What the payer would owe us once all that is under way for it is handed over.

        A voucher counts from when it is on disk: a crash before that would lose it, and what was served for it.
        """
        return sum(each._owed_nano(begun=True) for each in self.kin)

    def _owed_nano(self, *, begun: bool = False) -> int:
        """By the channel's totals, or by the lanes if that is more: a session lives on what was paid for it.

        Else one that is dead, and has not been found out yet, would use up what was paid ahead for another.
        """
        work = {lane: lane.delivered_nano + (lane.begun_nano if begun else 0) for lane in self.lanes.values()}
        by_lanes = sum(max(0, nano - lane.paid_nano) for lane, nano in work.items())
        return max(by_lanes, self.delivered_nano - self._saved_authorised_nano + (self._begun_nano if begun else 0))

    @property
    def under_way_nano(self) -> int:
        """The worth of the work that is under way for the payer, paid or not: a crash would lose it."""
        return sum(each._begun_nano for each in self.kin)

    @property
    def unsaved_nano(self) -> int:
        """What a crash would cost us with this payer: handed over or under way, and not on disk as earned."""
        work = ((each, each.delivered_nano + each._begun_nano) for each in self.kin)
        return sum(max(0, nano - each._saved_earned_nano) for each, nano in work)

    @property
    def unsaved_earned(self) -> list[Payee]:
        """The payer's channels on which something is earned that is not on disk."""
        return [each for each in self.kin if each.earned_nano > each._saved_earned_nano]

    @property
    def unsaved_lost(self) -> list[Payee]:
        """The payer's channels on which something is lost that is not on disk."""
        return [each for each in self.kin if each.lost_nano > each._saved_lost_nano]

    @property
    def _saved_earned_nano(self) -> int:
        return min(self._saved_delivered_nano, self._saved_authorised_nano)

    @property
    def _begun_nano(self) -> int:
        return sum(lane.begun_nano for lane in self.lanes.values())

    def saved(self, *, authorised_nano: int = 0, delivered_nano: int = 0, lost_nano: int = 0) -> None:
        """These totals are on disk now, or on chain."""
        self._saved_authorised_nano = max(self._saved_authorised_nano, authorised_nano)
        self._saved_delivered_nano = max(self._saved_delivered_nano, delivered_nano)
        self._saved_lost_nano = max(self._saved_lost_nano, lost_nano)

    def leave(self, session: bytes, until: float) -> None:
        """A session is over: forget the unpaid work of one that died.

        Until then it takes up the window all the same, or until no session of the payer is left: any of them may be
        dead as well, and must not be given more because one is known to be.
        """
        lane = self.lanes.pop(session, Lane())
        lost = lane.unpaid_nano
        self.delivered_nano -= lost
        self.lost_nano += lost
        if lost:
            self._forgotten.append(Forgotten(until, lost, lane.window_nano))
        if not self._all_lanes:
            for each in self.kin:
                each._forgotten.clear()

    def forgotten_nano(self, now: float) -> int:
        """What takes up the payer's window although it is forgotten."""
        for each in self.kin:
            if each._forgotten:
                each._forgotten = [one for one in each._forgotten if now < one.until]
        return sum(one.owed_nano for each in self.kin for one in each._forgotten)

    @property
    def window_nano(self) -> int:
        """What the payer may owe us: a window for each of its sessions up to the limit, and one in any case."""
        windows = [lane.window_nano for lane in self._all_lanes]
        windows += [one.window_nano for each in self.kin for one in each._forgotten]
        return max(*windows, min(self._exposure_max_nano, sum(windows)), 0)

    @property
    def _all_lanes(self) -> list[Lane]:
        """Of the payer's sessions on any channel."""
        return [lane for each in self.kin for lane in each.lanes.values()]

    def room_nano(self, session: bytes, now: float, least_nano: int) -> int:
        """So much more may be handed over in this session before it is paid: up to its own window.

        While another one waits, nobody gets beyond its share, which is `least_nano` at least: else whoever is at work
        would take up again and again what becomes free.
        """
        taken_nano = self.forgotten_nano(now) + self.exposed_nano  # first: what it drops is not in the window any more
        window_nano, lanes, mine = self.window_nano, self._all_lanes, self.lanes[session]
        most_nano = mine.window_nano
        if any(lane.waits for lane in lanes if lane is not mine):
            most_nano = min(most_nano, max(window_nano // len(lanes), least_nano))
        return min(window_nano - taken_nano, most_nano - (mine.delivered_nano + mine.begun_nano - mine.paid_nano))

    def agree_on(self, delivered_nano: int) -> None:
        self.lost_nano += max(0, self.delivered_nano - delivered_nano)
        super().agree_on(delivered_nano)

    def begin(self, session: bytes, nano: int) -> None:
        """Work worth `nano` is taken up in a session; `deliver` ends it."""
        self.lanes[session].begun_nano = nano

    def accept(self, claim: Claim) -> bool:
        """Take a voucher: True if it is higher than what is on disk (persist it), False if it came late.

        Raises `BadVoucher`, or `ChannelUnusable` when the channel takes no more vouchers.
        """
        self._require_open()
        if claim.channel != self.channel:
            raise BadVoucher("for another channel")
        if claim.amount_nano > self.deposited_nano:
            raise BadVoucher(f"{claim.amount_nano} nano of a deposit of {self.deposited_nano}")
        if claim.amount_nano <= self._saved_authorised_nano:
            return False
        if not claim_is_good(self._verify, self._payer_key, VOUCHER_TAG, self.global_id, claim):
            raise BadVoucher("the signature is not the payer's")
        if claim.amount_nano > self.authorised_nano:
            self.accepted = claim
        return True

    def release(self, signer: Signer) -> Claim:
        """Let the payer close at what was delivered, so that credit goes back. Persist it before it is sent.

        Asked again it gives the same. Raises `ChannelUnusable` while a session runs.
        """
        if self.lanes:
            raise ChannelUnusable("a session runs on the channel")
        self.move(Move.RELEASE)
        if self.released_nano is None:
            self.released_nano = max(self.settled_nano, min(self.authorised_nano, self.delivered_nano))
        return sign_claim(signer, RELEASE_TAG, self.global_id, self.channel, self.released_nano)
