"""The light peer: finds providers, agrees on a price, pays as the answer arrives. For embedding in applications."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext

import trio

from chain.book import Book
from chain.channel import Payer
from chain.keeper import BookKeeper
from chain.ledger import Ledger, Transaction
from chain.records import Channel
from chain.voucher import Signer
from inference.engine import Message, Request
from inference.nursery import open_background
from inference.records import EMBEDDING_BYTES_MAX
from p2p.agreeing import Agreeing
from p2p.answer import Answer
from p2p.budget import Budget
from p2p.buying import Consent, Deal, consent_to_any, worst_cost_nano
from p2p.closing import Closing
from p2p.demands import publish
from p2p.discovery import Directory, Found
from p2p.errors import Error, PaymentError, Refused, Unavailable
from p2p.failover import LastingAnswer, allow_anything, open_lasting_answer
from p2p.foreign import translated
from p2p.funding import Funding
from p2p.host import Host, PeerAddress, PeerPath
from p2p.kept_place import kept_place
from p2p.keys import verify_by_peer
from p2p.payers import Payers
from p2p.protocol.conversations import Conversations
from p2p.protocol.demand import Wanted
from p2p.protocol.receipt import SALT_BYTES
from p2p.protocol.reputation import Evidence
from p2p.protocol.session import PROTOCOL, SESSION_ID_BYTES, State, ToClient
from p2p.protocol.session_client import ClientSession
from p2p.protocol.unpaid import unpaid_payer
from p2p.protocol.wire import encode
from p2p.standing_quotes import Held, StandingQuotes
from p2p.stream import open_messages
from p2p.trace import Trace, silent
from p2p.track_record import TrackRecord


class LightPeer:
    """A client on the network. Make one with a running host, ledger and book; `load` it before the first `chat`.

    Several, in one process or in many, may share a book's file, an identity and a wallet.
    """

    def __init__(
        self,
        *,
        host: Host,
        ledger: Ledger,
        keeper: BookKeeper,
        identity: Signer,
        payer_key: Signer,
        budget: Budget,
        clock: Callable[[], float],
        trace: Trace = silent,
    ) -> None:
        self._host = host
        self._keeper = keeper
        self._identity = identity
        self.budget = budget
        self._clock = clock
        self._trace = trace
        self._network = ledger.network.name
        self._directory = Directory(host, network=self._network, verify=verify_by_peer, clock=clock, trace=trace)
        self._funding = Funding(
            ledger=ledger,
            keeper=keeper,
            signer=payer_key,
            deposit_nano=budget.deposit_nano,
            channels_max=budget.channels_max,
            trace=trace,
        )
        self._payers = Payers(ledger=ledger, keeper=keeper, signer=payer_key, funding=self._funding, trace=trace)
        self._conversations = Conversations()
        self._hearing: list[Callable[[Request, Answer], None]] = []
        self._track_record = TrackRecord(keeper, clock, trace)
        self._standing_quotes = StandingQuotes(keeper, clock)
        self._agreeing = Agreeing(
            host=host,
            network=self._network,
            keeper=keeper,
            payer_key=payer_key.public_key,
            budget=budget,
            directory=self._directory,
            funding=self._funding,
            payers=self._payers,
            standing_quotes=self._standing_quotes,
            conversations=self._conversations,
            track_record=self._track_record,
            clock=clock,
            trace=trace,
        )
        self._closing = Closing(host=host, ledger=ledger, keeper=keeper, trace=trace)

    async def audits(self, peers: Collection[str]) -> Mapping[str, Sequence[Evidence]]:
        """What audits of these providers came to, oldest first. Raises `LocalError`."""
        return await self._track_record.audits(peers)

    async def load(self) -> None:
        """Take up the channels that are open already. Raises `LocalError` or `Unavailable`."""
        await self._payers.load()

    async def find(self, model: str | None = None, *, family: str = "") -> Sequence[Found]:
        """Providers of `model`, of a `family`, or of anything, that answer now.

        Raises `Unavailable` if there are none.
        """
        found = await self._directory.find(model, family=family)
        for one in found:
            self._trace(
                "found",
                peer=one.peer,
                model=one.model.id,
                input=one.model.prices.input,
                output=one.model.prices.output,
                slots_free=one.model.slots_free,
                rtt_ms=one.rtt_ms,
            )
        if not found:
            what = f"of {model or family} " if model or family else ""
            raise Unavailable(
                f"no provider {what}answers; check the bootstrap addresses, or start one: python -m p2p.node provide"
            )
        return found

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
        """See `Agreeing.agree`."""
        return await self._agreeing.agree(
            found, request, prompt_tokens_max, free=free, held=held, budget=budget, consent=consent
        )

    async def held(self, request: Request, budget: Budget | None = None) -> Sequence[Held]:
        """See `Agreeing.held`."""
        return await self._agreeing.held(request, budget)

    async def demand(self, wanted: Wanted) -> Sequence[Deal]:
        """Ask for standing quotes, and hold the best: one for the model, or for each model of the family that is found.

        Raises as `find` and `agree` where there is none at all.
        """
        found = await self.find(wanted.model or None, family=wanted.family)
        deals: list[Deal] = []
        problem: Error | None = None
        for model in sorted({one.model.id for one in found}):
            try:
                deals.append(await self._agreeing.on_many(wanted, [one for one in found if one.model.id == model]))
            except Error as error:
                problem = error
        if problem is not None and not deals:
            raise problem
        return deals

    async def publish(self, wanted: Wanted) -> None:
        """Tell everybody what is wanted, under our own name, until cancelled.

        Providers that have it say so, and `demand` then asks them, too. Our host must be one that others can reach.

        Raises as `find` where no family is named, and no provider of the model is there to name it.
        """
        family = wanted.family or (await self.find(wanted.model))[0].model.family
        await publish(
            self._host,
            wanted,
            family,
            network=self._network,
            signer=self._identity,
            directory=self._directory,
            clock=self._clock,
            trace=self._trace,
        )

    @asynccontextmanager
    async def answer(self, deal: Deal, request: Request, *, audit: bool = False) -> AsyncIterator[Answer]:
        """The answer to `request` under `deal`. Leaving the context early cancels it and pays what was done.

        For an `audit` no channel is opened or topped up, and whoever hears of answers does not hear of this one.

        Raises `PaymentError` or `Unavailable` before the first piece; later errors come from iterating.
        """
        quote, held = deal.quote, deal.held
        if held is not None:
            self._host.learn(PeerAddress(deal.provider, held.advert.addresses))
        async with (
            kept_place(self._host, deal, self._trace) as place_used,
            self._paying(deal, request, fund=not audit) as payer,
            open_messages(self._host, deal.provider, PROTOCOL, ToClient, self._trace) as messages,
            open_background() as background,
        ):
            if held is not None:
                await self._standing_quotes.take(held)
            core = ClientSession(
                session=secrets.token_bytes(SESSION_ID_BYTES),
                quote=quote,
                signed_quote=deal.signed,
                payer=payer,
                request=encode(request),
                salt=secrets.token_bytes(SALT_BYTES),
                max_tokens=request.max_tokens,
                untold_bytes_max=len(request.messages) * EMBEDDING_BYTES_MAX if request.embed else 0,
                signer=self._identity,
                verify=verify_by_peer,
            )
            answer = Answer(
                deal=deal,
                payer=payer,
                core=core,
                messages=messages,
                keeper=self._keeper,
                clock=self._clock,
                keep_text=audit or bool(self._hearing),
            )
            background.start_soon(answer.run)
            try:
                yield answer
            finally:
                with trio.CancelScope(shield=True):
                    await answer.cancel()
                    if core.state is not State.NEW:
                        place_used.set()
                    if not quote.free:  # what is given away shows nothing of what is sold
                        await self._track_record.note(answer, deal.rtt_ms)
                    if answer.receipt is not None and answer.error is None and not audit:
                        self._conversations.answered(request.messages, deal.provider)
                        for hear in self._hearing if not quote.free else ():
                            hear(request, answer)
                    if answer.refusal is not None and not quote.unpaid:
                        await self._payers.heed(payer.channel, answer.refusal, int(self._clock()))
                        if held is not None:
                            await self._standing_quotes.heed(held, answer.refusal)

    def _paying(self, deal: Deal, request: Request, *, fund: bool) -> AbstractAsyncContextManager[Payer]:
        quote = deal.quote
        if quote.unpaid:
            return nullcontext(unpaid_payer())
        return self._payers.lease(deal.provider, quote.channel, worst_cost_nano(quote, request), fund=fund)

    @contextmanager
    def heard_by(self, hear: Callable[[Request, Answer], None]) -> Iterator[None]:
        """Meanwhile `hear` is told of each answer that was given and receipted, once it is over."""
        self._hearing.append(hear)
        try:
            yield
        finally:
            self._hearing.remove(hear)

    def chat(
        self, messages: Sequence[Message], *, model: str, max_tokens: int, free: bool = False
    ) -> AbstractAsyncContextManager[LastingAnswer]:
        """Find, agree, pay and answer, in one, and go on with another provider where one fails."""
        return self.ask(Request(model=model, messages=tuple(messages), max_tokens=max_tokens), free=free)

    def ask(
        self,
        request: Request,
        *,
        free: bool = False,
        agreed: Callable[[Deal], None] = lambda _: None,
        budget: Budget | None = None,
        allow: Callable[[int], Awaitable[None]] = allow_anything,
    ) -> AbstractAsyncContextManager[LastingAnswer]:
        """The same for any request; `agreed` is told of each deal. A `free` one comes out of what providers give to
        newcomers, or costs nothing anyway. See `open_lasting_answer`.

        A `budget` of its own is for choosing providers and for the most that the answer may cost; what is deposited in
        channels goes by the peer's. Before each deal `allow` gets the most that all parts may cost then, in nano, and
        raises `Refused` if that is too much. It gets what they cost so far where no deal comes of it.
        """
        return open_lasting_answer(
            self, request, budget=budget or self.budget, free=free, allow=allow, agreed=agreed, trace=self._trace
        )

    def give_up(self, provider: str, error: Error) -> None:
        """It failed in the middle, said no, or cannot be paid: others are asked first for a while if it is to blame."""
        if isinstance(error, Refused | PaymentError):
            self._trace("no_deal", peer=provider, why=str(error), reason=error.word)
        else:
            self._directory.fail(provider, error.word, "answer_failed")

    async def standbys(self) -> frozenset[str]:
        """The providers to which a channel is open already. Raises `LocalError`."""
        return await self._payers.providers()

    async def distrusted(self, peers: Collection[str]) -> frozenset[str]:
        """Those of these providers that failed us too often. Raises `LocalError`."""
        standings = await self._track_record.standings(peers)
        return frozenset(peer for peer, standing in standings.items() if standing.distrusted)

    async def can_pay(self) -> bool:
        """Whether a channel is open already. Raises `LocalError`."""
        return bool(await self.standbys())

    async def start_close(self, channel: bytes) -> Transaction:
        """Close without the provider; `finalise` after the challenge period. Raises as `Closing.together` does."""
        return await self._closing.start(channel)

    async def finalise(self, channel: bytes) -> Transaction:
        """Take back what is left after the challenge period. Raises as `Closing.together` does."""
        return await self._closing.finalise(channel)

    def path(self, provider: str) -> PeerPath | None:
        """How a provider is reached; `None` if it is not connected."""
        return next((state.path for state in self._host.peers() if state.peer == provider), None)

    async def close_channel(self, channel: bytes) -> Transaction:
        """Close a channel together with its provider. Raises as `Closing.together` does."""
        return await self._closing.together(channel)

    async def channels(self) -> Sequence[Channel]:
        """Every channel that was ever paid through from this book. Raises `LocalError`."""
        with translated():
            return await self._keeper.do(Book.channels)
