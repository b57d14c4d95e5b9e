"""The provider's side of negotiations: what is asked for, what it costs today, and who holds a place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec
import trio

from inference.engine import Engine, ModelInfo
from inference.measure import Measured
from p2p.errors import Refused, RemoteError, Unavailable
from p2p.host import Stream
from p2p.keys import verify_by_peer
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
from p2p.protocol.wire import BodySigner, Signed, open_signed, sign
from p2p.stream import MessageStream
from p2p.trace import Trace, silent

TURN_TIMEOUT_S = 20.0
NEGOTIATION_TIMEOUT_S = 60.0  # for all turns, and for a client that does not read
# The client's round trip is not known when the price is; the window's floor of 64 tokens covers this one.
ASSUMED_RTT_MS = 250
BUSY_RETRY_S = 5


@dataclass(frozen=True)
class PriceList:
    """A model's prices and how they may move."""

    prices: Prices
    strategy: SellerStrategy
    window_cap_nano: int


class Sales:
    """Makes quotes, keeps them, and knows which model is offered at what price."""

    def __init__(
        self,
        *,
        network: str,
        peer: str,
        signer: BodySigner,
        engine: Engine,
        measured: Mapping[str, Measured],
        price_list: PriceList,
        channel: ChannelOffer,
        clock: Callable[[], float],
        trace: Trace = silent,
    ) -> None:
        self._network = network
        self._peer = peer
        self._signer = signer
        self._engine = engine
        self._measured = measured
        self._price_list = price_list
        self._channel = channel
        self._clock = clock
        self._trace = trace
        self._models = {model.id: model for model in engine.models()}
        self._places = Places()
        self._uses = QuoteUses()
        self._sessions = 0  # begun; each will use a slot, though its engine may not have started yet

    def offers(self) -> tuple[ModelOffer, ...]:
        """What the advert says right now."""
        free, total = self._unpromised(), self._engine.capacity().total
        return tuple(
            ModelOffer(
                id=model.id,
                family=model.family,
                quantisation=model.quantisation,
                digest=model.digest,
                context=model.context,
                prices=self._price_list.prices,
                ttft_ms=self._measured[model.id].ttft_ms,
                tokens_per_s=self._measured[model.id].tokens_per_s,
                slots_free=free,
                slots_total=total,
            )
            for model in self._models.values()
        )

    async def negotiate(self, stream: Stream) -> None:
        """One negotiation. Raises `RemoteError` or `Unavailable`, which end this stream."""
        messages = MessageStream[ToProvider](stream, ToProvider)
        with trio.move_on_after(NEGOTIATION_TIMEOUT_S) as patience:
            await self._negotiate(messages)
        if patience.cancelled_caught:
            raise Unavailable("the client took too long")
        await messages.close()

    async def _negotiate(self, messages: MessageStream[ToProvider]) -> None:
        seller = Seller()
        done = False
        while not done:
            message = await messages.answer(TURN_TIMEOUT_S)
            seller.receive(message)
            try:
                reply: ToClient = self._reply(seller, message, messages.peer)
            except Refused as no:
                reply = seller.refuse(Refusal.of(no))
            await messages.send(reply)
            done = isinstance(message, Accept) or isinstance(reply, Refusal)

    @contextmanager
    def redeemed(self, signed: Signed, peer: str) -> Iterator[tuple[Quote, ModelInfo]]:
        """A quote shown to start a session, which has a slot while the context lasts.

        Raises `RemoteError` for a quote that is not ours or not the peer's, `Refused` for one that is used up or late.
        """
        quote = open_signed(signed, Quote, by=lambda body: body.provider, network=self._network, verify=verify_by_peer)
        if quote.provider != self._peer or quote.client != peer:
            raise RemoteError("wrong_quote", "it was made by or for another peer")
        model = self._models.get(quote.model)
        if model is None:  # quoted before a restart
            raise Refused("no_such_model", f"{quote.model} is not served here any more")
        self._uses.use(signed.id, quote, self._clock())
        if not self._places.take(signed.id) and self._unpromised() < 1:
            raise Refused("busy", "every slot is in use", retry_after_s=BUSY_RETRY_S)
        self._sessions += 1
        try:
            yield quote, model
        finally:
            self._sessions -= 1

    def _slots_free(self) -> int:
        capacity = self._engine.capacity()
        return max(0, min(capacity.free, capacity.total - self._sessions))

    def _unpromised(self) -> int:
        return self._places.free(self._slots_free(), self._clock())

    def _reply(self, seller: Seller, message: ToProvider, client: str) -> ToClient:
        strategy, free, total = self._price_list.strategy, self._slots_free(), self._engine.capacity().total
        match message:
            case Ask():
                self._require_servable(message)
                prices = strategy.opening(free=free, total=total)
                return seller.offer(self._quote(message, prices, client), final=False)
            case Counter(prices=wanted):
                assert seller.asked is not None
                prices, final = strategy.answer(wanted, free=free, total=total)
                return seller.offer(self._quote(seller.asked, prices, client), final=final)
            case Accept(quote_id=quote_id):
                return self._confirm(seller, quote_id, client)

    def _require_servable(self, ask: Ask) -> None:
        model = self._models.get(ask.model)
        if model is None:
            raise Refused("no_such_model", f"{ask.model} is not served here")
        if ask.tier != "open":
            raise Refused("no_such_tier", "only the open tier is served here")
        if ask.prompt_tokens + ask.max_tokens > model.context:
            raise Refused(
                "too_long", f"prompt and answer together may have {model.context} tokens: shorten one of them"
            )
        if self._unpromised() < 1:
            raise Refused("busy", "every slot is in use or promised", retry_after_s=BUSY_RETRY_S)

    def _quote(self, ask: Ask, prices: Prices, client: str) -> Signed:
        now = int(self._clock())
        speed = self._measured[ask.model]
        window = window_nano(
            prices,
            rtt_ms=ASSUMED_RTT_MS,
            tokens_per_s=speed.tokens_per_s,
            cap_nano=self._price_list.window_cap_nano,
        )
        quote = Quote(
            network=self._network,
            provider=self._peer,
            client=client,
            payer_key=ask.payer_key,
            model=ask.model,
            digest=self._models[ask.model].digest,
            prompt_tokens=ask.prompt_tokens,
            max_tokens=ask.max_tokens,
            prices=prices,
            window_nano=window,
            ttft_ms=speed.ttft_ms,
            tokens_per_s=speed.tokens_per_s,
            channel=self._channel,
            uses=1,
            issued_at=now,
            valid_until=now + QUOTE_LIFETIME_S,
            nonce=ask.nonce,
        )
        self._trace("quoted", peer=client, model=ask.model, prices=msgspec.structs.asdict(prices))
        return sign(quote, self._signer)

    def _confirm(self, seller: Seller, quote_id: bytes, client: str) -> ToClient:
        now = self._clock()
        if not self._places.hold(quote_id, client, slots_free=self._slots_free(), now=now):
            raise Refused("busy", "every slot is in use or promised", retry_after_s=BUSY_RETRY_S)
        self._trace("promised", peer=client)
        return seller.confirm(int(now) + HOLD_S)
