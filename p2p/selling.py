"""The provider's side of negotiations: one task for each client that asks, and the engine's slots."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from functools import partial

import msgspec
import trio

from chain.book import Book
from chain.keeper import BookKeeper
from chain.records import StandingQuote
from inference.engine import Capacity, Engine, ModelInfo
from inference.measure import Measured
from p2p.foreign import translated
from p2p.giving import Giving
from p2p.host import Stream
from p2p.keys import verify_by_peer
from p2p.manners import Pause
from p2p.protocol.advert import ChannelOffer, ModelOffer
from p2p.protocol.allowance import Left
from p2p.protocol.demand import Wanted
from p2p.protocol.negotiate import (
    ENDED,
    Accepted,
    Ask,
    GiveBack,
    Offer,
    Owed,
    Quote,
    Refusal,
    Seller,
    ToClient,
    ToProvider,
)
from p2p.protocol.sales import NOTHING_LEFT, PriceList, Sales, Speed
from p2p.protocol.wire import BodySigner, Signed, decode, encode
from p2p.stream import MessageStream
from p2p.trace import Trace, silent

TURN_TIMEOUT_S = 20.0
# The client's round trip is not known when the price is; the window's floor of 64 tokens covers this one.
ASSUMED_RTT_MS = 250


class Selling:
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
        funded: Callable[[], Collection[str]],
        keeper: BookKeeper,
        giving: Giving,
        pause: Callable[[], Pause | None],
        clock: Callable[[], float],
        trace: Trace = silent,
    ) -> None:
        """`funded` are the clients that have a channel to us; `pause` says why nothing new is served, if so."""
        speeds = {model: Speed(one.ttft_ms, one.tokens_per_s) for model, one in measured.items()}
        self._sales = Sales(
            network=network,
            signer=signer,
            verify=verify_by_peer,
            peer=peer,
            models=engine.models(),
            speed=lambda model, _: speeds[model],
            rtt_ms=lambda _: ASSUMED_RTT_MS,
            price_list=price_list,
            channel=channel,
            funded=funded,
        )
        self._engine = engine
        self._keeper = keeper
        self._giving = giving
        self._clock = clock
        self._trace = trace
        self._pause = pause
        self._none_left = trio.Event()
        self.sessions = 0  # begun; each will use a slot, though its engine may not have started yet

    def would_sell(self, wanted: Wanted) -> bool:
        """Whether it is worth while to ask us for a standing quote."""
        return self._sales.would_sell(wanted, self._clock())

    async def load(self) -> None:
        """Take up the standing quotes of the book. Raises `LocalError`."""
        now = int(self._clock())
        with translated():
            for known in await self._keeper.do(partial(Book.standing_quotes, now=now)):
                self._sales.standing.give(known.quote, decode(decode(known.body, Signed).body, Quote), known.uses_left)

    def offers(self) -> tuple[ModelOffer, ...]:
        """What the advert says right now."""
        return self._sales.offers(self._capacity(), self._clock())

    async def negotiate(self, stream: Stream) -> None:
        """One negotiation. Raises `RemoteError` or `Unavailable`, which end this stream."""
        messages, seller = MessageStream[ToProvider](stream, ToProvider, self._trace), Seller()
        while seller.state not in ENDED:
            message = await messages.answer(TURN_TIMEOUT_S)
            if isinstance(message, GiveBack):
                seller.receive(message)
                if self._sales.given_back(message.quote_id, messages.peer):
                    self._trace("given_back", peer=messages.peer)
                break
            left = await self._left(stream, message)
            reply = self._reply(seller, message, messages.peer, left)
            if isinstance(reply, Accepted) and seller.standing is not None:
                assert seller.signed is not None
                await self._keep(seller.signed, seller.standing)
            self._tell(reply, messages.peer)
            await messages.send(reply)
        await messages.close()

    @asynccontextmanager
    async def redeemed(self, signed: Signed, peer: str) -> AsyncIterator[tuple[Quote, ModelInfo]]:
        """A quote shown to start a session, which has a slot while the context lasts. Raises as `Sales.redeem`."""
        if pause := self._pause():
            raise pause.refusal()
        redeemed = self._sales.redeem(signed, peer, self._capacity(), self._clock())
        self.sessions += 1
        try:
            if redeemed[0].standing:
                with translated():
                    await self._keeper.do(partial(Book.use_standing_quote, quote=signed.id))
            yield redeemed
        finally:
            self.sessions -= 1
            self._sales.ended(signed.id)
            if not self.sessions:
                self._none_left.set()
                self._none_left = trio.Event()

    async def drained(self) -> None:
        """Wait until no answer is under way."""
        while self.sessions:
            await self._none_left.wait()

    def _reply(self, seller: Seller, message: Owed, client: str, left: Left) -> ToClient:
        if pause := self._pause():
            seller.receive(message)
            return seller.refuse(Refusal.of(pause.refusal()))
        return self._sales.answer(seller, message, client, self._capacity(), self._clock(), left)

    async def _keep(self, signed: Signed, quote: Quote) -> None:
        """Have it on disk before the client hears that it stands. Raises `LocalError`."""
        given = StandingQuote(signed.id, encode(signed), quote.uses, quote.valid_until)
        with translated():
            await self._keeper.do(partial(Book.save_standing_quote, quote=given, now=int(self._clock())))

    async def _left(self, stream: Stream, message: Owed) -> Left:
        """What whoever asks may still be given, if that is what it asks for."""
        if isinstance(message, Ask) and message.free:
            return await self._giving.left(stream.peer, stream.source)
        return NOTHING_LEFT

    def _tell(self, reply: ToClient, client: str) -> None:
        match reply:
            case Offer(quote=signed):
                quote: Quote = decode(signed.body, Quote)
                self._trace("quoted", peer=client, model=quote.model, prices=msgspec.structs.asdict(quote.prices))
            case Accepted():
                self._trace("promised", peer=client)

    def _capacity(self) -> Capacity:
        capacity = self._engine.capacity()
        if self._pause():
            return Capacity(free=0, total=capacity.total)
        free = max(0, min(capacity.free, capacity.total - self.sessions))
        return Capacity(free=free, total=capacity.total)
