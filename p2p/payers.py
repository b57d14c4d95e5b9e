"""The client's payment channels: opened before they are needed, reused while they last, closed together with the payee.

A channel is in the book before it is on chain, and a release before it is carried there: whatever happens in between,
the money can be found again.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import trio

from chain.book import Book
from chain.channel import Payer, State
from chain.errors import LedgerUnavailable
from chain.keeper import BookKeeper
from chain.keys import verify
from chain.ledger import ChannelState, ChannelTerms, Ledger, Transaction
from chain.records import Channel
from chain.voucher import RELEASE_TAG, Claim, Signer, claim_is_good
from p2p.errors import LocalError, PaymentError, RemoteError
from p2p.foreign import translated
from p2p.host import Host
from p2p.protocol.advert import ChannelOffer
from p2p.protocol.negotiate import Refusal
from p2p.protocol.release import PROTOCOL, CloseRequest, Released, ToClient
from p2p.protocol.session import SESSIONS_PER_CHANNEL_MAX
from p2p.stream import open_messages
from p2p.trace import Trace, silent

SALT_BYTES = 32
# A deployment that did not happen within this is forgotten; the salt makes the next one another channel.
OPEN_WITHIN_S = 3600
# A payee that vanishes keeps the deposit from us for this long, at most.
CHALLENGE_PERIOD_MAX_S = 7 * 86400
# A release is given after the payee's own settlement, which takes some blocks.
RELEASE_TIMEOUT_S = 60.0


class Payers:
    """Every channel that we pay through, each used by several sessions at a time."""

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
        self._ledger = ledger
        self._keeper = keeper
        self._signer = signer
        self._deposit_nano = deposit_nano
        self._channels_max = channels_max
        self._trace = trace
        self._payers: dict[bytes, Payer] = {}
        self._known: dict[bytes, Channel] = {}
        # What the sessions that run on each channel may cost at most, each.
        self._reserved: defaultdict[bytes, list[int]] = defaultdict(list)
        self._closing: set[bytes] = set()
        self._opening = trio.Lock()

    async def load(self) -> None:
        """Take up the channels of the book as the chain has them now. Raises `LocalError`.

        Where the chain cannot be reached, those that were open are taken for open: what we sign stays good, and we
        sign for no more than what it has confirmed to be deposited.
        """
        reached = True
        with translated():
            for known in await self._keeper.do(Book.open_channels):
                try:
                    if reached:
                        await self._load_one(known)
                except LedgerUnavailable as error:
                    reached = False
                    self._trace("chain_unavailable", why=str(error))
                if not reached and known.state is State.OPEN and not known.restored:
                    self._take_up(known, known.deposited_nano)

    async def _load_one(self, known: Channel) -> None:
        state = await self._ledger.channel(known.channel)
        if state is not None and state.deposited_nano:
            await self._keeper.do(partial(_save_seen, known.channel, state))
            if not (state.close_at or known.restored) and known.released_nano is None:
                self._take_up(known, state.deposited_nano)
        elif known.state is not State.UNFUNDED or await self._ledger.now() > known.terms.open_before:
            await self._keeper.do(partial(Book.save_state, channel=known.channel, state=State.CLOSED))

    def providers(self) -> frozenset[str]:
        """The peers that we could pay at once."""
        return frozenset(self._known[channel].peer for channel in self._payers)

    def objection(self, offer: ChannelOffer) -> str:
        """Why we would open no channel on these terms; empty if we would."""
        if offer.deposit_min_nano > self._deposit_nano:
            return (
                f"the provider wants a deposit of {offer.deposit_min_nano} nano and a channel of ours gets "
                f"{self._deposit_nano}: raise --deposit-nano"
            )
        if offer.challenge_period_s > CHALLENGE_PERIOD_MAX_S:
            return f"the provider could hold the deposit for {offer.challenge_period_s} s"
        return ""

    @asynccontextmanager
    async def lease(self, provider: str, offer: ChannelOffer, cost_max_nano: int) -> AsyncIterator[Payer]:
        """A channel to `provider` that can pay for one answer: one that is open, or a new one.

        Raises `PaymentError` (no funds, too many channels) or `Unavailable`.
        """
        payer = self._open_to(provider, offer, cost_max_nano)
        if payer is None:
            async with self._opening:  # one at a time, or many could pass the limit together
                payer = self._open_to(provider, offer, cost_max_nano)
                if payer is None:
                    payer = await self._open(provider, offer, cost_max_nano)
        reserved = self._reserved[payer.channel]
        reserved.append(cost_max_nano)
        try:
            yield payer
        finally:
            reserved.remove(cost_max_nano)

    async def close(self, host: Host, channel: bytes) -> Transaction:
        """Close together: the provider signs a release, we carry it to the chain.

        Raises `LocalError` while an answer is being paid through it, and `Refused`, `RemoteError`, `Unavailable` or
        `PaymentError`; the money then stays in the channel.
        """
        with self._alone(channel):
            known = await self._ask_release(host, channel)
            assert known.released_nano is not None
            self._payers.pop(channel, None)
            with translated():
                transaction = await self._ledger.close_by_release(channel, known.released_nano, known.release_signature)
                await self._keeper.do(lambda book: _save_closed(book, known))
        self._trace("closed", channel=channel.hex(), fee_nano=transaction.fee_nano)
        return transaction

    async def start_close(self, channel: bytes) -> Transaction:
        """Close alone: the provider has the challenge period to settle what it has. Raises as `close` does."""
        with self._alone(channel), translated():
            transaction = await self._ledger.start_close(channel)
            self._payers.pop(channel, None)
            await self._keeper.do(lambda book: book.save_state(channel, State.CLOSING))
        return transaction

    async def finalise(self, channel: bytes) -> Transaction:
        """Take the rest back after the challenge period. Raises as `close` does."""
        with translated():
            transaction = await self._ledger.finalise(channel)
            await self._keeper.do(lambda book: book.save_state(channel, State.CLOSED))
        return transaction

    async def channels(self) -> Sequence[Channel]:
        """All of them, as the book has them."""
        with translated():
            return await self._keeper.do(Book.channels)

    @contextmanager
    def _alone(self, channel: bytes) -> Iterator[None]:
        if channel in self._closing or self._reserved[channel]:
            raise LocalError("an answer is being paid through that channel, or it is being closed: wait for the end")
        self._closing.add(channel)
        try:
            yield
        finally:
            self._closing.discard(channel)

    def _open_to(self, provider: str, offer: ChannelOffer, cost_max_nano: int) -> Payer | None:
        for channel, payer in self._payers.items():
            known = self._known[channel]
            fits = (known.peer, known.terms.payee, known.terms.payee_key) == (
                provider,
                offer.payee,
                offer.payee_key,
            )
            reserved = self._reserved[channel]
            free_nano = payer.deposited_nano - max(payer.authorised_nano, payer.delivered_nano) - sum(reserved)
            room = len(reserved) < SESSIONS_PER_CHANNEL_MAX and channel not in self._closing
            if fits and room and free_nano >= cost_max_nano and payer.state is State.OPEN:
                return payer
        return None

    async def _open(self, provider: str, offer: ChannelOffer, cost_max_nano: int) -> Payer:
        if len(self._payers) >= self._channels_max:
            raise PaymentError(
                f"{len(self._payers)} channels are open, the limit; close one: python -m p2p.node channels"
            )
        objection = self.objection(offer)
        if objection:
            raise PaymentError(objection)
        deposit_nano = self._deposit_nano
        if cost_max_nano > deposit_nano:
            raise PaymentError(
                f"the answer may cost {cost_max_nano} nano and a channel of ours gets a deposit of {deposit_nano}: "
                "raise --deposit-nano, or ask for less"
            )
        with translated():
            terms = ChannelTerms(
                payer=self._ledger.wallet.address,
                payee=offer.payee,
                payer_key=self._signer.public_key,
                payee_key=offer.payee_key,
                challenge_period_s=offer.challenge_period_s,
                open_before=await self._ledger.now() + OPEN_WITHIN_S,
                salt=secrets.token_bytes(SALT_BYTES),
            )
            channel = self._ledger.channel_id(terms)
            self._trace("opening", channel=channel.hex(), peer=provider, deposit_nano=deposit_nano)
            await self._keeper.do(lambda book: book.add_channel(channel, terms, provider))
            transaction = await self._ledger.open(terms, deposit_nano)
            await self._keeper.do(lambda book: book.save_deposited(channel, deposit_nano))
            known = await self._keeper.do(lambda book: book.channel(channel))
        self._trace(
            "channel",
            channel=channel.hex(),
            peer=provider,
            deposited_nano=deposit_nano,
            fee_nano=transaction.fee_nano,
        )
        return self._take_up(known, deposit_nano)

    def _take_up(self, known: Channel, deposited_nano: int) -> Payer:
        payer = Payer(
            known.channel,
            self._ledger.network.global_id,
            self._signer,
            deposited_nano=deposited_nano,
            delivered_nano=known.delivered_nano,
            authorised_nano=known.authorised_nano,
        )
        payer.write_off()
        self._payers[known.channel] = payer
        self._known[known.channel] = known
        return payer

    async def _ask_release(self, host: Host, channel: bytes) -> Channel:
        """The channel with the provider's release in the book."""
        with translated():
            known = await self._keeper.do(lambda book: book.channel(channel))
        if known.state is State.CLOSED:
            raise LocalError("the channel is closed already")
        if known.released_nano is not None:
            return known
        request = CloseRequest(channel=channel, amount_nano=known.authorised_nano, signature=known.signature)
        async with open_messages(host, known.peer, PROTOCOL, ToClient) as messages:
            await messages.send(request)
            answer = await messages.answer(RELEASE_TIMEOUT_S)
        if isinstance(answer, Refusal):
            raise answer.error()
        self._check_release(known, answer)
        with translated():
            await self._keeper.do(lambda book: book.save_released(channel, answer.amount_nano, answer.signature))
            return await self._keeper.do(lambda book: book.channel(channel))

    def _check_release(self, known: Channel, released: Released) -> None:
        claim = Claim(known.channel, released.amount_nano, released.signature)
        if released.channel != known.channel or released.amount_nano > known.authorised_nano:
            raise RemoteError("bad_release", "it is for another channel, or more than was authorised")
        global_id = self._ledger.network.global_id
        if not claim_is_good(verify, known.terms.payee_key, RELEASE_TAG, global_id, claim):
            raise RemoteError("bad_release", "the signature is not the payee's")


def _save_seen(channel: bytes, state: ChannelState, book: Book) -> None:
    """What the chain says of a channel, in case we ended before we could write it down."""
    book.save_deposited(channel, state.deposited_nano)
    book.save_settled(channel, state.settled_nano)
    if state.close_at:
        book.save_state(channel, State.CLOSING)


def _save_closed(book: Book, known: Channel) -> None:
    """The contract paid out what was released, no more and no less, or the close would have failed."""
    assert known.released_nano is not None
    book.save_settled(known.channel, known.released_nano)
    book.save_state(known.channel, State.CLOSED)
