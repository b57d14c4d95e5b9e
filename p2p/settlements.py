"""The provider's trips to the chain: which voucher is carried when, what that cost, and what is not tried twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

import trio

from chain.channel import Payee, State
from chain.errors import TransactionFailed
from chain.keeper import BookKeeper
from chain.ledger import Ledger
from chain.records import Channel, Records, Settlement
from chain.settling import FEE_NANO, Reason, SettlePolicy, Standing
from p2p.errors import Error
from p2p.foreign import translated
from p2p.trace import Trace


class Settlements:
    """Settles channels by the policy, each by one task at a time."""

    def __init__(
        self, *, ledger: Ledger, keeper: BookKeeper, policy: SettlePolicy, clock: Callable[[], float], trace: Trace
    ) -> None:
        self._ledger = ledger
        self._keeper = keeper
        self._policy = policy
        self._clock = clock
        self._trace = trace
        self._fee_nano = FEE_NANO
        self._unsettled_since: dict[bytes, float] = {}
        self._refused: dict[bytes, int] = {}  # amounts that the chain refused: to repeat one would only cost fees
        self._turns: defaultdict[bytes, trio.Lock] = defaultdict(trio.Lock)

    async def load(self, channels: Iterable[Channel]) -> None:
        """Take up what the book knows: the last fee, and what has waited since when. Raises `chain.errors`."""
        names = [known.channel for known in channels]

        def read(book: Records) -> tuple[int | None, dict[bytes, float]]:
            since = {name: book.unsettled_since(name) for name in names}
            return book.last_fee(), {name: at for name, at in since.items() if at is not None}

        fee_nano, self._unsettled_since = await self._keeper.do(read)
        self._fee_nano = FEE_NANO if fee_nano is None else fee_nano

    def forget(self, channel: bytes) -> None:
        """It is closed."""
        self._unsettled_since.pop(channel, None)
        self._refused.pop(channel, None)
        self._turns.pop(channel, None)

    def within_risk(self, payee: Payee) -> bool:
        """Whether more may be earned there before something is settled."""
        return payee.authorised_nano - payee.settled_nano < self._policy.risk_nano

    async def settle(self, payee: Payee) -> None:
        """Carry the highest voucher to the chain if there is reason to. What fails is told, and tried again later."""
        try:
            async with self._turns[payee.channel]:
                reason = self._why(payee)
                if reason is not None:
                    await self._carry(payee, reason)
        except Error as error:
            self._trace("settle_failed", channel=payee.channel.hex(), why=str(error))

    def _why(self, payee: Payee) -> Reason | None:
        now, channel = self._clock(), payee.channel
        if payee.authorised_nano <= payee.settled_nano:
            self._unsettled_since.pop(channel, None)
            return None
        standing = Standing(
            authorised_nano=payee.authorised_nano,
            settled_nano=payee.settled_nano,
            deposited_nano=payee.deposited_nano,
            closing=payee.state is State.CLOSING,
            unsettled_for_s=now - self._unsettled_since.setdefault(channel, now),
        )
        return self._policy.why(standing, self._fee_nano)

    async def _carry(self, payee: Payee, reason: Reason) -> None:
        channel, claim = payee.channel, payee.accepted
        if claim is None or self._refused.get(channel) == claim.amount_nano:
            return
        with translated():
            try:
                done = await self._ledger.settle(channel, claim.amount_nano, claim.signature)
            except TransactionFailed:
                self._refused[channel] = claim.amount_nano
                raise
            self._fee_nano = done.fee_nano
            self._unsettled_since.pop(channel, None)
            payee.settled_nano = max(payee.settled_nano, claim.amount_nano)
            settlement = Settlement(channel, claim.amount_nano, done.fee_nano, int(self._clock()), reason.value)
            await self._keeper.do(lambda book: book.save_settlement(settlement))
        self._trace(
            "settled",
            channel=channel.hex(),
            settled_nano=claim.amount_nano,
            fee_nano=done.fee_nano,
            why=reason.value,
        )
