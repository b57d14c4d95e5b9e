"""Core: what a provider answers to who negotiates: what it costs today, who holds a place, which quotes are used."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from inference.engine import CONTINUE, Capacity, ModelInfo, Request
from p2p.errors import Refused, RemoteError
from p2p.protocol.advert import ChannelOffer, ModelOffer
from p2p.protocol.allowance import Left, slots_to_give
from p2p.protocol.demand import Wanted
from p2p.protocol.negotiate import (
    QUOTE_LIFETIME_S,
    Accept,
    Ask,
    Counter,
    Owed,
    Quote,
    QuoteUses,
    Refusal,
    Seller,
    ToClient,
    Turn,
)
from p2p.protocol.places import BUSY_RETRY_S, HELD_RETRY_S, HOLD_S, Places, Queue
from p2p.protocol.price import FREE, Prices
from p2p.protocol.standing import NONE_AHEAD, USES_LEAST, StandingLimits, StandingQuotes
from p2p.protocol.strategy import Bid, Load, SellerStrategy, Volume
from p2p.protocol.window import window_nano
from p2p.protocol.wire import BodySigner, PeerVerifier, Signed, open_signed, sign

NOTHING_LEFT = Left()


@dataclass(frozen=True)
class PriceList:
    """What every model is sold at, and the most that one client may owe: on one answer, and on all together.

    Whatever the strategy says, nothing is sold below `least`, or by a standing quote below `least_standing`, and no
    quote is dearer than the one before it.
    """

    strategy: SellerStrategy
    window_cap_nano: int
    least: Prices = FREE
    least_standing: Prices = FREE
    standing_limits: StandingLimits = NONE_AHEAD

    def opening(self, load: Load) -> Prices:
        """The first quote."""
        return self.strategy.opening(load).at_least(self.least)

    def answer(self, wanted: Prices, turn: Turn, load: Load) -> Bid:
        """The quote after a counter."""
        bid = self.strategy.answer(wanted, turn, load)
        return bid._replace(prices=bid.prices.at_least(self.least).at_most(turn.quoted))

    def standing(self, volume: Volume) -> Prices:
        """The one quote for many answers."""
        return self.strategy.standing(volume).at_least(self.least_standing)


class Speed(NamedTuple):
    """How fast a model answers, as adverts and quotes promise it."""

    ttft_ms: int
    tokens_per_s: int


class Sales:
    """One provider's. `capacity` is always what its engine has now, sessions that are about to begin taken off."""

    def __init__(
        self,
        *,
        network: str,
        signer: BodySigner,
        verify: PeerVerifier,
        peer: str,
        models: Iterable[ModelInfo],
        speed: Callable[[str, int], Speed],
        rtt_ms: Callable[[str], int],
        price_list: PriceList,
        channel: ChannelOffer,
        funded: Callable[[], Collection[str]] = tuple,
    ) -> None:
        """`speed` is of a model and a prompt of so many tokens, `rtt_ms` to a client; `funded` are the clients that
        have a channel to us."""
        self._network = network
        self._signer = signer
        self._verify = verify
        self._peer = peer
        self._models = {model.id: model for model in models}
        self._speed = speed
        self._rtt_ms = rtt_ms
        self._price_list = price_list
        self._channel = channel
        self._places = Places()
        self._queue = Queue()
        self._uses = QuoteUses()
        self._funded = funded
        self.standing = StandingQuotes(price_list.standing_limits)
        self._given: set[bytes] = set()  # the quotes of free answers that are under way

    def offers(self, capacity: Capacity, now: float, *, prompt_tokens: int = 0) -> tuple[ModelOffer, ...]:
        """What the advert says right now; its times are for a prompt of so many tokens."""
        load = self._load(capacity, now)
        speeds = {model: self._speed(model, prompt_tokens) for model in self._models}
        return tuple(
            ModelOffer(
                id=model.id,
                family=model.family,
                quantisation=model.quantisation,
                digest=model.digest,
                context=model.context,
                prices=self._price_list.opening(load),
                ttft_ms=speeds[model.id].ttft_ms,
                tokens_per_s=speeds[model.id].tokens_per_s,
                slots_free=load.free,
                slots_total=load.total,
                features=model.features,
            )
            for model in self._models.values()
        )

    def answer(
        self,
        seller: Seller,
        message: Owed,
        client: str,
        capacity: Capacity,
        now: float,
        left: Left = NOTHING_LEFT,
    ) -> ToClient:
        """What to say to `message`; `left` is what the client may still be given. Raises `RemoteError` for one out of
        turn.
        """
        seller.receive(message)
        try:
            return self._reply(seller, message, client, capacity, now, left)
        except Refused as no:
            return seller.refuse(Refusal.of(no))

    def would_sell(self, wanted: Wanted, now: float) -> bool:
        """Whether to ask us for a standing quote is worth while, as far as can be told from what is wanted."""
        fitting = [model for model in self._models.values() if wanted.fits(model.id, model.family)]
        if not fitting or wanted.tier != "open":
            return False
        ask = wanted.ask(fitting[0].id, fitting[0].context, payer_key=bytes(32), nonce=bytes(8), now=now)
        try:
            prices = self._price_list.standing(self.standing.volume(ask, now))
        except Refused:
            return False
        return wanted.prices_max is None or wanted.prices_max.cover(prices)

    def redeem(self, signed: Signed, client: str, capacity: Capacity, now: float) -> tuple[Quote, ModelInfo]:
        """A quote shown to start a session, which may have a slot.

        Raises `RemoteError` for a quote that is not ours or not the client's, `Refused` where it is used up or late.
        """
        quote = open_signed(signed, Quote, by=lambda body: body.provider, network=self._network, verify=self._verify)
        if (quote.provider, quote.client) != (self._peer, client):
            raise RemoteError("wrong_quote", "it was made by or for another peer")
        model = self._models.get(quote.model)
        if model is None:  # quoted before a restart
            raise Refused("no_such_model", f"{quote.model} is not served here any more")
        try:
            if quote.standing:
                self.standing.require(signed.id, now)
            else:
                self._uses.use(signed.id, quote, now)
        except Refused as no:
            no.prices = self._price_list.opening(self._load(capacity, now))  # at which it would run
            raise
        if quote.free:
            self._require_place_to_give(capacity, now)
            self._given.add(signed.id)
        elif not self._places.take(signed.id, now):
            self._require_place(client, capacity, now)
        if quote.standing:
            self.standing.use(signed.id)
        self._places.begin(signed.id, now + quote.longest_ms / 1000)
        return quote, model

    def given_back(self, quote_id: bytes, client: str) -> bool:
        """A client does not need the place that is kept for it. Whether any was."""
        return self._places.give_back(quote_id, client)

    def ended(self, quote_id: bytes) -> None:
        """The session that this quote was redeemed for is over."""
        self._places.end(quote_id)
        self._given.discard(quote_id)

    def _reply(
        self, seller: Seller, message: Owed, client: str, capacity: Capacity, now: float, left: Left
    ) -> ToClient:
        match message:
            case Ask(free=True):
                self._require_servable(message)
                left.require(message.prompt_tokens + message.max_tokens, now)
                self._require_place_to_give(capacity, now)
                return seller.offer(sign(self._quote(message, FREE, client, now), self._signer), final=True)
            case Ask():
                self._require_servable(message)
                if message.standing:
                    return seller.offer(self._standing_quote(message, client, capacity, now), final=True)
                self._require_place(client, capacity, now)
                self._queue.came_back(client)
                prices = self._price_list.opening(self._load(capacity, now))
                return seller.offer(sign(self._quote(message, prices, client, now), self._signer), final=False)
            case Counter(prices=wanted):
                assert seller.asked is not None
                assert seller.turn is not None
                bid = self._price_list.answer(wanted, seller.turn, self._load(capacity, now))
                quote = self._quote(seller.asked, bid.prices, client, now)
                return seller.offer(sign(quote, self._signer), final=bid.final)
            case Accept(quote_id=quote_id) if seller.standing is not None:
                self._require_room(seller.standing, client, capacity, now)
                self.standing.give(quote_id, seller.standing, seller.standing.uses)
                return seller.confirm(int(now))
            case Accept() if seller.asked is not None and seller.asked.free:
                self._require_place_to_give(capacity, now)
                return seller.confirm(int(now))
            case Accept(quote_id=quote_id):
                if not self._places.hold(quote_id, client, slots_free=capacity.free, now=now):
                    raise self._busy(client, capacity, now)
                return seller.confirm(int(now) + HOLD_S)

    def _load(self, capacity: Capacity, now: float) -> Load:
        return Load(self._places.free(capacity.free, now), capacity.total, self._queue.waiting(now))

    def _require_servable(self, ask: Ask) -> None:
        model = self._models.get(ask.model)
        if model is None:
            raise Refused("no_such_model", f"{ask.model} is not served here")
        if ask.tier != "open":
            raise Refused("no_such_tier", "only the open tier is served here")
        require_fits(model, ask.prompt_tokens, ask.max_tokens)

    def _require_place(self, client: str, capacity: Capacity, now: float) -> None:
        if self._places.free(capacity.free, now) < 1:
            raise self._busy(client, capacity, now)

    def _require_place_to_give(self, capacity: Capacity, now: float) -> None:
        """A free answer has the slot that nobody who pays uses, was promised or waits for. None is kept for it."""
        idle = self._places.free(capacity.free, now) > 0 and not self._queue.waiting(now)
        if not idle or len(self._given) >= slots_to_give(capacity.total):
            raise Refused("busy", "no slot is idle that could be given away", retry_after_s=BUSY_RETRY_S)

    def _busy(self, client: str, capacity: Capacity, now: float) -> Refused:
        """With the time at which there should be a slot, and what it would cost then as things stand."""
        held = self._places.free(capacity.free, now) > 0  # it was promised as many as it may have at a time, not all
        retry_after_s = HELD_RETRY_S if held else self._places.retry_after_s(now)
        prices = self._price_list.opening(self._load(capacity, now))
        self._queue.sent_away(client, retry_after_s, now)
        return Refused("busy", "every slot is in use or promised", retry_after_s=retry_after_s, prices=prices)

    def _standing_quote(self, ask: Ask, client: str, capacity: Capacity, now: float) -> Signed:
        """For as many of the answers as there is room for."""
        volume = self.standing.volume(ask, now)
        prices = self._price_list.standing(volume)
        one = msgspec.structs.replace(self._quote(ask, prices, client, now), valid_until=int(now) + volume.term_s)
        room = self._require_room(one, client, capacity, now)
        return sign(msgspec.structs.replace(one, uses=min(ask.uses, room)), self._signer)

    def _require_room(self, quote: Quote, client: str, capacity: Capacity, now: float) -> int:
        """How many answers of this quote there is room for. Raises `Refused` where those are too few."""
        room = self.standing.room(client, quote, slots=capacity.total, funded=self._funded(), now=now)
        if room < max(USES_LEAST, quote.uses):
            raise Refused("standing_full", "so much is not to be promised ahead", prices=quote.prices)
        return room

    def _quote(self, ask: Ask, prices: Prices, client: str, now: float) -> Quote:
        speed = self._speed(ask.model, ask.prompt_tokens)
        window = window_nano(
            prices,
            rtt_ms=self._rtt_ms(client),
            tokens_per_s=speed.tokens_per_s,
            cap_nano=self._price_list.window_cap_nano,
        )
        return Quote(
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
            issued_at=int(now),
            valid_until=int(now) + QUOTE_LIFETIME_S,
            nonce=ask.nonce,
            free=ask.free,
        )


def require_features(model: ModelInfo, request: Request) -> None:
    """Raises `Refused` for what the model cannot do."""
    if request.continues and CONTINUE not in model.features:
        raise Refused("cannot_continue", f"{model.id} does not go on with an answer that is begun")
    lacking = request.needs - {*model.features}
    if lacking:
        raise Refused("cannot_do", f"{model.id} lacks what the request needs: {', '.join(sorted(lacking))}")


def require_fits(model: ModelInfo, prompt_tokens: int, max_tokens: int) -> None:
    """Raises `Refused` where prompt and answer are more than the model can hold."""
    if prompt_tokens + max_tokens > model.context:
        raise Refused("too_long", f"prompt and answer together may have {model.context} tokens: shorten one of them")
