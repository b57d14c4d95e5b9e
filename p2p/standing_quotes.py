"""The standing quotes that a client holds: kept in its book, used without asking anybody, counted as they are used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import msgspec

from chain.book import Book
from chain.keeper import BookKeeper
from chain.records import StandingQuote
from p2p.discovery import Found
from p2p.errors import Refused
from p2p.foreign import translated
from p2p.protocol.advert import Advert, Tier
from p2p.protocol.negotiate import Quote
from p2p.protocol.wire import Signed, decode

T = TypeVar("T")

# Refusals after which its provider will not honour it any more.
OVER = frozenset({"quote_used", "quote_expired", "no_such_model"})


class Held(msgspec.Struct, frozen=True):
    """A standing quote, and what was known of its provider when it was agreed on."""

    signed: Signed
    advert: Advert
    rtt_ms: int

    @property
    def quote(self) -> Quote:
        quote: Quote = decode(self.signed.body, Quote)
        return quote

    def among(self, found: Sequence[Found]) -> Held:
        """With what its provider says by now, if it is one of these."""
        for one in found:
            if (one.peer, one.model.id) == (self.quote.provider, self.quote.model):
                return Held(self.signed, one.advert, one.rtt_ms)
        return self

    @property
    def found(self) -> Found:
        """Its provider, as if it had been found."""
        model = next(offer for offer in self.advert.models if offer.id == self.quote.model)
        return Found(self.advert, model, self.rtt_ms)


class StandingQuotes:
    """Those of one home. Several processes may use them up at once. Every method raises `LocalError`."""

    def __init__(self, keeper: BookKeeper, clock: Callable[[], float]) -> None:
        self._keeper = keeper
        self._clock = clock

    async def keep(self, held: Held) -> None:
        """From now on it is held."""
        quote = held.quote
        kept = StandingQuote(held.signed.id, msgspec.msgpack.encode(held), quote.uses, quote.valid_until)
        await self._do(partial(Book.save_standing_quote, quote=kept, now=int(self._clock())))

    async def fitting(self, model: str, *, prompt_tokens: int, max_tokens: int, tier: Tier) -> Sequence[Held]:
        """The cheapest of each provider that covers such a request."""
        rows = await self._do(partial(Book.standing_quotes, now=int(self._clock())))
        all_held = [msgspec.msgpack.decode(row.body, type=Held) for row in rows]
        wide = [
            (held.quote.cost_at_most_nano(prompt_tokens, max_tokens), held)
            for held in all_held
            if (held.quote.model, held.quote.tier) == (model, tier)
            and prompt_tokens <= held.quote.prompt_tokens
            and max_tokens <= held.quote.max_tokens
        ]
        dearest_first = sorted(wide, key=lambda one: -one[0])
        return list({held.quote.provider: held for _, held in dearest_first}.values())

    async def take(self, held: Held) -> None:
        """One more answer begins under it, and this is where its provider is by now.

        Raises `Refused` if another process had the last.
        """
        body = msgspec.msgpack.encode(held)
        if not await self._do(partial(Book.use_standing_quote, quote=held.signed.id, body=body)):
            raise Refused("quote_used", "the standing quote is used up")

    async def heed(self, held: Held, no: Refused) -> None:
        """The provider let no answer begin: what that says of the rest."""
        if no.reason in OVER:
            await self._do(partial(Book.forget_standing_quote, quote=held.signed.id))
        elif no.reason == "busy":
            await self._do(partial(Book.give_back_standing_quote, quote=held.signed.id))

    async def _do(self, work: Callable[[Book], T]) -> T:
        with translated():
            return await self._keeper.do(work)
