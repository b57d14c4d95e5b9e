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

    def __init__(self, payee: Payee, client: str, *, retired_at: float | None = None) -> None:
        """`retired_at`, unix seconds, is since when our book of it is known to be incomplete.

        That is, a backup was brought back. What the client has signed meanwhile, and what was delivered for it, may not
        be in there, so the channel carries no more answers. It is settled and closed, and what is in vouchers that we
        are not shown before is lost to us.
        """
        self.payee = payee
        self.client = client
        self.retired_at = retired_at
        self.shown = False  # the client has come since then with a voucher: an honest one's are ever higher
        self.seen: ChannelState | None = None  # what the chain said last, for when it says nothing
        self.ending = False  # it is being released, or closed
        self._sessions = 0

    @property
    def channel(self) -> bytes:
        return self.payee.channel

    @property
    def retired(self) -> bool:
        return self.retired_at is not None

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
        """Whether more may be earned on it. Raises `ChannelUnusable`, or `Refused` if there never will be."""
        payee = self.payee
        if self.retired:
            raise Refused(
                "channel_retired", "our book of the channel is incomplete, so the channel is being closed: ask again"
            )
        if payee.state is not State.OPEN:
            raise ChannelUnusable(f"the channel is {payee.state.name.lower()}")
        if payee.lost_nano * LOST_PART > payee.deposited_nano + payee.authorised_nano:
            raise ChannelUnusable("too many sessions on the channel ended without paying")

    def enter(self) -> None:
        """One more answer is to be paid through it, until `leave`. Raises `Refused`."""
        if self.ending or self._sessions >= SESSIONS_PER_CHANNEL_MAX:
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
        if self.ending or self._sessions:
            raise Refused(
                "channel_busy", "an answer is still being paid through the channel", retry_after_s=BUSY_RETRY_S
            )

    def is_to_be_closed(self, now: float, wait_s: float) -> bool:
        """Whether it is time to close it ourselves: we serve no more over it, and need not wait for a higher voucher.

        None comes once we have seen the client's highest, or one for the whole deposit. Else we wait for `wait_s`. The
        client need not: it can ask for a release, or close alone. One that was released is the client's to close.
        """
        if self.retired_at is None or self.payee.state not in {State.OPEN, State.CLOSING} or self.ending:
            return False
        used_up = self.payee.authorised_nano >= self.payee.deposited_nano
        return self.shown or used_up or now >= self.retired_at + wait_s

    def standing(self, unsettled_for_s: float = 0.0) -> Standing:
        """What there is to be settled."""
        return Standing(
            authorised_nano=self.payee.authorised_nano,
            settled_nano=self.payee.settled_nano,
            deposited_nano=self.payee.deposited_nano,
            closing=self.payee.state is State.CLOSING,
            unsettled_for_s=unsettled_for_s,
            retired=self.retired,
        )


def is_forgotten(first_nano: int, settled_nano: int, window_nano: int) -> bool:
    """Whether a voucher is too high to be the first on a channel: then we served over it before, and lost our book.

    A client pays at most one window ahead. To believe it that more is paid for nothing would be to give that for
    nothing, again.
    """
    return first_nano - settled_nano > window_nano


def note_settled(payee: Payee, settled_nano: int) -> None:
    """The chain has paid out so much.

    Where that is more than we know of (our book was lost, or somebody else carried a voucher), at least so much was
    authorised, and it pays for nothing new. The voucher itself is on chain; there is nothing more to do with it.
    """
    payee.settled_nano = max(payee.settled_nano, settled_nano)
    if payee.authorised_nano < settled_nano:
        payee.accepted = Claim(payee.channel, settled_nano, b"")
        payee.delivered_nano = max(payee.delivered_nano, settled_nano)
        payee.saved(authorised_nano=settled_nano, delivered_nano=settled_nano)
