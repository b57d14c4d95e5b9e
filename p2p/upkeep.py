"""What becomes of the provider's channels besides answers: watched on chain, settled when due, released when asked."""

from __future__ import annotations

import trio

from chain.channel import Move, State
from chain.keeper import BookKeeper
from chain.ledger import Ledger
from chain.voucher import Claim, Signer
from chain.watch import LOOKS_AT_ONCE, look_every_s
from p2p.errors import Error, PaymentError, Refused
from p2p.foreign import translated
from p2p.payees import Payees
from p2p.protocol.incoming import Incoming
from p2p.protocol.release import CloseRequest, Released, released
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
            await self._settle(incoming)

    async def release(self, request: CloseRequest, peer: str) -> Released:
        """Let the payer close, after settling what is due. Raises `Refused`, `RemoteError` or `LocalError`.

        Only the client that paid through the channel may ask: ids of channels, and vouchers that were settled, are
        public on chain, and a release ends the channel.
        """
        last = Claim(request.channel, request.amount_nano, request.signature)
        incoming = self._payees.get(last.channel)
        if incoming is None or incoming.client != peer:
            raise Refused("unknown_channel", "we know of no such channel of yours")
        incoming.require_idle()
        incoming.ending = True
        try:
            with translated():
                release = await self._release(incoming, last)
        except PaymentError as error:
            raise Refused("channel_unusable", str(error)) from error
        finally:
            incoming.ending = False
        self._trace("released", channel=last.channel.hex(), amount_nano=release.amount_nano)
        return released(request, release, incoming.payee.accepted)

    async def _release(self, incoming: Incoming, last: Claim) -> Claim:
        payee = incoming.payee
        if payee.state is State.OPEN:
            if last.amount_nano > payee.deposited_nano:
                await self._see_top_up(incoming)
            await self._payees.keep(incoming, last)
            if incoming.retired:
                # What was delivered since is forgotten: all that the client has signed for counts as such.
                payee.delivered_nano = payee.authorised_nano
            await self._settlements.settle(incoming)
        release = payee.release(self._signer)
        await self._keeper.do(lambda book: book.save_released(release.channel, release.amount_nano))
        return release

    async def _see_top_up(self, incoming: Incoming) -> None:
        state = await self._ledger.channel(incoming.channel)
        if state is not None:
            incoming.follow(state)

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
            await self._save_last_payout(channel)
        else:
            incoming.follow(state)
        if payee.state is not before:
            await self._keeper.do(lambda book: book.save_state(channel, payee.state))
        await self._settle(incoming)

    async def _settle(self, incoming: Incoming) -> None:
        if incoming.payee.state is not State.CLOSED:
            await self._settlements.settle(incoming)
        if incoming.payee.state is State.CLOSED:
            self._payees.drop(incoming)
            self._settlements.forget(incoming.channel)

    async def _save_last_payout(self, channel: bytes) -> None:
        """What a channel paid as it was closed: together, carried by the payer, or by us and we did not hear of it."""
        known = await self._keeper.do(lambda book: book.channel(channel))
        done = await self._ledger.transactions(channel)
        paid = {"close_by_release": known.released_nano, "close_by_payee": known.authorised_nano}
        paid_nano = paid.get(done[-1].op) if done else None
        if paid_nano is not None:
            await self._keeper.do(lambda book: book.save_settled(channel, paid_nano))
