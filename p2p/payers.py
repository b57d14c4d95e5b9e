"""Which channel pays for an answer: one that this process holds, one that nobody holds, or a new one.

Several processes may share a book. What it says of a channel holds good for whoever has the channel's lease. We have it
while an answer is paid through the channel; then anybody may.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import trio

from chain.book import Book
from chain.channel import Payer, State
from chain.errors import LedgerUnavailable, LimitReached
from chain.keeper import BookKeeper
from chain.ledger import ChannelState, Ledger
from chain.locks import Lock
from chain.records import Channel
from chain.voucher import Signer
from p2p.errors import Error, PaymentError, Refused
from p2p.foreign import translated
from p2p.funding import Funding, TooManyChannels
from p2p.protocol.advert import ChannelOffer
from p2p.protocol.session import SESSIONS_PER_CHANNEL_MAX
from p2p.trace import Trace, silent

# For others to be done with a channel where there may be no more. Shorter than a quote is good for.
LEASE_PATIENCE_S = 30.0
LEASE_POLL_S = 0.1


@dataclass(frozen=True)
class _Want:
    """What a channel is needed for."""

    provider: str
    offer: ChannelOffer
    cost_max_nano: int

    def suits(self, known: Channel) -> bool:
        """Whether it leads to that provider, and to the keys that it has now."""
        theirs = (self.provider, self.offer.payee, self.offer.payee_key)
        return (known.peer, known.terms.payee, known.terms.payee_key) == theirs


class Held:
    """A channel that we have the lease of, and what each of the sessions on it may cost at most."""

    def __init__(self, known: Channel, payer: Payer, lease: Lock) -> None:
        self.known = known
        self.payer = payer
        self.lease = lease
        self.reserved: list[int] = []
        self.given_up = False  # the provider takes nothing more on it

    def has_room(self, cost_max_nano: int) -> bool:
        """Whether it can pay for one more answer, whatever the others will cost."""
        payer, running = self.payer, self.reserved
        free_nano = payer.deposited_nano - max(payer.authorised_nano, payer.delivered_nano) - sum(running)
        room = len(running) < SESSIONS_PER_CHANNEL_MAX and payer.state is State.OPEN
        return room and free_nano >= cost_max_nano and not self.given_up


class Payers:
    """The channels that this process pays through, each used by several sessions at a time."""

    def __init__(
        self, *, ledger: Ledger, keeper: BookKeeper, signer: Signer, funding: Funding, trace: Trace = silent
    ) -> None:
        self._ledger = ledger
        self._keeper = keeper
        self._signer = signer
        self._funding = funding
        self._trace = trace
        self._held: dict[bytes, Held] = {}
        self._taking = trio.Lock()
        self._opening = trio.Lock()

    async def load(self) -> None:
        """Bring the book up to what the chain says. Raises `LocalError`.

        Where the chain cannot be reached, channels that were open are taken for open: what we sign stays good, and we
        sign for no more than what it has confirmed to be deposited.
        """
        with translated():
            try:
                for known in await self._keeper.do(Book.open_channels):
                    await self._look_at(known)
            except LedgerUnavailable as error:
                self._trace("chain_unavailable", why=str(error))

    async def providers(self) -> frozenset[str]:
        """The peers that we have a channel to. Raises `LocalError`."""
        with translated():
            return frozenset(known.peer for known in await self._keeper.do(Book.open_channels) if known.usable)

    @asynccontextmanager
    async def lease(
        self, provider: str, offer: ChannelOffer, cost_max_nano: int, *, fund: bool = True
    ) -> AsyncIterator[Payer]:
        """A channel to `provider` that can pay for one answer, and that no other process signs for meanwhile.

        Where there is none, one is opened or topped up, unless it is not to `fund` any.

        Raises `PaymentError` (no funds, too many channels), `Unavailable` or `LocalError`.
        """
        with translated():
            want = _Want(provider, offer, cost_max_nano)
            held = await (self._one_for(want) if fund else self._take(want))
        if held is None:
            raise PaymentError("no channel that is open has room for it")
        held.reserved.append(cost_max_nano)
        try:
            yield held.payer
        finally:
            held.reserved.remove(cost_max_nano)
            if not held.reserved:
                del self._held[held.known.channel]
                held.lease.release()

    async def heed(self, channel: bytes, no: Refused, at: int) -> None:
        """The provider would not serve over a channel that we lease: write down if it is gone, or of no more use.

        What prevents us from finding out is told: the next answer will be refused again.
        """
        if no.reason not in {"channel_unusable", "channel_retired"}:
            return
        try:
            with translated():
                if no.reason == "channel_retired":
                    self._trace("retired", channel=channel.hex(), why=str(no))
                    await self._keeper.do(partial(Book.retire, channel=channel, at=at))
                await self._look_at(await self._keeper.do(partial(Book.channel, channel=channel)))
                known = await self._keeper.do(partial(Book.channel, channel=channel))
        except Error as error:
            self._trace("look_failed", channel=channel.hex(), why=str(error))
        else:
            self._held[channel].given_up = not known.usable

    async def _one_for(self, want: _Want) -> Held:
        deadline = trio.current_time() + LEASE_PATIENCE_S
        while True:
            held = await self._take(want) or await self._fund(want, patient=trio.current_time() < deadline)
            if held is not None:
                return held
            await trio.sleep(LEASE_POLL_S)

    async def _take(self, want: _Want) -> Held | None:
        """One that we hold, or else one that nobody holds."""
        async with self._taking:
            for held in self._held.values():
                if want.suits(held.known) and held.has_room(want.cost_max_nano):
                    return held
            leased = await self._lease_idle(want, want.cost_max_nano)
            return self._keep(*leased) if leased else None

    async def _fund(self, want: _Want, *, patient: bool) -> Held | None:
        """One with fresh money in it; `None` if there may be no more, and others use what would do."""
        async with self._opening:  # one by one: who waited may use what was opened meanwhile
            held = await self._take(want)
            if held is not None:
                return held
            try:
                return await self._topped_up(want) or self._keep(
                    *await self._funding.open(want.provider, want.offer, want.cost_max_nano)
                )
            except TooManyChannels:
                if patient and await self._any_in_use(want):
                    return None
                raise

    async def _topped_up(self, want: _Want) -> Held | None:
        """One that is idle and nearly used up."""
        leased = await self._lease_idle(want, want.cost_max_nano - self._funding.deposit_nano)
        if leased is None:
            return None
        lease, known = leased
        if known.free_nano >= want.cost_max_nano:  # given back this moment, and not used up at all
            return self._keep(lease, known)
        with ExitStack() as undo:
            undo.callback(lease.release)
            try:
                held = self._keep(lease, await self._funding.top_up(known))
            except LimitReached:  # so much may be in no single channel
                return None
            undo.pop_all()
            return held

    async def _lease_idle(self, want: _Want, free_nano: int) -> tuple[Lock, Channel] | None:
        """One that nobody holds, with at least so much that is not spent."""
        for known in await self._keeper.do(Book.open_channels):
            if not want.suits(known) or not known.usable or (lease := self._keeper.leases.take(known.channel)) is None:
                continue
            with ExitStack() as undo:
                undo.callback(lease.release)
                # What we read before may be from before somebody else paid through it.
                now = await self._keeper.do(partial(Book.channel, channel=known.channel))
                if now.usable and now.free_nano >= free_nano:
                    undo.pop_all()
                    return lease, now
        return None

    async def _any_in_use(self, want: _Want) -> bool:
        """Whether to wait is of use. Also where one was given back this moment."""
        return any(
            self._keeper.leases.held(known.channel) or (known.usable and known.free_nano >= want.cost_max_nano)
            for known in await self._keeper.do(Book.open_channels)
            if want.suits(known)
        )

    def _keep(self, lease: Lock, known: Channel) -> Held:
        payer = Payer(
            known.channel,
            self._ledger.network.global_id,
            self._signer,
            deposited_nano=known.deposited_nano,
            delivered_nano=known.delivered_nano,
            authorised_nano=known.authorised_nano,
        )
        payer.write_off()
        held = self._held[known.channel] = Held(known, payer, lease)
        return held

    async def _look_at(self, known: Channel) -> None:
        state = await self._ledger.channel(known.channel)
        if state is not None and state.deposited_nano:
            await self._keeper.do(partial(_save_seen, known.channel, state))
        elif known.state is not State.UNFUNDED or await self._ledger.now() > known.terms.open_before:
            await self._keeper.do(partial(Book.save_state, channel=known.channel, state=State.CLOSED))
            self._keeper.leases.forget(known.channel)


def _save_seen(channel: bytes, state: ChannelState, book: Book) -> None:
    """What the chain says of a channel, in case somebody ended before it could be written down."""
    book.save_deposited(channel, state.deposited_nano)
    book.save_settled(channel, state.settled_nano)
    if state.close_at:
        book.save_state(channel, State.CLOSING)
