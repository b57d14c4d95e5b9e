"""A simulated provider's side of negotiations: what it quotes, whom it promised a slot, which quotes are used up."""

from __future__ import annotations

from inference.engine import Capacity
from p2p.errors import Refused
from p2p.protocol.advert import ChannelOffer, ModelOffer
from p2p.protocol.negotiate import (
    QUOTE_LIFETIME_S,
    Accept,
    Ask,
    Counter,
    Quote,
    QuoteUses,
    Refusal,
    Seller,
    ToClient,
    ToProvider,
)
from p2p.protocol.places import HOLD_S, Places
from p2p.protocol.price import Prices
from p2p.protocol.strategy import SellerStrategy
from p2p.protocol.window import window_nano
from p2p.protocol.wire import Signed, open_signed, sign
from sim.engine import Pace
from sim.network import End, Inbox
from sim.payees import BUSY_RETRY_S
from sim.signatures import FakeSigner, verify_by_peer
from sim.slow_chain import NETWORK
from sim.world import World

PATIENCE_S = 20.0
DIGEST = "00" * 32  # of the weights: every simulated provider has the same
QUANTISATION = "q4"
CONTEXT_TOKENS = 32_768


class Sales:
    """Sells one model's answers at the prices that a strategy names."""

    def __init__(
        self,
        world: World,
        peer: str,
        *,
        prices: Prices,
        strategy: SellerStrategy,
        pace: Pace,
        slots: int,
        channel: ChannelOffer,
    ) -> None:
        self._world = world
        self._peer = peer
        self._signer = FakeSigner(peer)
        self._prices = prices
        self._strategy = strategy
        self._pace = pace
        self._slots = slots
        self._channel = channel
        self._places = Places()
        self._uses = QuoteUses()
        self.busy = 0  # slots in use

    @property
    def _capacity(self) -> Capacity:
        return Capacity(free=self._slots - self.busy, total=self._slots)

    def offer(self) -> ModelOffer:
        """What the advert says right now."""
        model, scenario = self._world.scenario.model, self._world.scenario
        return ModelOffer(
            id=model,
            family=model.partition("/")[0].lower(),
            quantisation=QUANTISATION,
            digest=DIGEST,
            context=CONTEXT_TOKENS,
            prices=self._prices,
            ttft_ms=self._ttft_ms(round(scenario.clients.prompt_tokens.median)),
            tokens_per_s=self._pace.tokens_per_s,
            slots_free=self._places.free(self._capacity.free, self._world.kernel.now),
            slots_total=self._slots,
        )

    async def negotiate(self, end: End) -> None:
        """One negotiation, to its end."""
        inbox = Inbox[ToProvider](self._world.kernel, end, ToProvider, patience_s=PATIENCE_S)
        seller = Seller()
        while (message := await inbox.next()) is not None:
            seller.receive(message)
            try:
                reply: ToClient = self._reply(seller, message, end.peer)
            except Refused as no:
                reply = seller.refuse(Refusal(reason=no.reason, retry_after_s=no.retry_after_s))
            end.send(reply)
        end.close()

    def redeem(self, signed: Signed, client: str) -> Quote:
        """A quote shown to start a session. Raises `Refused` for one that is used up, or when all slots are taken."""
        quote = open_signed(signed, Quote, by=lambda body: body.provider, network=NETWORK.name, verify=verify_by_peer)
        assert (quote.provider, quote.client) == (self._peer, client)
        now = self._world.kernel.now
        self._uses.use(signed.id, quote, now)
        if not self._places.take(signed.id) and self._places.free(self._capacity.free, now) < 1:
            raise Refused("busy", retry_after_s=BUSY_RETRY_S)
        return quote

    def crash(self) -> None:
        """Promises live in memory only."""
        self._places, self._uses, self.busy = Places(), QuoteUses(), 0

    def _reply(self, seller: Seller, message: ToProvider, client: str) -> ToClient:
        capacity, now = self._capacity, self._world.kernel.now
        match message:
            case Ask():
                if self._places.free(capacity.free, now) < 1:
                    raise Refused("busy", retry_after_s=BUSY_RETRY_S)
                prices = self._strategy.opening(free=capacity.free, total=capacity.total)
                return seller.offer(self._quote(message, prices, client), final=False)
            case Counter(prices=wanted):
                assert seller.asked is not None
                prices, final = self._strategy.answer(wanted, free=capacity.free, total=capacity.total)
                return seller.offer(self._quote(seller.asked, prices, client), final=final)
            case Accept(quote_id=quote_id):
                if not self._places.hold(quote_id, client, slots_free=capacity.free, now=now):
                    raise Refused("busy", retry_after_s=BUSY_RETRY_S)
                return seller.confirm(int(now) + HOLD_S)

    def _quote(self, ask: Ask, prices: Prices, client: str) -> Signed:
        now = int(self._world.kernel.now)
        window = window_nano(
            prices,
            rtt_ms=self._world.network.rtt_ms(self._peer, client),
            tokens_per_s=self._pace.tokens_per_s,
            cap_nano=self._world.scenario.providers.window_cap_nano,
        )
        quote = Quote(
            network=NETWORK.name,
            provider=self._peer,
            client=client,
            payer_key=ask.payer_key,
            model=ask.model,
            digest=DIGEST,
            prompt_tokens=ask.prompt_tokens,
            max_tokens=ask.max_tokens,
            prices=prices,
            window_nano=window,
            ttft_ms=self._ttft_ms(ask.prompt_tokens),
            tokens_per_s=self._pace.tokens_per_s,
            channel=self._channel,
            uses=1,
            issued_at=now,
            valid_until=now + QUOTE_LIFETIME_S,
            nonce=ask.nonce,
        )
        return sign(quote, self._signer)

    def _ttft_ms(self, prompt_tokens: int) -> int:
        return 1000 * prompt_tokens // self._pace.prefill_tokens_per_s + 1000 // self._pace.tokens_per_s
