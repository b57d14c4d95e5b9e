"""The watchtower: settles for payees who are away, before a payer that closes can take back what it owes.

It needs no key of theirs. It holds vouchers, looks at their channels often enough for any challenge period, and carries
a voucher to the chain when the payer starts to close or when a limit on risk is passed. The chain pays the payee
whoever carries; what the message did not use comes back to the carrier, so a watchtower spends fees and nothing else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Protocol

import trio

from chain.errors import ChainError, TransactionFailed
from chain.keys import verify
from chain.ledger import ChannelState, Ledger
from chain.settling import FEE_NANO, Reason, SettlePolicy, Standing
from chain.voucher import VOUCHER_TAG, Claim, claim_is_good

LOOKS_PER_CHALLENGE_PERIOD = 4
LOOK_AT_LEAST_EVERY_S = 60.0
LOOKS_AT_ONCE = 8


class Report(Protocol):
    """Is told what happened: a short word, and plain values."""

    def __call__(self, kind: str, /, **fields: object) -> None: ...


def look_every_s(challenge_periods_s: Iterable[int]) -> float:
    """How often to look at channels with these challenge periods."""
    return min([LOOK_AT_LEAST_EVERY_S, *(period / LOOKS_PER_CHALLENGE_PERIOD for period in challenge_periods_s)])


class Watchtower:
    """Watches the channels of its charges, which it asks for anew before each round of looks."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        charges: Callable[[], Awaitable[Sequence[Claim]]],
        policy: SettlePolicy,
        report: Report,
    ) -> None:
        """`charges` may raise `ChainError`; those that it gave before are watched on then."""
        self._ledger = ledger
        self._charges = charges
        self._policy = policy
        self._report = report
        self._known: Sequence[Claim] = ()
        self._periods_s: dict[bytes, int] = {}  # the channels' challenge periods, as the chain has them
        self._fee_nano = FEE_NANO
        self._given_up: dict[bytes, int] = {}  # amounts that the chain refused: to repeat one would only cost fees

    async def run(self) -> None:
        """Look at all channels, for ever."""
        while True:
            await self.look()
            await trio.sleep(look_every_s(self._periods_s.values()))

    async def look(self) -> None:
        """One round: a look at every channel, and what has to be done about it. Failures are reported, not raised."""
        await self._take_charge()
        limit = trio.CapacityLimiter(LOOKS_AT_ONCE)
        async with trio.open_nursery() as nursery:
            for charge in self._known:
                nursery.start_soon(self._guarded, limit, charge)

    async def _take_charge(self) -> None:
        try:
            charges = await self._charges()
        except ChainError as error:
            self._report("charges_failed", why=str(error))
            return
        if {charge.channel for charge in charges} != {charge.channel for charge in self._known}:
            self._report("watching", channels=len(charges))
        self._known = charges

    async def _guarded(self, limit: trio.CapacityLimiter, charge: Claim) -> None:
        async with limit:
            try:
                await self._look_at(charge)
            except ChainError as error:  # the next look is soon
                self._report("look_failed", channel=charge.channel.hex(), why=str(error))

    async def _look_at(self, charge: Claim) -> None:
        state = await self._ledger.channel(charge.channel)
        if state is None:
            self._periods_s.pop(charge.channel, None)
            return
        self._periods_s[charge.channel] = state.terms.challenge_period_s
        why = self._why(charge, state)
        if why is None or self._given_up.get(charge.channel) == charge.amount_nano:
            return
        if not self._is_good(charge, state):
            self._given_up[charge.channel] = charge.amount_nano
            self._report("bad_charge", channel=charge.channel.hex(), amount_nano=charge.amount_nano)
            return
        try:
            done = await self._ledger.settle(charge.channel, charge.amount_nano, charge.signature)
        except TransactionFailed:
            self._given_up[charge.channel] = charge.amount_nano
            raise
        self._fee_nano = done.fee_nano
        self._report(
            "settled",
            channel=charge.channel.hex(),
            settled_nano=charge.amount_nano,
            fee_nano=done.fee_nano,
            why=why.value,
        )

    def _why(self, charge: Claim, state: ChannelState) -> Reason | None:
        standing = Standing(
            authorised_nano=charge.amount_nano,
            settled_nano=state.settled_nano,
            deposited_nano=state.deposited_nano,
            closing=state.close_at != 0,
        )
        return self._policy.why(standing, self._fee_nano)

    def _is_good(self, charge: Claim, state: ChannelState) -> bool:
        """Whether the chain will take it: a wrong one would cost us the fee."""
        signed = partial(claim_is_good, verify, state.terms.payer_key, VOUCHER_TAG, self._ledger.network.global_id)
        return charge.amount_nano <= state.deposited_nano and signed(charge)
