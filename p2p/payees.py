"""The provider's payment channels, lent to sessions: checked on chain and written down before they are served over.

What the chain says comes from proven account state; what the client owes comes from vouchers in the book.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from chain.book import Book
from chain.channel import Payee, State
from chain.errors import BadVoucher, ChainError, ChannelUnusable, LedgerUnavailable
from chain.keeper import BookKeeper
from chain.keys import verify
from chain.ledger import ChannelState, Ledger
from chain.records import Channel
from chain.voucher import VOUCHER_TAG, Claim, claim_is_good
from p2p.errors import Refused, RemoteError
from p2p.foreign import translated
from p2p.protocol.advert import ChannelOffer
from p2p.protocol.incoming import Incoming, is_forgotten, note_settled, require_suitable
from p2p.protocol.negotiate import Quote
from p2p.protocol.session import Save, SaveClaim, SaveDelivered, SaveLost
from p2p.protocol.unpaid import NO_CHANNEL, require_no_channel, unpaid_payee
from p2p.settlements import Settlements
from p2p.trace import Trace, silent

NOBODY = ""  # pays for what costs nothing
CHECK_TIMEOUT_S = 5.0  # for the chain to say something about a channel, before an answer that somebody waits for


@dataclass
class _Payer:
    """One wallet that pays us. Its channels share what it may owe, and each waits for what happens on any of them."""

    payees: list[Payee] = field(default_factory=list)
    news: trio.Event = field(default_factory=trio.Event)


class Payees:
    """Every channel that pays us, each used by several sessions at a time."""

    def __init__(
        self,
        ledger: Ledger,
        keeper: BookKeeper,
        offer: ChannelOffer,
        settlements: Settlements,
        exposure_max_nano: int,
        *,
        clock: Callable[[], float],
        trace: Trace = silent,
    ) -> None:
        """`exposure_max_nano` is what one payer may owe us on all its answers together."""
        self._exposure_max_nano = exposure_max_nano
        self._ledger = ledger
        self._keeper = keeper
        self._offer = offer
        self._settlements = settlements
        self._clock = clock
        self._trace = trace
        self._channels: dict[bytes, Incoming] = {}
        self._payers: defaultdict[str, _Payer] = defaultdict(_Payer)
        self._wallets: dict[bytes, str] = {NO_CHANNEL: NOBODY}
        self._taking_up = trio.Lock()

    async def load(self) -> None:
        """Take up the channels of the book. Raises `LocalError`."""
        with translated():
            for known in await self._keeper.do(Book.open_channels):
                self._add(known)

    def __iter__(self) -> Iterator[Incoming]:
        return iter(list(self._channels.values()))

    def get(self, channel: bytes) -> Incoming | None:
        """A channel that we know and that is not closed."""
        return self._channels.get(channel)

    def clients(self) -> frozenset[str]:
        """Those who have a channel to us that answers may be paid through."""
        return frozenset(incoming.client for incoming in self if incoming.payee.state is State.OPEN)

    def drop(self, incoming: Incoming) -> None:
        """The channel is gone from the chain. Sessions that still run on it find that it takes no voucher."""
        if self._channels.pop(incoming.channel, None) is not None:
            self._payers[self._wallets[incoming.channel]].payees.remove(incoming.payee)

    @asynccontextmanager
    async def lease(self, first: Claim, quote: Quote) -> AsyncIterator[Payee]:
        """The channel of a session's first voucher, looked up on chain, for as long as the session runs.

        What costs nothing needs none. Raises `Refused` or `RemoteError`.
        """
        if quote.unpaid:
            require_no_channel(first)
            yield unpaid_payee()
            return
        known = self.get(first.channel)
        if known is not None and known.client != quote.client:
            raise Refused("channel_unusable", "another client pays through the channel")
        incoming = await self._checked(first, quote)
        incoming.enter()
        try:
            yield incoming.payee
        finally:
            incoming.leave()
            self.tell(first.channel)

    def news(self, channel: bytes) -> trio.Event:
        """Set once something happens on any channel of that channel's payer. Take it before you look."""
        return self._payers[self._wallets[channel]].news

    def saved(self, events: Sequence[Save]) -> None:
        """These are on disk: whoever waits for what a voucher pays may go on."""
        for event in events:
            match event:
                case SaveClaim(claim, delivered_nano) if claim.channel in self._channels:
                    payee = self._channels[claim.channel].payee
                    payee.saved(authorised_nano=claim.amount_nano, delivered_nano=delivered_nano)
                    self.tell(claim.channel)
                case SaveDelivered(channel, delivered_nano) if channel in self._channels:
                    self._channels[channel].payee.saved(delivered_nano=delivered_nano)
                case SaveLost(channel, lost_nano) if channel in self._channels:
                    self._channels[channel].payee.saved(lost_nano=lost_nano)

    def tell(self, channel: bytes) -> None:
        """A voucher came, work was done, or a session left: others of that payer may go on."""
        payer = self._payers[self._wallets[channel]]
        payer.news.set()
        payer.news = trio.Event()

    async def keep(self, incoming: Incoming, claim: Claim) -> None:
        """Write down a voucher that comes without a session. Raises `RemoteError` or `chain.errors`."""
        try:
            news = incoming.payee.accept(claim)
        except BadVoucher as error:
            raise RemoteError("bad_voucher", str(error)) from error
        if news:
            await self._keeper.do(lambda book: book.save_claim(claim))
            incoming.payee.saved(authorised_nano=claim.amount_nano)

    async def _checked(self, first: Claim, quote: Quote) -> Incoming:
        try:
            state = await self._on_chain(first.channel)
            require_suitable(state, self._offer, quote.payer_key)
            async with self._taking_up:
                incoming = self.get(first.channel) or await self._take_up(first, quote, state)
            incoming.follow(state)
            if incoming.retired:
                await self.keep(incoming, first)  # our book may lack it, and the client shows it of its own accord
                incoming.shown = first.amount_nano == incoming.payee.authorised_nano
            incoming.require_usable()
        except ChannelUnusable as error:
            raise Refused("channel_unusable", str(error)) from error
        except ChainError as error:
            raise Refused("chain_unavailable", "the channel could not be checked", retry_after_s=5) from error
        return incoming

    async def _on_chain(self, channel: bytes) -> ChannelState:
        """The channel's state. Where the chain cannot be reached, as it was, up to the limit on risk."""
        try:
            with trio.fail_after(CHECK_TIMEOUT_S):
                state = await self._ledger.channel(channel)
        except (LedgerUnavailable, trio.TooSlowError) as error:
            return self._remembered(channel, error)
        if state is None:
            raise ChannelUnusable("the chain has no such channel")
        return state

    def _remembered(self, channel: bytes, error: Exception) -> ChannelState:
        """What the chain said last. Raises `LedgerUnavailable` where that is not to be gone by any more."""
        incoming = self.get(channel)
        if incoming is None or incoming.seen is None or incoming.payee.state is not State.OPEN:
            raise LedgerUnavailable("the channel could not be checked") from error
        served = self._settlements.within_risk(incoming)
        unsettled_nano = incoming.standing().unsettled_nano
        self._trace("chain_down", channel=channel.hex(), unsettled_nano=unsettled_nano, served=served)
        if not served:
            raise LedgerUnavailable("as much is unsettled as may be") from error
        return incoming.seen

    async def _take_up(self, first: Claim, quote: Quote, state: ChannelState) -> Incoming:
        """A channel that we never saw: write it down before it is served.

        Whose it is must be proven once: a stranger could see it open on chain and come here first.
        """
        channel, peer = first.channel, quote.client
        forgotten = is_forgotten(first.amount_nano, state.settled_nano, quote.window_nano)
        if not claim_is_good(verify, state.terms.payer_key, VOUCHER_TAG, self._ledger.network.global_id, first):
            raise RemoteError("bad_voucher", "the signature is not the payer's")

        def write(book: Book) -> Channel:
            book.add_channel(channel, state.terms, peer, retired_at=int(self._clock()) if forgotten else None)
            book.save_deposited(channel, state.deposited_nano)
            return book.channel(channel)

        with trio.CancelScope(shield=True):  # in the book and not in memory, it could not be used until a restart
            incoming = self._add(await self._keeper.do(write))
        self._trace("taken_up", channel=channel.hex(), peer=peer, deposited_nano=state.deposited_nano)
        return incoming

    def _add(self, known: Channel) -> Incoming:
        payee = Payee(
            known.channel,
            self._ledger.network.global_id,
            known.terms.payer_key,
            verify,
            deposited_nano=known.deposited_nano,
            delivered_nano=known.delivered_nano,
            accepted=known.claim,
            lost_nano=known.lost_nano,
            exposure_max_nano=self._exposure_max_nano,
        )
        payee.write_off()
        payee.released_nano, payee.state = known.released_nano, known.state
        note_settled(payee, known.settled_nano)
        payer = self._payers[known.terms.payer]
        payer.payees.append(payee)
        payee.kin = payer.payees
        incoming = Incoming(payee, known.peer, retired_at=known.retired_at)
        self._channels[known.channel] = incoming
        self._wallets[known.channel] = known.terms.payer
        return incoming
