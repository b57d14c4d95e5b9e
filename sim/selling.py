"""A simulated provider's side of negotiations: the core that real providers use, at the pace of a simulated machine."""

from __future__ import annotations

from functools import partial

from inference.engine import Capacity, ModelInfo
from p2p.protocol.advert import ChannelOffer, ModelOffer
from p2p.protocol.negotiate import Owed, Quote, Seller
from p2p.protocol.sales import PriceList, Sales, Speed
from p2p.protocol.wire import Signed
from sim.engine import Pace
from sim.network import End, Inbox
from sim.signatures import FakeSigner, verify_by_peer
from sim.slow_chain import NETWORK
from sim.world import World

PATIENCE_S = 20.0
DIGEST = "00" * 32  # of the weights: every simulated provider has the same
QUANTISATION = "q4"
CONTEXT_TOKENS = 32_768


class Selling:
    """Sells one model's answers at the prices that a strategy names."""

    def __init__(
        self, world: World, peer: str, *, price_list: PriceList, pace: Pace, slots: int, channel: ChannelOffer
    ) -> None:
        self._world = world
        self._slots = slots
        model = world.scenario.model
        info = ModelInfo(
            id=model,
            family=model.partition("/")[0].lower(),
            quantisation=QUANTISATION,
            digest=DIGEST,
            context=CONTEXT_TOKENS,
        )
        self._open = partial(
            Sales,
            network=NETWORK.name,
            signer=FakeSigner(peer),
            verify=verify_by_peer,
            peer=peer,
            models=[info],
            speed=lambda _, prompt_tokens: _speed(pace, prompt_tokens),
            rtt_ms=partial(world.network.rtt_ms, peer),
            price_list=price_list,
            channel=channel,
        )
        self.crash()

    def crash(self) -> None:
        """Promises live in memory only."""
        self._sales = self._open()
        self.busy = 0  # slots in use

    def offers(self) -> tuple[ModelOffer, ...]:
        """What the advert says right now."""
        prompt_tokens = round(self._world.scenario.clients.prompt_tokens.median)
        return self._sales.offers(self._capacity, self._world.kernel.now, prompt_tokens=prompt_tokens)

    async def negotiate(self, end: End) -> None:
        """One negotiation, to its end."""
        inbox = Inbox[Owed](self._world.kernel, end, Owed, patience_s=PATIENCE_S)
        seller = Seller()
        while (message := await inbox.next()) is not None:
            end.send(self._sales.answer(seller, message, end.peer, self._capacity, self._world.kernel.now))
        end.close()

    def redeem(self, signed: Signed, client: str) -> Quote:
        """A quote shown to start a session. Raises as `Sales.redeem`."""
        quote, _ = self._sales.redeem(signed, client, self._capacity, self._world.kernel.now)
        return quote

    def ended(self, signed: Signed) -> None:
        """The session that this quote was redeemed for is over, or never began."""
        self._sales.ended(signed.id)

    @property
    def _capacity(self) -> Capacity:
        return Capacity(free=self._slots - self.busy, total=self._slots)


def _speed(pace: Pace, prompt_tokens: int) -> Speed:
    ttft_ms = 1000 * prompt_tokens // pace.prefill_tokens_per_s + 1000 // pace.tokens_per_s
    return Speed(ttft_ms, pace.tokens_per_s)
