"""Coming to terms: what the client knows of those that were found, its limits, and one negotiation over both."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from chain.book import Book
from chain.keeper import BookKeeper
from inference.engine import Message, Request
from p2p.budget import Budget
from p2p.buying import Consent, Deal, Experience, Negotiations, candidate, consent_to_any, prompt_tokens_bound
from p2p.discovery import Directory, Found
from p2p.errors import PaymentError, Refused
from p2p.foreign import translated
from p2p.funding import Funding
from p2p.host import Host
from p2p.payers import Payers
from p2p.protocol.allowance import ASK_OR_PAY
from p2p.protocol.conversations import Conversations
from p2p.protocol.demand import Wanted
from p2p.protocol.market import Need, answers_expected, objection
from p2p.protocol.negotiate import NONCE_BYTES, Ask
from p2p.protocol.price import FREE, Tokens
from p2p.standing_quotes import Held, StandingQuotes
from p2p.trace import Trace
from p2p.track_record import TrackRecord

# What opening and closing a channel costs on TON, from fees measured at the prices of August 2026.
CHANNEL_LIFE_FEE_NANO = 3_200_000


class Agreeing:
    """One client's. All parts are shared with its `LightPeer`."""

    def __init__(
        self,
        *,
        host: Host,
        network: str,
        keeper: BookKeeper,
        payer_key: bytes,
        budget: Budget,
        directory: Directory,
        funding: Funding,
        payers: Payers,
        standing_quotes: StandingQuotes,
        conversations: Conversations,
        track_record: TrackRecord,
        clock: Callable[[], float],
        trace: Trace,
    ) -> None:
        self._host = host
        self._network = network
        self._keeper = keeper
        self._payer_key = payer_key
        self._budget = budget
        self._directory = directory
        self._funding = funding
        self._payers = payers
        self._standing_quotes = standing_quotes
        self._conversations = conversations
        self._track_record = track_record
        self._clock = clock
        self._trace = trace

    async def agree(
        self,
        found: Sequence[Found],
        request: Request,
        prompt_tokens_max: int | None = None,
        *,
        free: bool = False,
        held: Sequence[Held] = (),
        budget: Budget | None = None,
        consent: Consent = consent_to_any,
    ) -> Deal:
        """A price for this request with one of these providers, or by one of the standing quotes that are `held`, or a
        place in somebody's allowance if it is to be `free`. The prompt's size may be known better than by its text.
        A `budget` of its own decides which providers will do and how they compare; deposits stay as they are.
        Whatever quote is to be accepted, `consent` is asked first.

        Raises `Refused`, `RemoteError`, `Unavailable`, `PaymentError` if no channel would suit any of them, or what
        `consent` raises.
        """
        bound = prompt_tokens_bound(request)
        if prompt_tokens_max is not None:
            bound = min(bound, prompt_tokens_max)
        budget = budget or self._budget
        tokens = Tokens(input=bound // 2, output=request.max_tokens // 2)
        need = await self._need(tokens, budget, request.needs)

        def ask() -> Ask:
            return Ask(
                model=request.model,
                prompt_tokens=bound,
                max_tokens=request.max_tokens,
                payer_key=self._payer_key,
                tier=need.tier,
                nonce=secrets.token_bytes(NONCE_BYTES),
            )

        experience = await self._experience([*found, *(one.found for one in held)], request.messages)
        standing = [one.among(found) for one in held]
        return await self._negotiate(found, ask, need, experience, standing, free=free, consent=consent)

    async def held(self, request: Request, budget: Budget | None = None) -> Sequence[Held]:
        """The standing quotes under which this request may be answered, of providers that are not known to be away.

        Raises `LocalError`.
        """
        budget = budget or self._budget
        bound, tier = prompt_tokens_bound(request), budget.tier
        fitting = await self._standing_quotes.fitting(
            request.model, prompt_tokens=bound, max_tokens=request.max_tokens, tier=tier
        )
        if not fitting:
            return ()
        need = await self._need(Tokens(), budget, request.needs)
        ready, has_room = await self._payers.providers(), await self._funding.has_room()
        return [
            one
            for one in fitting
            if not self._funding.objection(one.quote.channel)
            and (has_room or one.quote.provider in ready)
            and one.quote.payer_key == self._payer_key
            and not self._directory.book.failed(one.quote.provider, self._clock())
            and objection(candidate(one.found, one.quote, Experience(), standing_quote=True), need) is None
        ]

    async def on_many(self, wanted: Wanted, found: Sequence[Found]) -> Deal:
        """The best standing quote for the one model that these have, which is held from then on.

        Raises as `agree`.
        """
        need = await self._need(wanted.tokens, self._budget)
        context = min(one.model.context for one in found)

        def ask() -> Ask:
            key, nonce = self._payer_key, secrets.token_bytes(NONCE_BYTES)
            return wanted.ask(found[0].model.id, context, payer_key=key, nonce=nonce, now=self._clock())

        need = replace(
            need,
            prices_max=wanted.prices_max or need.prices_max,
            tier=wanted.tier,
            answers_per_channel=max(need.answers_per_channel, ask().uses),
        )
        deal = await self._negotiate(found, ask, need, await self._experience(found, ()))
        seller = next(one for one in found if one.peer == deal.provider)
        held = Held(deal.signed, seller.advert, seller.rtt_ms)
        await self._standing_quotes.keep(held)
        return replace(deal, held=held)

    async def _negotiate(
        self,
        found: Sequence[Found],
        ask: Callable[[], Ask],
        need: Need,
        experience: Experience,
        held: Sequence[Held] = (),
        *,
        free: bool = False,
        consent: Consent = consent_to_any,
    ) -> Deal:
        objections = _not_given(found, ask()) if free else await self._objections(found)
        unsuitable = {peer: why for peer, why in objections.items() if why}
        if found and not held and len(unsuitable) == len(objections):
            why = objections[found[0].peer]
            raise Refused("no_allowance", why) if free else PaymentError(why)
        negotiations = Negotiations(
            self._host,
            network=self._network,
            need=need,
            strategy=self._budget.strategy,
            window_max_nano=self._budget.window_max_nano,
            experience=experience,
            failed=self._directory.fail,
            draw=secrets.randbelow,
            clock=self._clock,
            trace=self._trace,
            free=free,
            consent=consent,
        )
        return await negotiations.agree(found, ask, unsuitable=unsuitable, held=held)

    async def _objections(self, found: Sequence[Found]) -> dict[str, str]:
        """Why we would not pay each of them, or nothing. Where no more channels may be open, those that are must do."""
        priced = [one for one in found if one.model.prices != FREE]
        objections = {one.peer: "" for one in found}
        objections |= {one.peer: self._funding.objection(one.advert.channel) for one in priced}
        ready = await self._payers.providers()
        if any(one.peer in ready for one in priced) and not await self._funding.has_room():
            objections |= {one.peer: "as many channels are open as may be" for one in priced if one.peer not in ready}
        return objections

    async def _need(self, tokens: Tokens, budget: Budget, features: Collection[str] = ()) -> Need:
        with translated():
            answers, channels = await self._keeper.do(Book.paid_answers)
        return Need(
            tokens=tokens,
            prices_max=budget.prices_max,
            nano_per_second=budget.nano_per_second,
            answers_per_channel=answers_expected(budget.answers_per_channel, answers, channels),
            tier=budget.tier,
            features={*budget.features, *features},
            allow=budget.allow,
            block=budget.block,
        )

    async def _experience(self, found: Sequence[Found], conversation: Sequence[Message]) -> Experience:
        return Experience(
            standings=await self._track_record.standings([one.peer for one in found]),
            ready=await self._payers.providers(),
            opening_fee_nano=CHANNEL_LIFE_FEE_NANO,
            holder=self._conversations.holder(conversation),
        )


def _not_given(found: Sequence[Found], ask: Ask) -> dict[str, str]:
    """Why each of them would not give this away, or nothing."""
    tokens = ask.prompt_tokens + ask.max_tokens
    ways = ((one, one.model.prices == FREE or one.advert.free_tokens >= tokens) for one in found)
    why = f"it gives newcomers less than {tokens} tokens: {ASK_OR_PAY}"
    return {one.peer: "" if given else why for one, given in ways}
