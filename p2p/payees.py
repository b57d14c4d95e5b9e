"""The provider's payment channels: checked on chain before they are served, settled when due, watched, released.

What the chain says comes from proven account state; what the client owes comes from vouchers in the book.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from chain.book import Book
from chain.channel import Move, Payee, State, require_acceptable
from chain.errors import BadVoucher, ChainError, ChannelUnusable, LedgerUnavailable
from chain.keeper import BookKeeper
from chain.keys import verify
from chain.ledger import ChannelState, Ledger
from chain.voucher import VOUCHER_TAG, Claim, Signer, claim_is_good
from chain.watch import LOOKS_AT_ONCE, look_every_s
from p2p.errors import Error, LocalError, PaymentError, Refused, RemoteError
from p2p.foreign import translated
from p2p.protocol.advert import ChannelOffer
from p2p.protocol.session import SESSIONS_PER_CHANNEL_MAX
from p2p.settlements import Settlements
from p2p.trace import Trace, silent

CHECK_TIMEOUT_S = 5.0  # for the chain to say something about a channel, before an answer that somebody waits for
# A hundredth of deposit and payments may be left unpaid by sessions that die, one window at a time. It is less than a
# channel costs, so that nobody lives on windows.
LOST_PART = 100


@dataclass
class _Payer:
    """One wallet that pays us. All its channels share one window, and each waits for what happens on any of them."""

    payees: list[Payee] = field(default_factory=list)
    news: trio.Event = field(default_factory=trio.Event)


class Payees:
    """Every channel that pays us, each used by several sessions at a time."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        keeper: BookKeeper,
        signer: Signer,
        offer: ChannelOffer,
        settlements: Settlements,
        trace: Trace = silent,
    ) -> None:
        self._ledger = ledger
        self._keeper = keeper
        self._signer = signer
        self._offer = offer
        self._settlements = settlements
        self._trace = trace
        self._payees: dict[bytes, Payee] = {}
        self._clients: dict[bytes, str] = {}  # who pays through each of them
        self._payers: defaultdict[str, _Payer] = defaultdict(_Payer)
        self._wallets: dict[bytes, str] = {}
        self._sessions: Counter[bytes] = Counter()
        self._releasing: set[bytes] = set()
        self._taking_up = trio.Lock()
        self._restored: set[bytes] = set()  # of a book from a backup, which forgot what was delivered or released since
        self._unsaved: set[bytes] = set()  # memory may know of a voucher that a full disk kept out of the book
        self._seen: dict[bytes, ChannelState] = {}  # what the chain said last, for when it says nothing

    async def load(self) -> None:
        """Take up the channels of the book. Raises `LocalError`."""
        with translated():
            channels = await self._keeper.do(Book.open_channels)
            await self._settlements.load(channels)
            for known in channels:
                payee = Payee(
                    known.channel,
                    self._ledger.network.global_id,
                    known.terms.payer_key,
                    verify,
                    deposited_nano=known.deposited_nano,
                    delivered_nano=known.delivered_nano,
                    accepted=known.claim,
                )
                payee.write_off()
                payee.lost_nano = known.lost_nano
                _note_settled(payee, known.settled_nano)
                payee.state = known.state
                payee.released_nano = known.released_nano
                if known.restored:
                    self._restored.add(known.channel)
                self._add(payee, known.peer, known.terms.payer)

    @asynccontextmanager
    async def lease(self, first: Claim, peer: str, payer_key: bytes) -> AsyncIterator[Payee]:
        """The channel of a session's first voucher, looked up on chain, for as long as the session runs.

        Raises `Refused` or `RemoteError`.
        """
        channel = first.channel
        if self._clients.get(channel, peer) != peer:
            raise Refused("channel_unusable", "another client pays through the channel")
        if channel in self._restored:
            raise Refused("channel_unusable", "our book of the channel comes from a backup, so it can only be closed")
        if channel in self._releasing or self._sessions[channel] >= SESSIONS_PER_CHANNEL_MAX:
            raise Refused(
                "channel_busy", "the channel is closing, or carries as many answers as it may", retry_after_s=1
            )
        self._sessions[channel] += 1
        try:
            yield await self._checked(first, peer, payer_key)
        except LocalError:
            self._unsaved.add(channel)
            raise
        finally:
            self._sessions[channel] -= 1
            if channel in self._payees:
                self.tell(channel)

    def news(self, channel: bytes) -> trio.Event:
        """Set once something happens on any channel of that channel's payer. Take it before you look."""
        return self._payers[self._wallets[channel]].news

    def tell(self, channel: bytes) -> None:
        """A voucher came, or a session left: others of that payer may go on."""
        payer = self._payers[self._wallets[channel]]
        payer.news.set()
        payer.news = trio.Event()

    async def settle(self, channel: bytes) -> None:
        """Carry the highest voucher to the chain if it is worth it. What fails now is tried again the next time."""
        payee = self._payees.get(channel)
        if payee is not None:
            await self._settlements.settle(payee)

    async def release(self, last: Claim, peer: str) -> Claim:
        """Let the payer close, after settling what is due. Raises `Refused`, `RemoteError` or `LocalError`.

        Only the client that paid through the channel may ask: ids of channels, and vouchers that were settled, are
        public on chain, and a release ends the channel.
        """
        channel = last.channel
        payee = self._payees.get(channel)
        if payee is None or self._clients[channel] != peer:
            raise Refused("unknown_channel", "we know of no such channel of yours")
        if channel in self._releasing or self._sessions[channel]:
            raise Refused("channel_busy", "an answer is still being paid through the channel", retry_after_s=1)
        self._releasing.add(channel)
        try:
            with translated():
                if payee.state is State.OPEN:
                    await self._take_last(payee, last)
                    if channel in self._restored:
                        # What was delivered since is forgotten: all that the client has signed for counts as such.
                        payee.delivered_nano = payee.authorised_nano
                    await self.settle(channel)
                released = payee.release(self._signer)
                await self._keeper.do(lambda book: book.save_released(channel, released.amount_nano))
        except PaymentError as error:
            raise Refused("channel_unusable", str(error)) from error
        finally:
            self._releasing.discard(channel)
        self._trace("released", channel=channel.hex(), amount_nano=released.amount_nano)
        return released

    async def watch(self) -> None:
        """Look at every open channel for ever, and settle what there is reason to."""
        limit = trio.CapacityLimiter(LOOKS_AT_ONCE)
        while True:
            async with trio.open_nursery() as nursery:
                for channel in list(self._payees):
                    nursery.start_soon(self._guarded_look, limit, channel)
            await trio.sleep(look_every_s([self._offer.challenge_period_s]))

    async def _guarded_look(self, limit: trio.CapacityLimiter, channel: bytes) -> None:
        async with limit:
            try:
                await self._look(channel)
            except Error as error:  # the next look is soon
                self._trace("look_failed", channel=channel.hex(), why=str(error))

    async def _look(self, channel: bytes) -> None:
        with translated():
            state = await self._ledger.channel(channel)
            payee = self._payees[channel]
            before = payee.state
            if state is None:
                payee.move(Move.CLOSE)
                await self._save_what_the_release_paid(channel)
            else:
                self._seen[channel] = state
                # It may not have been us who carried the last voucher, or not in this life.
                _note_settled(payee, state.settled_nano)
                if state.close_at and payee.state is not State.CLOSING:
                    payee.move(Move.START_CLOSE)
            if payee.state is not before:
                await self._keeper.do(lambda book: book.save_state(channel, payee.state))
        if payee.state is State.CLOSED:
            self._drop(payee)
        else:
            await self._settlements.settle(payee)

    async def _save_what_the_release_paid(self, channel: bytes) -> None:
        """The last payout of a channel that was closed together, which the payer carried."""
        released_nano = (await self._keeper.do(lambda book: book.channel(channel))).released_nano
        if released_nano is not None:
            done = await self._ledger.transactions(channel)
            if done and done[-1].op == "close_by_release":
                await self._keeper.do(lambda book: book.save_settled(channel, released_nano))

    async def _checked(self, first: Claim, peer: str, payer_key: bytes) -> Payee:
        try:
            state = await self._on_chain(first.channel)
            require_acceptable(
                state,
                payee=self._offer.payee,
                payee_key=self._offer.payee_key,
                payer_key=payer_key,
                deposit_min_nano=self._offer.deposit_min_nano,
                challenge_period_min_s=self._offer.challenge_period_s,
            )
            async with self._taking_up:
                payee = self._payees.get(first.channel) or await self._take_up(first, peer, state)
            self._seen[first.channel] = state
            payee.funded(state.deposited_nano)
            _require_paying(payee)
            await self._save_what_is_unsaved(payee)
        except ChannelUnusable as error:
            raise Refused("channel_unusable", str(error)) from error
        except ChainError as error:
            raise Refused("chain_unavailable", "the channel could not be checked", retry_after_s=5) from error
        _note_settled(payee, state.settled_nano)
        return payee

    async def _save_what_is_unsaved(self, payee: Payee) -> None:
        claim = payee.accepted
        if claim is not None and claim.signature and payee.channel in self._unsaved:
            await self._keeper.do(lambda book: book.save_claim(claim))
        self._unsaved.discard(payee.channel)

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
        seen, payee = self._seen.get(channel), self._payees.get(channel)
        if seen is None or payee is None or payee.state is not State.OPEN:
            raise LedgerUnavailable("the channel could not be checked") from error
        served = self._settlements.within_risk(payee)
        unsettled_nano = payee.authorised_nano - payee.settled_nano
        self._trace("chain_down", channel=channel.hex(), unsettled_nano=unsettled_nano, served=served)
        if not served:
            raise LedgerUnavailable("as much is unsettled as may be") from error
        return seen

    async def _take_up(self, first: Claim, peer: str, state: ChannelState) -> Payee:
        """A channel that we never saw: write it down before it is served.

        Whose it is must be proven once: a stranger could see it open on chain and come here first.
        """
        channel = first.channel
        if not claim_is_good(verify, state.terms.payer_key, VOUCHER_TAG, self._ledger.network.global_id, first):
            raise RemoteError("bad_voucher", "the signature is not the payer's")

        def write(book: Book) -> None:
            book.add_channel(channel, state.terms, peer)
            book.save_deposited(channel, state.deposited_nano)

        with trio.CancelScope(shield=True):  # in the book and not in memory, it could not be used until a restart
            await self._keeper.do(write)
        payee = Payee(
            channel,
            self._ledger.network.global_id,
            state.terms.payer_key,
            verify,
            deposited_nano=state.deposited_nano,
        )
        self._add(payee, peer, state.terms.payer)
        self._trace("taken_up", channel=channel.hex(), peer=peer, deposited_nano=state.deposited_nano)
        return payee

    def _add(self, payee: Payee, peer: str, wallet: str) -> None:
        payer = self._payers[wallet]
        payer.payees.append(payee)
        payee.kin = payer.payees
        self._payees[payee.channel] = payee
        self._clients[payee.channel] = peer
        self._wallets[payee.channel] = wallet

    def _drop(self, payee: Payee) -> None:
        """The channel is gone from the chain. Sessions that still run on it find that it takes no voucher."""
        channel = payee.channel
        del self._payees[channel], self._clients[channel]
        self._seen.pop(channel, None)
        self._settlements.forget(channel)
        payer = self._payers[self._wallets[channel]]
        payer.payees.remove(payee)

    async def _take_last(self, payee: Payee, last: Claim) -> None:
        try:
            news = payee.accept(last)
        except BadVoucher as error:
            raise RemoteError("bad_voucher", str(error)) from error
        if news:
            await self._keeper.do(lambda book: book.save_claim(last))


def _require_paying(payee: Payee) -> None:
    if payee.lost_nano * LOST_PART > payee.deposited_nano + payee.authorised_nano:
        raise ChannelUnusable("too many sessions on it ended without paying")


def _note_settled(payee: Payee, settled_nano: int) -> None:
    """The chain has paid out so much.

    Where that is more than we know of (our book was lost, or somebody else carried a voucher), at least so much was
    authorised, and it pays for nothing new. The voucher itself is on chain; there is nothing more to do with it.
    """
    payee.settled_nano = max(payee.settled_nano, settled_nano)
    if payee.authorised_nano < settled_nano:
        payee.accepted = Claim(payee.channel, settled_nano, b"")
        payee.delivered_nano = max(payee.delivered_nano, settled_nano)
