"""A simulated provider's channels: looked up on chain before they are served, settled when due, released at the end.

What a real node keeps on disk is a `_Row` here. A crash loses everything else, so that what the session cores ask to
have saved is all that a provider comes back with.
"""

from __future__ import annotations

from dataclasses import dataclass

from chain.channel import Payee, State
from chain.errors import ChannelUnusable
from chain.memory import FEES_NANO
from chain.settling import SettlePolicy
from chain.voucher import Claim, Signer
from p2p.errors import Refused
from p2p.protocol.advert import ChannelOffer
from p2p.protocol.incoming import BUSY_RETRY_S, Incoming, require_suitable
from p2p.protocol.negotiate import Refusal
from p2p.protocol.release import CloseRequest, Released, released
from p2p.protocol.session import Save, SaveClaim, SaveDelivered
from sim.process import spawn
from sim.signatures import verify
from sim.slow_chain import NETWORK
from sim.world import World


@dataclass
class _Row:
    """One channel as it is on disk."""

    client: str
    payer_key: bytes
    accepted: Claim | None = None
    delivered_nano: int = 0


class Payees:
    """All channels that pay one provider."""

    def __init__(self, world: World, offer: ChannelOffer, signer: Signer) -> None:
        self._world = world
        self._offer = offer
        self._signer = signer
        self._policy = SettlePolicy(risk_nano=world.scenario.providers.settle_at_nano)
        self._rows: dict[bytes, _Row] = {}
        self._channels: dict[bytes, Incoming] = {}
        self._settling: dict[bytes, None] = {}

    def lease(self, channel: bytes, client: str, payer_key: bytes) -> Payee:
        """The channel for one session, as the chain has it now. Raises `Refused`."""
        try:
            incoming = self._looked_up(channel, client, payer_key)
        except ChannelUnusable as error:
            raise Refused("channel_unusable", str(error)) from error
        incoming.enter()
        return incoming.payee

    def give_back(self, channel: bytes) -> None:
        """The session is over: settle what has become worth it."""
        incoming = self._channels[channel]
        incoming.leave()
        reason = self._policy.why(incoming.standing(), FEES_NANO["settle"])
        claim = incoming.payee.accepted
        if reason and claim and channel not in self._settling:
            self._settling[channel] = None
            spawn(self._settle(claim))

    def save(self, event: Save) -> None:
        """What a session core wants to have on disk. Receipts are kept by the trace."""
        match event:
            case SaveClaim(claim, delivered_nano):
                row = self._rows[claim.channel]
                row.accepted, row.delivered_nano = claim, delivered_nano
                payee = self._channels[claim.channel].payee
                payee.saved(authorised_nano=claim.amount_nano, delivered_nano=delivered_nano)
            case SaveDelivered(channel, delivered_nano):
                self._rows[channel].delivered_nano = delivered_nano
                self._channels[channel].payee.saved(delivered_nano=delivered_nano)

    def release(self, request: CloseRequest, client: str) -> Released | Refusal:
        """Let the payer close at what was delivered, unless an answer or a settlement is under way."""
        last = Claim(request.channel, request.amount_nano, request.signature)
        try:
            incoming = self._to_be_released(last, client)
        except Refused as no:
            return Refusal.of(no)
        except ChannelUnusable as error:
            return Refusal(reason="channel_unusable", detail=str(error))
        return released(request, incoming.payee.release(self._signer), incoming.payee.accepted)

    def crash(self) -> None:
        """Forget everything that is not on disk."""
        self._channels = {channel: self._from_disk(channel, row) for channel, row in self._rows.items()}

    def _to_be_released(self, last: Claim, client: str) -> Incoming:
        incoming = self._channels.get(last.channel)
        if incoming is None or incoming.payee.state is State.OPEN:
            incoming = self._looked_up(last.channel, client)
            incoming.payee.accept(last)
        incoming.require_idle()
        if last.channel in self._settling:
            raise Refused("channel_busy", "a voucher is on its way to the chain", retry_after_s=BUSY_RETRY_S)
        return incoming

    def _looked_up(self, channel: bytes, client: str, payer_key: bytes | None = None) -> Incoming:
        """The channel as the chain has it, taken up if it is new. Raises `ChannelUnusable`."""
        state = self._world.chain.memory.channel(channel)
        if state is None:
            raise ChannelUnusable("the chain has no such channel")
        require_suitable(state, self._offer, payer_key or state.terms.payer_key)
        if channel not in self._channels:
            self._rows[channel] = _Row(client, state.terms.payer_key)
            self._channels[channel] = self._from_disk(channel, self._rows[channel])
        incoming = self._channels[channel]
        incoming.follow(state)
        incoming.require_usable()
        return incoming

    def _from_disk(self, channel: bytes, row: _Row) -> Incoming:
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
        incoming = Incoming(payee, row.client)
        if state:
            incoming.follow(state)
        return incoming

    async def _settle(self, claim: Claim) -> None:
        memory, wallet, channel = self._world.chain.memory, self._offer.payee, claim.channel
        await self._world.chain.confirmed(
            wallet, lambda: memory.settle(wallet, channel, claim.amount_nano, claim.signature)
        )
        del self._settling[channel]
        # After a crash meanwhile it is another object that stands for this channel.
        self._channels[channel].payee.settled_nano = claim.amount_nano
