"""The provider's trips to the chain: which voucher is carried when, what that cost, and what is not tried twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

import trio

from chain.channel import Move, State
from chain.errors import TransactionFailed
from chain.keeper import BookKeeper
from chain.ledger import Ledger, Transaction
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
        """Carry the highest voucher to the chain if there is reason to, or close with it if no higher one can come.

        What fails is told, and tried again later.
        """
        try:
            async with self._turns[incoming.channel]:
                if incoming.is_to_be_closed(self._clock(), self._policy.retired_wait_s):
                    await self._close(incoming)
                elif reason := self._why(incoming):
                    await self._carry(incoming, reason)
        except Error as error:
            self._trace("settle_failed", channel=incoming.channel.hex(), why=str(error))

    def _why(self, incoming: Incoming) -> Reason | None:
        now = self._clock()
        if incoming.payee.state is State.RELEASED:  # to settle above it would make the release worthless
            return None
        if not incoming.standing().unsettled_nano:
            self._unsettled_since.pop(incoming.channel, None)
            return None
        since = self._unsettled_since.setdefault(incoming.channel, now)
        return self._policy.why(incoming.standing(now - since), self._fee_nano)

    async def _carry(self, incoming: Incoming, reason: Reason) -> None:
        claim = incoming.payee.accepted
        assert claim is not None, "something is unsettled"
        settle = partial(self._ledger.settle, claim.channel, claim.amount_nano, claim.signature)
        done = await self._trip(incoming, reason, settle)
        if done is not None:
            self._fee_nano = done.fee_nano
            self._unsettled_since.pop(claim.channel, None)
            self._tell("settled", incoming, done.fee_nano, reason.value)

    async def _close(self, incoming: Incoming) -> None:
        payee, claim = incoming.payee, incoming.payee.accepted
        last = (claim.amount_nano, claim.signature) if claim and incoming.standing().unsettled_nano else None
        incoming.ending = True  # so that nobody is given a release meanwhile
        try:
            close = partial(self._ledger.close_by_payee, incoming.channel, last)
            done = await self._trip(incoming, Reason.RETIRED, close)
            if done is not None:
                payee.move(Move.CLOSE)
                with translated():
                    await self._keeper.do(lambda book: book.save_state(incoming.channel, State.CLOSED))
                self._tell("closed_alone", incoming, done.fee_nano, Reason.RETIRED.value)
        finally:
            incoming.ending = False

    async def _trip(
        self, incoming: Incoming, reason: Reason, operation: Callable[[], Awaitable[Transaction]]
    ) -> Transaction | None:
        """Carry the highest voucher, and write down what it brought and cost; `None` if it was refused before."""
        channel, payee, amount_nano = incoming.channel, incoming.payee, incoming.payee.authorised_nano
        if self._refused.get(channel) == amount_nano:
            return None
        with translated():
            try:
                done = await operation()
            except TransactionFailed:
                self._refused[channel] = amount_nano
                raise
            payee.settled_nano = max(payee.settled_nano, amount_nano)
            settlement = Settlement(channel, amount_nano, done.fee_nano, int(self._clock()), reason.value)
            await self._keeper.do(lambda book: book.save_settlement(settlement))
        return done

    def _tell(self, kind: str, incoming: Incoming, fee_nano: int, why: str) -> None:
        settled_nano = incoming.payee.settled_nano
        self._trace(kind, channel=incoming.channel.hex(), settled_nano=settled_nano, fee_nano=fee_nano, why=why)
