"""What becomes of the provider's channels besides answers: watched on chain, settled when due, released when asked."""

from __future__ import annotations

import trio

from chain.channel import Move, State
from chain.errors import BadVoucher
from chain.keeper import BookKeeper
from chain.ledger import Ledger
from chain.voucher import Claim, Signer
from chain.watch import LOOKS_AT_ONCE, look_every_s
from p2p.errors import Error, PaymentError, Refused, RemoteError
from p2p.foreign import translated
from p2p.payees import Payees
from p2p.protocol.incoming import Incoming
from p2p.settlements import Settlements
from p2p.trace import Trace, silent


class Upkeep:
    """Looks after every channel that pays us, until it is closed."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        keeper: BookKeeper,
        payees: Payees,
        settlements: Settlements,
        signer: Signer,
        challenge_period_s: int,
        trace: Trace = silent,
    ) -> None:
        self._ledger = ledger
        self._keeper = keeper
        self._payees = payees
        self._settlements = settlements
        self._signer = signer
        self._challenge_period_s = challenge_period_s
        self._trace = trace

    async def watch(self) -> None:
        """Look at every open channel for ever, and settle what there is reason to."""
        limit = trio.CapacityLimiter(LOOKS_AT_ONCE)
        while True:
            async with trio.open_nursery() as nursery:
                for incoming in self._payees:
                    nursery.start_soon(self._guarded_look, limit, incoming)
            await trio.sleep(look_every_s([self._challenge_period_s]))

    async def settle(self, channel: bytes) -> None:
        """Carry the highest voucher to the chain if it is worth it. What fails now is tried again the next time."""
        incoming = self._payees.get(channel)
        if incoming is not None:
            await self._settlements.settle(incoming)

    async def release(self, last: Claim, peer: str) -> Claim:
        """Let the payer close, after settling what is due. Raises `Refused`, `RemoteError` or `LocalError`.

        Only the client that paid through the channel may ask: ids of channels, and vouchers that were settled, are
        public on chain, and a release ends the channel.
        """
        incoming = self._payees.get(last.channel)
        if incoming is None or incoming.client != peer:
            raise Refused("unknown_channel", "we know of no such channel of yours")
        incoming.require_idle()
        incoming.releasing = True
        try:
            with translated():
                released = await self._release(incoming, last)
        except PaymentError as error:
            raise Refused("channel_unusable", str(error)) from error
        finally:
            incoming.releasing = False
        self._trace("released", channel=last.channel.hex(), amount_nano=released.amount_nano)
        return released

    async def _release(self, incoming: Incoming, last: Claim) -> Claim:
        payee = incoming.payee
        if payee.state is State.OPEN:
            await self._take_last(incoming, last)
            if incoming.restored:
                # What was delivered since is forgotten: all that the client has signed for counts as such.
                payee.delivered_nano = payee.authorised_nano
            await self._settlements.settle(incoming)
        released = payee.release(self._signer)
        await self._keeper.do(lambda book: book.save_released(released.channel, released.amount_nano))
        return released

    async def _take_last(self, incoming: Incoming, last: Claim) -> None:
        try:
            news = incoming.payee.accept(last)
        except BadVoucher as error:
            raise RemoteError("bad_voucher", str(error)) from error
        if news:
            await self._keeper.do(lambda book: book.save_claim(last))

    async def _guarded_look(self, limit: trio.CapacityLimiter, incoming: Incoming) -> None:
        async with limit:
            try:
                with translated():
                    await self._look(incoming)
            except Error as error:  # the next look is soon
                self._trace("look_failed", channel=incoming.channel.hex(), why=str(error))

    async def _look(self, incoming: Incoming) -> None:
        channel, payee = incoming.channel, incoming.payee
        state = await self._ledger.channel(channel)
        before = payee.state
        if state is None:
            payee.move(Move.CLOSE)
            await self._save_what_the_release_paid(channel)
        else:
            incoming.follow(state)
        if payee.state is not before:
            await self._keeper.do(lambda book: book.save_state(channel, payee.state))
        if payee.state is State.CLOSED:
            self._payees.drop(incoming)
            self._settlements.forget(channel)
        else:
            await self._settlements.settle(incoming)

    async def _save_what_the_release_paid(self, channel: bytes) -> None:
        """The last payout of a channel that was closed together, which the payer carried."""
        released_nano = (await self._keeper.do(lambda book: book.channel(channel))).released_nano
        if released_nano is not None:
            done = await self._ledger.transactions(channel)
            if done and done[-1].op == "close_by_release":
                await self._keeper.do(lambda book: book.save_settled(channel, released_nano))
