"""The provider's trips to the chain: which voucher is carried when, what that cost, and what is not tried twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

import trio

from chain.errors import TransactionFailed
from chain.keeper import BookKeeper
from chain.ledger import Ledger
from chain.records import Records, Settlement
from chain.settling import FEE_NANO, Reason, SettlePolicy
from p2p.errors import Error
from p2p.foreign import translated
from p2p.protocol.incoming import Incoming
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

    async def load(self, channels: Iterable[Incoming]) -> None:
        """Take up what the book knows: the last fee, and what has waited since when. Raises `LocalError`."""
        names = [each.channel for each in channels]

        def read(book: Records) -> tuple[int | None, dict[bytes, float]]:
            since = {name: book.unsettled_since(name) for name in names}
            return book.last_fee(), {name: at for name, at in since.items() if at is not None}

        with translated():
            fee_nano, self._unsettled_since = await self._keeper.do(read)
        self._fee_nano = FEE_NANO if fee_nano is None else fee_nano

    def forget(self, channel: bytes) -> None:
        """It is closed."""
        self._unsettled_since.pop(channel, None)
        self._refused.pop(channel, None)
        self._turns.pop(channel, None)

    def within_risk(self, incoming: Incoming) -> bool:
        """Whether more may be earned there before something is settled."""
        return incoming.standing().unsettled_nano < self._policy.risk_nano

    async def settle(self, incoming: Incoming) -> None:
        """Carry the highest voucher to the chain if there is reason to. What fails is told, and tried again later."""
        try:
            async with self._turns[incoming.channel]:
                reason = self._why(incoming)
                if reason is not None:
                    await self._carry(incoming, reason)
        except Error as error:
            self._trace("settle_failed", channel=incoming.channel.hex(), why=str(error))

    def _why(self, incoming: Incoming) -> Reason | None:
        now = self._clock()
        if not incoming.standing().unsettled_nano:
            self._unsettled_since.pop(incoming.channel, None)
            return None
        since = self._unsettled_since.setdefault(incoming.channel, now)
        return self._policy.why(incoming.standing(now - since), self._fee_nano)

    async def _carry(self, incoming: Incoming, reason: Reason) -> None:
        channel, payee, claim = incoming.channel, incoming.payee, incoming.payee.accepted
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
