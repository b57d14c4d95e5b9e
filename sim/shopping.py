"""How a simulated client comes to an agreement: find, probe, ask a few for quotes, choose, haggle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from inference.engine import Request
from inference.script import count_tokens
from p2p.protocol import advert
from p2p.protocol.advert import Pull, lookup_key
from p2p.protocol.advert_book import AdvertBook, Listing
from p2p.protocol.market import Candidate, Need, choose, rank
from p2p.protocol.negotiate import NONCE_BYTES, Ask, Quote
from p2p.protocol.price import Tokens
from p2p.protocol.strategy import BuyerStrategy
from p2p.protocol.wire import Signed
from sim.negotiation import Agreement, Negotiation
from sim.network import Inbox
from sim.payers import Payers
from sim.process import gather, sleep
from sim.signatures import verify_by_peer
from sim.slow_chain import NETWORK
from sim.world import World

PROBE_PATIENCE_S = 3.0


class Quoted(NamedTuple):
    """A provider that made a quote and waits for a word, with the free slots of its advert."""

    negotiation: Negotiation
    quote: Quote
    slots_free: int


class Deal(NamedTuple):
    """What was agreed, from which first price, out of how many offers."""

    agreement: Agreement
    first: Quote
    offers: int


class Shopper:
    """One client's view of the market: the adverts that it holds, and how far away their providers are."""

    def __init__(self, world: World, client: str, payers: Payers, strategy: BuyerStrategy) -> None:
        self._world = world
        self._client = client
        self._payers = payers
        self._strategy = strategy
        self._terms = world.scenario.clients
        self._chance = world.kernel.stream(f"choices/{client}")
        self._book = AdvertBook(network=NETWORK.name, verify=verify_by_peer)
        self._rtt_ms: dict[str, int] = {}

    async def shop(self, request: Request, avoid: Sequence[str]) -> Deal | None:
        """The best deal to be had now; `None` if nobody offers, or the chosen one changes its mind."""
        tokens = Tokens(input=count_tokens(request), output=request.max_tokens)
        need = Need(
            tokens=tokens,
            nano_per_second=self._terms.nano_per_second,
            answers_per_channel=self._terms.answers_per_channel,
        )
        quoted = await self._quotes(request.model, need, avoid)
        if not quoted:
            self._world.trace("no_offer", client=self._client)
            return None
        return await self._deal(quoted, need)

    def forget(self, provider: str) -> None:
        """It failed us: its advert counts no more."""
        self._book.fail(provider, self._world.kernel.now)

    async def _quotes(self, model: str, need: Need, avoid: Sequence[str]) -> list[Quoted]:
        """Look around, and ask the most promising few."""
        ask = Ask(
            model=model,
            prompt_tokens=need.tokens.input,
            max_tokens=need.tokens.output,
            payer_key=self._payers.signer.public_key,
            nonce=self._chance.randbytes(NONCE_BYTES),
        )
        candidates = [self._advertised(listing) for listing in await self._look(model, avoid)]
        best = [score.candidate for score in rank(candidates, need)[: self._terms.quotes]]
        quoted = await gather([self._quote(candidate, ask) for candidate in best])
        return [one for one in quoted if one is not None]

    async def _quote(self, candidate: Candidate, ask: Ask) -> Quoted | None:
        negotiation = Negotiation(self._world, self._client, candidate.peer)
        quote = await negotiation.quote(ask)
        if quote is None:
            negotiation.leave()
            self.forget(candidate.peer)
            return None
        return Quoted(negotiation, quote, candidate.slots_free)

    async def _look(self, model: str, avoid: Sequence[str]) -> list[Listing]:
        """Probe a sample of the providers; then everyone whose advert we hold is an option."""
        await sleep(self._world.kernel, self._world.scenario.links.lookup_s)
        now = self._world.kernel.now
        found = self._world.directory.sample(lookup_key(model), self._terms.probes, now, self._chance)
        await gather([self._probe(peer) for peer in found])
        listings = self._book.listings(model, self._world.kernel.now)
        return [one for one in listings if one.advert.peer not in avoid and one.model.slots_free]

    async def _probe(self, provider: str) -> None:
        """Pull a provider's advert from itself, and measure the round trip."""
        kernel, sent_s = self._world.kernel, self._world.kernel.now
        end = self._world.network.connect(self._client, provider, advert.PROTOCOL)
        inbox = Inbox[Signed](kernel, end, Signed, patience_s=PROBE_PATIENCE_S)
        end.send(Pull())
        signed = await inbox.next()
        end.close()
        if signed is None:
            self.forget(provider)
        else:
            self._book.add(signed, kernel.now, source=provider)
            self._rtt_ms[provider] = round(1000 * (kernel.now - sent_s))

    async def _deal(self, quoted: Sequence[Quoted], need: Need) -> Deal | None:
        """Choose, haggle, accept; the others are let go."""
        ranked = rank([self._offered(one) for one in quoted], need)
        chosen = choose(ranked, self._chance.randrange).candidate.peer
        (best,) = (one for one in quoted if one.quote.provider == chosen)
        agreement = await best.negotiation.agree(self._strategy)
        for one in quoted:
            one.negotiation.leave()
        if agreement is None:
            self._world.trace("no_agreement", client=self._client, provider=chosen)
            return None
        return Deal(agreement, best.quote, len(quoted))

    def _advertised(self, listing: Listing) -> Candidate:
        return self._candidate(listing.advert.peer, listing.model, listing.model.slots_free)

    def _offered(self, quoted: Quoted) -> Candidate:
        return self._candidate(quoted.quote.provider, quoted.quote, quoted.slots_free)

    def _candidate(self, peer: str, speed: advert.ModelOffer | Quote, slots_free: int) -> Candidate:
        return Candidate(
            peer=peer,
            prices=speed.prices,
            ttft_ms=speed.ttft_ms,
            tokens_per_s=speed.tokens_per_s,
            rtt_ms=self._rtt_ms[peer],
            slots_free=slots_free,
            opening_fee_nano=self._payers.opening_fee_nano(peer),
        )
