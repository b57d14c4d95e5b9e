"""The client's side of negotiations: quotes from several providers at once, haggling with one, one agreement."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import msgspec
import trio

from inference.engine import Request
from p2p.discovery import Found
from p2p.errors import Error, Refused, RemoteError, Unavailable
from p2p.host import Host
from p2p.kept_place import give_back
from p2p.keys import verify_by_peer
from p2p.protocol.advert import ModelOffer
from p2p.protocol.haggling import Haggling
from p2p.protocol.market import STRANGER, Candidate, LeftOut, Need, Score, Standing, choose, explain, nobody, rank, sift
from p2p.protocol.negotiate import PROTOCOL, Accept, Ask, Buyer, Counter, Quote, State, ToClient
from p2p.protocol.price import FREE, Prices
from p2p.protocol.strategy import BuyerStrategy
from p2p.protocol.unpaid import NO_KEY
from p2p.protocol.wire import Signed
from p2p.standing_quotes import Held
from p2p.stream import MessageStream, open_messages
from p2p.trace import Trace

# Asking more providers for a binding quote costs each of them work and gains little.
MAX_ASKED = 5
# Once one provider has quoted, those that take longer than this are done without.
GRACE_S = 2.0


def prompt_tokens_bound(request: Request) -> int:
    """More tokens than the prompt will have: half its bytes, and room for the chat template.

    Ordinary text has some four bytes a token; a prompt that is denser is refused as over the quote, and nothing lost.
    """
    texts = [message.content for message in request.messages]
    texts += [f"{tool.name}{tool.description}{tool.parameters}" for tool in request.tools]
    texts += [f"{call.name}{call.arguments}" for message in request.messages for call in message.tool_calls]
    template = 256 if request.tools else 128
    return template + sum(16 + -(-len(text.encode()) // 2) for text in texts)


def worst_cost_nano(quote: Quote, request: Request) -> int:
    """What `request` costs at most by this quote. A standing quote covers larger requests, too."""
    return quote.cost_at_most_nano(prompt_tokens_bound(request), request.max_tokens)


# Asked about a quote before it is accepted. Raises `Refused` where what it may cost is too much.
Consent = Callable[[Quote], Awaitable[None]]


async def consent_to_any(_quote: Quote) -> None:
    """Of who has set no limit."""


NOBODY: Mapping[str, str] = {}


@dataclass(frozen=True)
class Deal:
    """What was agreed, and how it came about."""

    quote: Quote
    signed: Signed
    first_prices: Prices
    why: str
    ranked: Sequence[Score]  # those that quoted, best first, as they were compared
    left_out: Sequence[LeftOut]  # all the others that were found
    held: Held | None = None  # the standing quote that it is

    @property
    def provider(self) -> str:
        return self.quote.provider

    @property
    def rtt_ms(self) -> int:
        """To the provider, as it was probed."""
        return next(score.candidate.rtt_ms for score in self.ranked if score.candidate.peer == self.provider)

    @property
    def keeps_place(self) -> bool:
        """Whether the provider keeps a slot for it."""
        return not (self.quote.free or self.quote.standing)


@dataclass(frozen=True)
class Experience:
    """What the client knows of providers besides what they say."""

    ready: Collection[str] = ()  # those that a channel is open to
    opening_fee_nano: int = 0  # for the others
    standings: Mapping[str, Standing] = field(default_factory=dict)
    holder: str | None = None  # who has the conversation in its cache


class _Talk:
    """One negotiation under way."""

    def __init__(self, found: Found, buyer: Buyer, messages: MessageStream[ToClient], *, window_max_nano: int) -> None:
        self.found = found
        self._window_max_nano = window_max_nano
        self.buyer = buyer
        self.messages = messages

    @property
    def quote(self) -> Quote:
        assert self.buyer.quote is not None
        return self.buyer.quote

    async def say(self, message: msgspec.Struct, now: Callable[[], float]) -> None:
        """Send, and take the answer that is owed. Raises `Refused` for a refusal, theirs or ours."""
        await self.messages.send(message)
        self.buyer.receive(await self.messages.answer(), now())
        if self.buyer.refusal is not None:
            raise self.buyer.refusal.error()
        if self.quote.channel != self.found.advert.channel:
            raise RemoteError("wrong_quote", "its channel terms are not those of the advert")
        if self.quote.window_nano > self._window_max_nano:
            raise Refused("window", f"{self.quote.window_nano} nano would have to be paid ahead")


class Negotiations:
    """Negotiates for one answer with some of the providers that were found."""

    def __init__(
        self,
        host: Host,
        *,
        network: str,
        need: Need,
        strategy: BuyerStrategy,
        window_max_nano: int,
        experience: Experience,
        failed: Callable[[str, str], None],
        draw: Callable[[int], int],
        clock: Callable[[], float],
        trace: Trace,
        free: bool = False,
        consent: Consent = consent_to_any,
    ) -> None:
        """What is to be `free` is asked for, and compared, as such with those who give it."""
        self._host = host
        self._network = network
        self._need = need
        self._free = free
        self._strategy = strategy
        self._window_max_nano = window_max_nano
        self._experience = experience
        self._failed = failed
        self._draw = draw
        self._clock = clock
        self._trace = trace
        self._consent = consent
        self._talks: list[_Talk] = []
        self._refusals: list[Error] = []
        self._left_out: dict[str, LeftOut] = {}

    async def agree(
        self,
        found: Sequence[Found],
        ask: Callable[[], Ask],
        *,
        unsuitable: Mapping[str, str] = NOBODY,
        held: Sequence[Held] = (),
    ) -> Deal:
        """One agreement; `ask` makes one for each provider, with a fresh nonce. Who is `unsuitable`, and why, is not
        asked, and neither is who gave a standing quote that is `held`.

        Raises `Refused` when nobody wants to, with the last reason that was given, and what `consent` raises: a
        provider keeps a place for whoever accepts, so nothing is accepted that will not be used.
        """
        for one in found:
            if one.peer in unsuitable:
                self._leave_out(self._candidate(one, one.model), unsuitable[one.peer])
        standing = {one.found.peer: one for one in held}
        found = [one for one in found if one.peer not in unsuitable and one.peer not in standing]
        async with AsyncExitStack() as streams:
            await self._gather(found, ask, streams)
            while self._talks or standing:
                known = [self._candidate(one.found, one.quote, standing_quote=True) for one in standing.values()]
                ranked = self._rank([*(self._candidate(talk.found, talk.quote) for talk in self._talks), *known])
                if not ranked:
                    raise nobody(list(self._left_out.values()))
                chosen = choose(ranked, self._draw)
                if taken := standing.get(chosen.candidate.peer):
                    await self._consent(taken.quote)
                    return self._deal(chosen, ranked, taken.quote, taken.signed, taken.quote.prices, held=taken)
                talk = next(talk for talk in self._talks if talk.found.peer == chosen.candidate.peer)
                deal = await self._settle_on(talk, chosen, ranked)
                if deal is not None:
                    return deal
            raise self._nobody()

    async def _gather(self, found: Sequence[Found], ask: Callable[[], Ask], streams: AsyncExitStack) -> None:
        """First quotes from the most promising providers, all asked at once."""
        adverts = {one.peer: one for one in found}
        promising = self._rank([self._candidate(one, one.model) for one in found])
        silent = [score.candidate.peer for score in promising[:MAX_ASKED]]
        for score in promising[MAX_ASKED:]:
            self._leave_out(score.candidate, "not asked: others look better")

        async def ask_one(peer: str) -> None:
            await self._ask_one(adverts[peer], self._for_free(adverts[peer], ask()), streams)
            silent.remove(peer)
            if self._talks:
                patience.deadline = min(patience.deadline, trio.current_time() + GRACE_S)

        with trio.CancelScope() as patience:
            async with trio.open_nursery() as nursery:
                for peer in list(silent):
                    nursery.start_soon(ask_one, peer)
        for peer in silent:
            self._lose(adverts[peer], Unavailable("much slower than others"))

    def _for_free(self, found: Found, ask: Ask) -> Ask:
        """As an ask for a place in the provider's allowance, if that is wanted and it would charge for it otherwise."""
        if not self._free or found.model.prices == FREE:
            return ask
        return msgspec.structs.replace(ask, free=True, payer_key=NO_KEY)

    async def _ask_one(self, found: Found, ask: Ask, streams: AsyncExitStack) -> None:
        buyer = Buyer(network=self._network, client=self._host.peer, provider=found.peer, verify=verify_by_peer)
        try:
            opened = open_messages(self._host, found.peer, PROTOCOL, ToClient, self._trace)
            messages = await streams.enter_async_context(opened)
            talk = _Talk(found, buyer, messages, window_max_nano=self._window_max_nano)
            await talk.say(buyer.ask(ask), self._clock)
        except Error as error:
            self._lose(found, error)
            return
        self._trace("quote", peer=found.peer, prices=_plain(talk.quote.prices))
        self._talks.append(talk)

    def _rank(self, candidates: Sequence[Candidate]) -> list[Score]:
        for one in sift(candidates, self._need)[1]:
            self._leave_out(one.candidate, one.why)
        return rank(candidates, self._need)

    def _leave_out(self, candidate: Candidate, why: str) -> None:
        self._left_out[candidate.peer] = LeftOut(candidate, why)

    def _lose(self, found: Found, error: Error, kind: str = "no_quote") -> None:
        """Nothing comes of this one. Unless it said an honest no, others are asked before it for a while."""
        peer = found.peer
        self._leave_out(self._candidate(found, found.model), str(error))
        self._refusals.append(error)
        self._trace(kind, peer=peer, why=str(error), reason=error.word)
        if not isinstance(error, Refused):
            self._failed(peer, str(error))

    async def _settle_on(self, talk: _Talk, chosen: Score, ranked: Sequence[Score]) -> Deal | None:
        """Haggle, then accept; `None` if the provider will not. Raises what `consent` raises."""
        haggling = Haggling(talk.buyer, self._strategy, self._need.prices_max)
        try:
            accept = await self._haggle(talk, haggling)
        except Error as error:
            await self._leave(talk, error)
            return None
        await self._consent(talk.quote)
        try:
            await talk.say(accept, self._clock)
        except trio.Cancelled:  # it may have been heard
            await give_back(self._host, talk.quote.provider, accept.quote_id, self._trace)
            raise
        except Error as error:
            await self._leave(talk, error)
            return None
        assert talk.buyer.state is State.AGREED
        assert talk.buyer.signed is not None
        return self._deal(chosen, ranked, talk.quote, talk.buyer.signed, haggling.opening)

    def _deal(
        self,
        chosen: Score,
        ranked: Sequence[Score],
        quote: Quote,
        signed: Signed,
        first_prices: Prices,
        held: Held | None = None,
    ) -> Deal:
        why, left_out = explain(chosen, ranked), list(self._left_out.values())
        deal = Deal(quote, signed, first_prices, why, ranked, left_out, held)
        self._trace("agreed", peer=deal.provider, prices=_plain(deal.quote.prices), free=deal.quote.free, why=deal.why)
        return deal

    async def _haggle(self, talk: _Talk, haggling: Haggling) -> Accept:
        while isinstance(message := haggling.say(self._clock()), Counter):
            await self._counter(talk, message)
        return message

    async def _leave(self, talk: _Talk, error: Error) -> None:
        self._talks.remove(talk)
        self._lose(talk.found, error, "no_deal")
        await talk.messages.reset()

    async def _counter(self, talk: _Talk, message: Counter) -> None:
        before = talk.quote.prices
        self._trace("counter", peer=talk.found.peer, prices=_plain(message.prices))
        await talk.say(message, self._clock)
        kept = talk.quote.prices == before
        self._trace("kept" if kept else "quote", peer=talk.found.peer, prices=_plain(talk.quote.prices))

    def _candidate(self, found: Found, offer: ModelOffer | Quote, *, standing_quote: bool = False) -> Candidate:
        return candidate(found, offer, self._experience, standing_quote=standing_quote, free=self._free)

    def _nobody(self) -> Error:
        return self._refusals[-1] if self._refusals else nobody(list(self._left_out.values()))


def candidate(
    found: Found, offer: ModelOffer | Quote, known: Experience, *, standing_quote: bool = False, free: bool = False
) -> Candidate:
    """A provider as it looks before the choice.

    Its tier is `open` whatever it claims: no evidence about a machine is checked yet. Whether one that gave a standing
    quote has a free slot is not known.
    """
    prices = FREE if free else offer.prices
    return Candidate(
        peer=found.peer,
        prices=prices,
        ttft_ms=offer.ttft_ms,
        tokens_per_s=offer.tokens_per_s,
        rtt_ms=found.rtt_ms,
        slots_free=1 if standing_quote else found.model.slots_free,
        opening_fee_nano=0 if prices == FREE or found.peer in known.ready else known.opening_fee_nano,
        features=found.model.features,
        standing=known.standings.get(found.peer, STRANGER),
        warm=found.peer == known.holder,
        standing_quote=standing_quote,
    )


def _plain(prices: Prices) -> dict[str, int]:
    return {"input": prices.input, "cached_input": prices.cached_input, "output": prices.output}
