"""A simulated client: asks now and then, looks for providers, takes the best offer, and tries again if one dies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from chain.errors import InsufficientFunds
from inference.engine import Message, Request
from inference.script import count_tokens
from p2p.errors import Error, Refused
from p2p.protocol import advert
from p2p.protocol.advert import AdvertBook, Listing, Pull, lookup_key
from p2p.protocol.market import Candidate, Need, choose, rank
from p2p.protocol.negotiate import Ask, Quote
from p2p.protocol.price import Tokens
from p2p.protocol.receipt import Receipt
from p2p.protocol.strategy import BuyerStrategy
from p2p.protocol.wire import Signed, encode
from sim.asking import Asking
from sim.negotiation import Agreement, Negotiation
from sim.network import Inbox
from sim.payers import Payers
from sim.process import gather, sleep
from sim.regions import Place
from sim.signatures import verify_by_peer
from sim.slow_chain import NETWORK
from sim.world import World

PROBE_PATIENCE_S = 3.0
RETRY_S = 5.0
NONCE_BYTES = 16


@dataclass
class Question:
    """What a client wants to know, and who failed it so far."""

    asked_s: float
    request: Request
    avoid: list[str] = field(default_factory=list)

    @property
    def need(self) -> Tokens:
        """The most that the answer may take."""
        return Tokens(input=count_tokens(self.request.messages), output=self.request.max_tokens)


class Quoted(NamedTuple):
    """A provider that made a quote and waits for a word."""

    negotiation: Negotiation
    quote: Quote


class ClientActor:
    """One buyer. Its wallet's address is made from its name."""

    def __init__(self, world: World, name: str, place: Place, strategy: BuyerStrategy) -> None:
        self._world = world
        self._name = name
        self._strategy = strategy
        self._terms = world.scenario.clients
        self._demand = world.kernel.stream(f"demand/{name}")
        self._choices = world.kernel.stream(f"choices/{name}")
        self._book = AdvertBook(network=NETWORK.name, verify=verify_by_peer)
        self._rtt_ms: dict[str, int] = {}
        wallet = f"wallet/{name}"
        self._payers = Payers(world, name, wallet)
        world.invariants.grant(wallet, self._terms.wallet_nano)
        world.network.join(name, place, lambda end: end.close())

    async def live(self) -> None:
        """Ask as long as questions come, then close all channels."""
        kernel, due_s = self._world.kernel, 0.0
        while (due_s := due_s + self._pause_s()) < self._world.scenario.duration_s:
            await sleep(kernel, max(0.0, due_s - kernel.now))
            await self._answer(self._question(due_s))
        await sleep(kernel, max(0.0, self._world.scenario.duration_s - kernel.now))
        await self._payers.close_all()
        self._world.clients_left -= 1

    def _pause_s(self) -> float:
        return self._demand.expovariate(self._terms.requests_per_hour / 3600)

    def _question(self, asked_s: float) -> Question:
        words = self._terms.prompt_tokens.draw(self._demand) - 1  # its role is a token too
        request = Request(
            model=self._world.scenario.model,
            messages=(Message("user", " ".join(["why"] * words)),),
            max_tokens=self._terms.answer_tokens.draw(self._demand),
            seed=self._demand.getrandbits(31),
        )
        return Question(asked_s, request)

    async def _answer(self, question: Question) -> None:
        self._world.trace("asked", client=self._name, waited_s=self._world.kernel.now - question.asked_s)
        for attempt in range(self._terms.attempts):
            if attempt:
                await sleep(self._world.kernel, RETRY_S)
            quoted = await self._quotes(question)
            if not quoted:
                self._world.trace("no_offer", client=self._name)
                continue
            agreement = await self._agree(question, quoted)
            if agreement is not None and await self._buy(question, agreement):
                return
        self._world.trace("unanswered", client=self._name)

    async def _quotes(self, question: Question) -> list[Quoted]:
        """Look around, and ask the most promising few for a quote."""
        need = question.need
        ask = Ask(
            model=question.request.model,
            prompt_tokens=need.input,
            max_tokens=need.output,
            payer_key=self._payers.signer.public_key,
            nonce=self._choices.randbytes(NONCE_BYTES),
        )
        candidates = [self._advertised(listing) for listing in await self._look(question)]
        best = rank(candidates, self._need(need))[: self._terms.quotes]
        negotiations = [Negotiation(self._world, self._name, score.candidate.peer) for score in best]
        quotes = await gather([negotiation.quote(ask) for negotiation in negotiations])
        for negotiation, quote in zip(negotiations, quotes, strict=True):
            if quote is None:
                negotiation.leave()
                self._book.drop(negotiation.provider)
        return [Quoted(n, quote) for n, quote in zip(negotiations, quotes, strict=True) if quote is not None]

    async def _look(self, question: Question) -> list[Listing]:
        """Probe a sample of the providers; then everyone whose advert we hold is an option."""
        await sleep(self._world.kernel, self._world.scenario.links.lookup_s)
        key, now = lookup_key(question.request.model), self._world.kernel.now
        found = self._world.directory.sample(key, self._terms.probes, now, self._choices)
        await gather([self._probe(peer) for peer in found])
        listings = self._book.listings(question.request.model, self._world.kernel.now)
        return [one for one in listings if one.advert.peer not in question.avoid and one.model.slots_free]

    async def _probe(self, provider: str) -> None:
        """Pull a provider's advert from itself, and measure the round trip."""
        kernel, sent_s = self._world.kernel, self._world.kernel.now
        end = self._world.network.connect(self._name, provider, advert.PROTOCOL)
        inbox = Inbox[Signed](kernel, end, Signed, patience_s=PROBE_PATIENCE_S)
        end.send(Pull())
        signed = await inbox.next()
        end.close()
        if signed is None:
            self._book.drop(provider)
        else:
            self._book.add(signed, kernel.now)
            self._rtt_ms[provider] = round(1000 * (kernel.now - sent_s))

    def _need(self, tokens: Tokens) -> Need:
        return Need(
            tokens=tokens,
            nano_per_second=self._terms.nano_per_second,
            answers_per_channel=self._terms.answers_per_channel,
        )

    def _advertised(self, listing: Listing) -> Candidate:
        peer, model = listing.advert.peer, listing.model
        return Candidate(
            peer=peer,
            prices=model.prices,
            ttft_ms=model.ttft_ms,
            tokens_per_s=model.tokens_per_s,
            rtt_ms=self._rtt_ms[peer],
            slots_free=model.slots_free,
            opening_fee_nano=self._payers.opening_fee_nano(peer),
        )

    def _offered(self, quote: Quote) -> Candidate:
        known = self._book.known(quote.provider)
        return Candidate(
            peer=quote.provider,
            prices=quote.prices,
            ttft_ms=quote.ttft_ms,
            tokens_per_s=quote.tokens_per_s,
            rtt_ms=self._rtt_ms[quote.provider],
            slots_free=known.models[0].slots_free if known else 0,
            opening_fee_nano=self._payers.opening_fee_nano(quote.provider),
        )

    async def _agree(self, question: Question, quoted: list[Quoted]) -> Agreement | None:
        """Choose, haggle, accept; the others are let go."""
        ranked = rank([self._offered(one.quote) for one in quoted], self._need(question.need))
        chosen = choose(ranked, self._choices.randrange).candidate.peer
        (best,) = (one for one in quoted if one.negotiation.provider == chosen)
        agreement = await best.negotiation.agree(self._strategy)
        for one in quoted:
            one.negotiation.leave()
        if agreement is None:
            self._world.trace("no_agreement", client=self._name, provider=chosen)
            return None
        self._world.trace(
            "agreed",
            client=self._name,
            provider=chosen,
            quoted=best.quote.prices.output,
            agreed=agreement.quote.prices.output,
            offers=len(quoted),
            after_s=self._world.kernel.now - question.asked_s,
        )
        return agreement

    async def _buy(self, question: Question, agreement: Agreement) -> bool:
        """One paid session: whether it gave an answer."""
        provider = agreement.quote.provider
        try:
            account = await self._payers.ready(agreement.quote)
        except InsufficientFunds:
            self._world.trace("no_funds", client=self._name)
            return False
        started_s = self._world.kernel.now
        request = encode(question.request)
        asking = Asking(self._world, self._name, agreement, account, request, question.request.max_tokens)
        asking.start()
        outcome = await asking.outcome
        account.used_s = self._world.kernel.now
        if isinstance(outcome, Receipt):
            self._answered(question, asking, outcome, started_s)
            return True
        question.avoid.append(provider)
        self._book.drop(provider)
        self._lost(provider, asking, outcome)
        return False

    def _answered(self, question: Question, asking: Asking, receipt: Receipt, started_s: float) -> None:
        assert asking.first_token_s is not None
        now = self._world.kernel.now
        self._world.trace(
            "answered",
            client=self._name,
            provider=receipt.provider,
            tokens_in=receipt.tokens.input,
            tokens_out=receipt.tokens.output,
            cost_nano=receipt.session_total_nano,
            reason=receipt.reason,
            attempts=len(question.avoid) + 1,
            first_token_s=asking.first_token_s - question.asked_s,
            session_first_token_s=asking.first_token_s - started_s,
            whole_s=now - question.asked_s,
        )

    def _lost(self, provider: str, asking: Asking, error: Error) -> None:
        why = error.reason if isinstance(error, Refused) else type(error).__name__
        self._world.trace("lost", client=self._name, provider=provider, why=why, tokens_out=asking.tokens)
