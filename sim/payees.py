"""A simulated provider's channels: looked up on chain before they are served, settled when due, released at the end.

What a real node keeps on disk is a `_Row` here. A crash loses everything else, so that what the session cores ask to
have saved is all that a provider comes back with.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from chain.channel import Payee, State, require_acceptable
from chain.errors import ChannelUnusable
from chain.voucher import Claim, Signer
from p2p.errors import Refused
from p2p.protocol.advert import ChannelOffer
from p2p.protocol.negotiate import Refusal
from p2p.protocol.release import CloseRequest, Released
from p2p.protocol.session import SESSIONS_PER_CHANNEL_MAX, Save, SaveClaim, SaveDelivered
from sim.process import spawn
from sim.signatures import verify
from sim.slow_chain import NETWORK
from sim.world import World

BUSY_RETRY_S = 5


@dataclass
class _Row:
    """One channel as it is on disk."""

    payer_key: bytes
    accepted: Claim | None = None
    delivered_nano: int = 0


class Payees:
    """All channels that pay one provider."""

    def __init__(self, world: World, offer: ChannelOffer, signer: Signer) -> None:
        self._world = world
        self._offer = offer
        self._signer = signer
        self._rows: dict[bytes, _Row] = {}
        self._payees: dict[bytes, Payee] = {}
        self._sessions: Counter[bytes] = Counter()
        self._settling: dict[bytes, None] = {}

    def lease(self, channel: bytes, payer_key: bytes) -> Payee:
        """The channel for one session, as the chain has it now. Raises `Refused`."""
        if self._sessions[channel] >= SESSIONS_PER_CHANNEL_MAX:
            raise Refused("channel_busy", retry_after_s=BUSY_RETRY_S)
        payee = self._looked_up(channel, payer_key)
        self._sessions[channel] += 1
        return payee

    def give_back(self, channel: bytes) -> None:
        """The session is over: settle what has become worth it."""
        self._sessions[channel] -= 1
        payee = self._payees[channel]
        claim = payee.to_settle(self._world.scenario.providers.settle_at_nano)
        if claim is not None and payee.state is State.OPEN and channel not in self._settling:
            self._settling[channel] = None
            spawn(self._settle(payee, claim))

    def save(self, event: Save) -> None:
        """What a session core wants to have on disk. Receipts are kept by the trace."""
        match event:
            case SaveClaim(claim, delivered_nano):
                row = self._rows[claim.channel]
                row.accepted, row.delivered_nano = claim, delivered_nano
            case SaveDelivered(channel, delivered_nano):
                self._rows[channel].delivered_nano = delivered_nano

    def release(self, request: CloseRequest) -> Released | Refusal:
        """Let the payer close at what was delivered, unless an answer or a settlement is under way."""
        channel = request.channel
        if self._sessions[channel] or channel in self._settling:
            return Refusal(reason="channel_busy", retry_after_s=BUSY_RETRY_S)
        state = self._world.chain.memory.channel(channel)
        if state is None:
            return Refusal(reason="unknown_channel")
        payee = self._payees.get(channel)
        if payee is None or payee.state is State.OPEN:
            payee = self._looked_up(channel, state.terms.payer_key)
            payee.accept(Claim(channel, request.amount_nano, request.signature))
        claim = payee.release(self._signer)
        return Released(channel=channel, amount_nano=claim.amount_nano, signature=claim.signature)

    def crash(self) -> None:
        """Forget everything that is not on disk."""
        self._sessions.clear()
        self._payees = {channel: self._restored(channel, row) for channel, row in self._rows.items()}

    def _looked_up(self, channel: bytes, payer_key: bytes) -> Payee:
        state = self._world.chain.memory.channel(channel)
        if state is None:
            raise Refused("channel_unusable", "the chain has no such channel")
        try:
            require_acceptable(
                state,
                payee=self._offer.payee,
                payee_key=self._offer.payee_key,
                payer_key=payer_key,
                deposit_min_nano=self._offer.deposit_min_nano,
                challenge_period_min_s=self._offer.challenge_period_s,
            )
            if channel not in self._payees:
                self._rows[channel] = _Row(payer_key)
                self._payees[channel] = self._restored(channel, self._rows[channel])
            self._payees[channel].funded(state.deposited_nano)
        except ChannelUnusable as error:
            raise Refused("channel_unusable", str(error)) from error
        return self._payees[channel]

    def _restored(self, channel: bytes, row: _Row) -> Payee:
        state = self._world.chain.memory.channel(channel)
        payee = Payee(
            channel,
            NETWORK.global_id,
            row.payer_key,
            verify,
            deposited_nano=state.deposited_nano if state else 0,
            delivered_nano=row.delivered_nano,
            accepted=row.accepted,
        )
        payee.settled_nano = state.settled_nano if state else 0
        return payee

    async def _settle(self, payee: Payee, claim: Claim) -> None:
        memory, wallet = self._world.chain.memory, self._offer.payee
        await self._world.chain.confirmed(
            wallet, lambda: memory.settle(wallet, payee.channel, claim.amount_nano, claim.signature)
        )
        del self._settling[payee.channel]
        # After a crash meanwhile it is another object that stands for this channel.
        self._payees[payee.channel].settled_nano = claim.amount_nano
