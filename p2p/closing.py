"""The client's channels at their end: closed together with the payee, or alone.

A release is in the book before it is carried to the chain: whatever happens in between, the channel can be closed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from chain.book import Book
from chain.channel import State
from chain.keeper import BookKeeper
from chain.keys import verify
from chain.ledger import Ledger, Transaction
from chain.records import Channel
from chain.voucher import RELEASE_TAG, VOUCHER_TAG, Claim, claim_is_good
from p2p.errors import LocalError, RemoteError
from p2p.foreign import translated
from p2p.host import Host
from p2p.patience import patiently
from p2p.protocol.negotiate import Refusal
from p2p.protocol.release import PROTOCOL, CloseRequest, Released, ToClient
from p2p.stream import open_messages
from p2p.trace import Trace, silent

# A release is given after the payee's own settlement, which takes some blocks.
RELEASE_TIMEOUT_S = 60.0
# A payee may not know yet that the last answer has ended, or that whoever asked for one is gone.
BUSY_PATIENCE_S = 10.0


class Closing:
    """Closes channels, each while nobody pays through it."""

    def __init__(self, *, host: Host, ledger: Ledger, keeper: BookKeeper, trace: Trace = silent) -> None:
        self._host = host
        self._ledger = ledger
        self._keeper = keeper
        self._trace = trace

    async def together(self, channel: bytes) -> Transaction:
        """The provider signs a release, we carry it to the chain.

        Raises `LocalError` while an answer is being paid through it, and `Refused`, `RemoteError`, `Unavailable` or
        `PaymentError`; the money then stays in the channel.
        """
        with self._alone(channel):
            known = await self._released(channel)
            assert known.released_nano is not None
            with translated():
                transaction = await self._ledger.close_by_release(channel, known.released_nano, known.release_signature)
                await self._keeper.do(lambda book: _save_closed(book, known))
            self._keeper.leases.forget(channel)
        self._trace("closed", channel=channel.hex(), fee_nano=transaction.fee_nano)
        return transaction

    async def start(self, channel: bytes) -> Transaction:
        """Alone: the provider has the challenge period to settle what it has. Raises as `together` does."""
        with self._alone(channel), translated():
            transaction = await self._ledger.start_close(channel)
            await self._keeper.do(lambda book: book.save_state(channel, State.CLOSING))
        return transaction

    async def finalise(self, channel: bytes) -> Transaction:
        """Take the rest back after the challenge period. Raises as `together` does."""
        with translated():
            transaction = await self._ledger.finalise(channel)
            await self._keeper.do(lambda book: book.save_state(channel, State.CLOSED))
            self._keeper.leases.forget(channel)
        return transaction

    @contextmanager
    def _alone(self, channel: bytes) -> Iterator[None]:
        with translated():
            lease = self._keeper.leases.take(channel)
        if lease is None:
            raise LocalError("an answer is being paid through that channel, or it is being closed: wait for the end")
        with lease:
            yield

    async def _released(self, channel: bytes) -> Channel:
        """The channel with the provider's release in the book."""
        with translated():
            known = await self._keeper.do(lambda book: book.channel(channel))
        if known.state is State.CLOSED:
            raise LocalError("the channel is closed already")
        if known.released_nano is not None:
            return known
        released = await patiently(lambda: self._ask(known), BUSY_PATIENCE_S)
        highest = self._reminded(known, released)
        self._check(known, released, highest)

        def save(book: Book) -> Channel:
            if highest is not None:
                book.save_claim(highest, shown=True)
            book.save_released(channel, released.amount_nano, released.signature)
            return book.channel(channel)

        with translated():
            return await self._keeper.do(save)

    async def _ask(self, known: Channel) -> Released:
        request = CloseRequest(channel=known.channel, amount_nano=known.authorised_nano, signature=known.signature)
        async with open_messages(self._host, known.peer, PROTOCOL, ToClient, self._trace) as messages:
            await messages.send(request)
            answer: ToClient = await messages.answer(RELEASE_TIMEOUT_S)
        if isinstance(answer, Refusal):
            raise answer.error()
        return answer

    def _reminded(self, known: Channel, released: Released) -> Claim | None:
        """The highest voucher that we know of: one that our book lacks is believed if we signed it."""
        shown = Claim(known.channel, released.voucher_nano, released.voucher_signature)
        ours = self._signed_by(known.terms.payer_key, VOUCHER_TAG, shown)
        return shown if ours and shown.amount_nano > known.authorised_nano else known.claim

    def _check(self, known: Channel, released: Released, highest: Claim | None) -> None:
        authorised_nano = highest.amount_nano if highest else 0
        if released.channel != known.channel or released.amount_nano > max(authorised_nano, known.settled_nano):
            raise RemoteError("bad_release", "it is for another channel, or more than was authorised")
        claim = Claim(known.channel, released.amount_nano, released.signature)
        if not self._signed_by(known.terms.payee_key, RELEASE_TAG, claim):
            raise RemoteError("bad_release", "the signature is not the payee's")

    def _signed_by(self, key: bytes, tag: int, claim: Claim) -> bool:
        return claim_is_good(verify, key, tag, self._ledger.network.global_id, claim)


def _save_closed(book: Book, known: Channel) -> None:
    """The contract paid out what was released, no more and no less, or the close would have failed."""
    assert known.released_nano is not None
    book.save_settled(known.channel, known.released_nano)
    book.save_state(known.channel, State.CLOSED)
