"""The client's money on its way into channels: a new one, or more for one that is used up.

A channel is in the book before it is on chain: whatever happens in between, the money can be found again.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from functools import partial

from chain.book import Book
from chain.channel import State
from chain.keeper import BookKeeper
from chain.leases import Leases
from chain.ledger import ChannelTerms, Ledger, Transaction
from chain.locks import Lock
from chain.records import Channel
from chain.voucher import Signer
from p2p.errors import PaymentError
from p2p.foreign import translated
from p2p.protocol.advert import ChannelOffer
from p2p.trace import Trace, silent

SALT_BYTES = 32
# A deployment that did not happen within this is forgotten; the salt makes the next one another channel.
OPEN_WITHIN_S = 3600
# A payee that vanishes keeps the deposit from us for this long, at most.
CHALLENGE_PERIOD_MAX_S = 7 * 86400


class TooManyChannels(PaymentError):
    """As many are open as may be."""


class Funding:
    """Opens channels and tops them up, within the limits of the owner of the money."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        keeper: BookKeeper,
        signer: Signer,
        deposit_nano: int,
        channels_max: int,
        trace: Trace = silent,
    ) -> None:
        self.deposit_nano = deposit_nano
        self._ledger = ledger
        self._keeper = keeper
        self._signer = signer
        self._channels_max = channels_max
        self._trace = trace

    def objection(self, offer: ChannelOffer) -> str:
        """Why we would open no channel on these terms; empty if we would."""
        if offer.deposit_min_nano > self.deposit_nano:
            return (
                f"the provider wants a deposit of {offer.deposit_min_nano} nano and a channel of ours gets "
                f"{self.deposit_nano}: raise --deposit-nano"
            )
        if offer.challenge_period_s > CHALLENGE_PERIOD_MAX_S:
            return f"the provider could hold the deposit for {offer.challenge_period_s} s"
        return ""

    async def has_room(self) -> bool:
        """Whether one more channel may be open. Raises `LocalError`."""
        with translated():
            return self._count(await self._keeper.do(Book.open_channels)) < self._channels_max

    async def open(self, provider: str, offer: ChannelOffer, cost_max_nano: int) -> tuple[Lock, Channel]:
        """A new channel that can pay for one answer, leased before anybody can know of it.

        Raises `TooManyChannels`, `PaymentError`, `Unavailable` or `LocalError`.
        """
        objection = self.objection(offer)
        if objection:
            raise PaymentError(objection)
        if cost_max_nano > self.deposit_nano:
            raise PaymentError(
                f"the answer may cost {cost_max_nano} nano and a channel of ours gets a deposit of "
                f"{self.deposit_nano}: raise --deposit-nano, or ask for less"
            )
        with translated():
            terms = await self._terms(offer)
            channel = self._ledger.channel_id(terms)
            lease = self._keeper.leases.take(channel)
            assert lease is not None, "the salt is fresh, so nobody has heard of this channel"
            try:
                await self._keeper.do(partial(self._begin, channel, terms, provider))
                self._trace("opening", channel=channel.hex(), peer=provider, deposit_nano=self.deposit_nano)
                transaction = await self._ledger.open(terms, self.deposit_nano)
                return lease, await self._funded("channel", channel, self.deposit_nano, transaction)
            except BaseException:
                lease.release()
                raise

    async def top_up(self, known: Channel) -> Channel:
        """As much again for a channel that we hold the lease of.

        Raises as `Ledger.top_up` does, and `chain.errors.LimitReached` if the owner wants less in one channel.
        """
        self._trace("topping_up", channel=known.channel.hex(), peer=known.peer, deposit_nano=self.deposit_nano)
        transaction = await self._ledger.top_up(known.channel, self.deposit_nano)
        deposited_nano = known.deposited_nano + self.deposit_nano
        return await self._funded("topped_up", known.channel, deposited_nano, transaction)

    async def _funded(self, kind: str, channel: bytes, deposited_nano: int, transaction: Transaction) -> Channel:
        def save(book: Book) -> Channel:
            book.save_deposited(channel, deposited_nano)
            return book.channel(channel)

        known = await self._keeper.do(save)
        fee_nano = transaction.fee_nano
        self._trace(kind, channel=channel.hex(), peer=known.peer, deposited_nano=deposited_nano, fee_nano=fee_nano)
        return known

    async def _terms(self, offer: ChannelOffer) -> ChannelTerms:
        return ChannelTerms(
            payer=self._ledger.wallet.address,
            payee=offer.payee,
            payer_key=self._signer.public_key,
            payee_key=offer.payee_key,
            challenge_period_s=offer.challenge_period_s,
            open_before=await self._ledger.now() + OPEN_WITHIN_S,
            salt=secrets.token_bytes(SALT_BYTES),
        )

    def _begin(self, channel: bytes, terms: ChannelTerms, provider: str, book: Book) -> None:
        """Count and add in one: several processes may be about to open one."""
        count = self._count(book.open_channels())
        if count >= self._channels_max:
            raise TooManyChannels(f"{count} channels are open, the limit; close one: python -m p2p.node channels")
        book.add_channel(channel, terms, provider)

    def _count(self, channels: Iterable[Channel]) -> int:
        return sum(map(partial(_is_open, self._keeper.leases), channels))


def _is_open(leases: Leases, known: Channel) -> bool:
    """Also one that is being opened; whoever gave that up has let go of it."""
    return known.usable or (known.state is State.UNFUNDED and leases.held(known.channel))
