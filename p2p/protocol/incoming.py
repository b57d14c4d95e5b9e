"""Core: a channel that pays a provider: whether it may be used, by how many answers at once, and what is due on it."""

from __future__ import annotations

from chain.channel import Move, Payee, State, require_acceptable
from chain.errors import ChannelUnusable
from chain.ledger import ChannelState
from chain.settling import Standing
from chain.voucher import Claim
from p2p.errors import Refused
from p2p.protocol.advert import ChannelOffer
from p2p.protocol.session import SESSIONS_PER_CHANNEL_MAX

BUSY_RETRY_S = 1
# A hundredth of deposit and payments may be left unpaid by sessions that die, one window at a time. It is less than a
# channel costs, so that nobody lives on windows.
LOST_PART = 100


def require_suitable(state: ChannelState, offer: ChannelOffer, payer_key: bytes) -> None:
    """Whether the chain shows a channel on the terms that we advertise. Raises `ChannelUnusable`."""
    require_acceptable(
        state,
        payee=offer.payee,
        payee_key=offer.payee_key,
        payer_key=payer_key,
        deposit_min_nano=offer.deposit_min_nano,
        challenge_period_min_s=offer.challenge_period_s,
    )


class Incoming:
    """A channel of one client, for as long as it is on chain."""

    def __init__(self, payee: Payee, client: str, *, restored: bool = False) -> None:
        self.payee = payee
        self.client = client
        self.restored = restored  # of a book from a backup, which forgot what was delivered or released since
        self.seen: ChannelState | None = None  # what the chain said last, for when it says nothing
        self.releasing = False
        self._sessions = 0

    @property
    def channel(self) -> bytes:
        return self.payee.channel

    def follow(self, state: ChannelState) -> None:
        """The chain shows it so now."""
        self.seen = state
        payee = self.payee
        note_settled(payee, state.settled_nano)
        if state.close_at and payee.state is not State.CLOSING:
            payee.move(Move.START_CLOSE)
        if payee.state in {State.UNFUNDED, State.OPEN}:
            payee.funded(state.deposited_nano)

    def require_usable(self) -> None:
        """Whether more may be earned on it. Raises `ChannelUnusable`."""
        payee = self.payee
        if payee.state is not State.OPEN:
            raise ChannelUnusable(f"the channel is {payee.state.name.lower()}")
        if payee.lost_nano * LOST_PART > payee.deposited_nano + payee.authorised_nano:
            raise ChannelUnusable("too many sessions on the channel ended without paying")

    def enter(self) -> None:
        """One more answer is to be paid through it, until `leave`. Raises `Refused`."""
        if self.releasing or self._sessions >= SESSIONS_PER_CHANNEL_MAX:
            raise Refused(
                "channel_busy",
                "the channel is closing, or carries as many answers as it may",
                retry_after_s=BUSY_RETRY_S,
            )
        self._sessions += 1

    def leave(self) -> None:
        """That answer has ended."""
        self._sessions -= 1

    def require_idle(self) -> None:
        """Whether it may be released. Raises `Refused`."""
        if self.releasing or self._sessions:
            raise Refused(
                "channel_busy", "an answer is still being paid through the channel", retry_after_s=BUSY_RETRY_S
            )

    def standing(self, unsettled_for_s: float = 0.0) -> Standing:
        """What there is to be settled."""
        return Standing(
            authorised_nano=self.payee.authorised_nano,
            settled_nano=self.payee.settled_nano,
            deposited_nano=self.payee.deposited_nano,
            closing=self.payee.state is State.CLOSING,
            unsettled_for_s=unsettled_for_s,
        )


def note_settled(payee: Payee, settled_nano: int) -> None:
    """The chain has paid out so much.

    Where that is more than we know of (our book was lost, or somebody else carried a voucher), at least so much was
    authorised, and it pays for nothing new. The voucher itself is on chain; there is nothing more to do with it.
    """
    payee.settled_nano = max(payee.settled_nano, settled_nano)
    if payee.authorised_nano < settled_nano:
        payee.accepted = Claim(payee.channel, settled_nano, b"")
        payee.delivered_nano = max(payee.delivered_nano, settled_nano)
