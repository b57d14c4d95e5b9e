"""A simulated client: asks now and then, buys the answer, and turns to another provider if one fails it."""

from __future__ import annotations

from dataclasses import dataclass, field

from chain.errors import InsufficientFunds
from inference.engine import Message, Request
from p2p.errors import Error, Refused
from p2p.protocol.receipt import Receipt
from p2p.protocol.strategy import BuyerStrategy
from p2p.protocol.wire import encode
from sim.asking import Asking
from sim.negotiation import Agreement
from sim.payers import Payers
from sim.process import sleep
from sim.regions import Place
from sim.shopping import Shopper
from sim.world import World

RETRY_S = 5.0


@dataclass
class Question:
    """What a client wants to know, and who failed it so far."""

    asked_s: float
    request: Request
    avoid: list[str] = field(default_factory=list)


class ClientActor:
    """One buyer. Its wallet's address is made from its name."""

    def __init__(self, world: World, name: str, place: Place, strategy: BuyerStrategy) -> None:
        self._world = world
        self._name = name
        self._terms = world.scenario.clients
        self._demand = world.kernel.stream(f"demand/{name}")
        wallet = f"wallet/{name}"
        self._payers = Payers(world, name, wallet)
        self._shopper = Shopper(world, name, self._payers, strategy)
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
        try:
            answered = await self._bought(question)
        except InsufficientFunds:
            answered = False
            self._world.trace("no_funds", client=self._name)
        if not answered:
            self._world.trace("unanswered", client=self._name)

    async def _bought(self, question: Question) -> bool:
        """Try again where a provider fails; whether it came to an answer. Raises `InsufficientFunds`."""
        for attempt in range(self._terms.attempts):
            if attempt:
                await sleep(self._world.kernel, RETRY_S)
            agreement = await self._agree(question)
            if agreement is not None and await self._buy(question, agreement):
                return True
        return False

    async def _agree(self, question: Question) -> Agreement | None:
        deal = await self._shopper.shop(question.request, question.avoid)
        if deal is None:
            return None
        self._world.trace(
            "agreed",
            client=self._name,
            provider=deal.first.provider,
            quoted=deal.first.prices.output,
            agreed=deal.agreement.quote.prices.output,
            offers=deal.offers,
            after_s=self._world.kernel.now - question.asked_s,
        )
        return deal.agreement

    async def _buy(self, question: Question, agreement: Agreement) -> bool:
        """One paid session: whether it gave an answer. Raises `InsufficientFunds`."""
        account = await self._payers.ready(agreement.quote)
        request = question.request
        asking = Asking(self._world, self._name, agreement, account, encode(request), request.max_tokens)
        asking.start()
        outcome = await asking.outcome
        account.used_s = self._world.kernel.now
        if isinstance(outcome, Receipt):
            self._answered(question, asking, outcome)
            return True
        question.avoid.append(account.provider)
        self._shopper.forget(account.provider)
        self._lost(account.provider, asking, outcome)
        return False

    def _answered(self, question: Question, asking: Asking, receipt: Receipt) -> None:
        assert asking.first_token_s is not None
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
            session_first_token_s=asking.first_token_s - asking.started_s,
            whole_s=self._world.kernel.now - question.asked_s,
        )

    def _lost(self, provider: str, asking: Asking, error: Error) -> None:
        why = error.reason if isinstance(error, Refused) else type(error).__name__
        self._world.trace("lost", client=self._name, provider=provider, why=why, tokens_out=asking.tokens)
