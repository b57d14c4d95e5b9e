"""One paid answer at a simulated provider: the session's core on one side, a paced engine on the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from chain.channel import Payee
from inference.engine import FinishReason, Request
from inference.script import count_tokens
from p2p.errors import Refused
from p2p.protocol.negotiate import Quote, Refusal
from p2p.protocol.receipt import Sampling
from p2p.protocol.session import (
    ENDED,
    Check,
    Completed,
    Event,
    Generate,
    Hold,
    Prefill,
    Resume,
    SaveClaim,
    SaveDelivered,
    Start,
    StopEngine,
    ToProvider,
)
from p2p.protocol.session_provider import ProviderSession
from p2p.protocol.wire import Signed, decode
from sim.engine import Job
from sim.network import End
from sim.session_rim import SessionRim
from sim.signatures import FakeSigner, verify_by_peer
from sim.slow_chain import NETWORK
from sim.world import World

if TYPE_CHECKING:
    from sim.provider_actor import ProviderActor

# So much of an answer is out when a provider that is to die dies.
PIECES_BEFORE_DEATH = 2


class Serving(SessionRim):
    """A session under way; it takes a slot and its channel from the moment it is admitted."""

    def __init__(self, world: World, provider: ProviderActor, end: End) -> None:
        self._session = ProviderSession(signer=FakeSigner(provider.name), verify=verify_by_peer)
        super().__init__(world, end, self._session, ToProvider)
        self._provider = provider
        self._job: Job | None = None
        self._payee: Payee | None = None
        self._quote: Quote | None = None
        self._signed: Signed
        self._pieces = 0

    def act(self, event: Event) -> None:
        match event:
            case Check(start):
                self._check(start)
                self.keep_time()
            case SaveClaim() | SaveDelivered():
                self._provider.payees.save(event)
            case Completed(_, signed):
                self.world.invariants.receipt(signed, NETWORK.name)
            case _ if self._job is not None:
                self._drive(self._job, event)
            case _:
                pass
        if self._session.state in ENDED:
            self._leave()

    def carry_out(self, events: Sequence[Event]) -> None:
        super().carry_out(events)
        if any(isinstance(event, SaveClaim) for event in events):
            super().carry_out(self._session.look(self.world.kernel.now))

    def check_exposure(self) -> None:
        if self._payee is not None and self._quote is not None:
            self.world.invariants.exposure(self._provider.name, self._payee.unpaid_nano, self._quote.window_nano)

    def stop(self) -> None:
        """The provider's process is gone, and this with it."""
        if self._job is not None:
            self._job.stop()

    def prefilled(self, tokens: int) -> None:
        self.carry_out(self._session.prefilled(tokens, self.world.kernel.now))

    def produced(self, text: str, tokens: int) -> None:
        self.carry_out(self._session.produced(text, tokens, self.world.kernel.now))
        self._pieces += 1
        if self._pieces == PIECES_BEFORE_DEATH:
            self._provider.die_if_doomed()

    def generated(self, reason: FinishReason) -> None:
        self.carry_out(self._session.generated(reason, self.world.kernel.now))

    def _check(self, start: Start) -> None:
        now = self.world.kernel.now
        selling = self._provider.selling
        try:
            quote = selling.redeem(start.quote, self._end.peer)
        except Refused as no:
            self._refuse(no)
            return
        try:
            payee = self._provider.payees.lease(start.channel, quote.client, quote.payer_key)
        except Refused as no:
            selling.ended(start.quote)
            self._refuse(no)
            return
        request: Request = decode(start.request, Request)
        prompt_tokens = count_tokens(request)
        self._quote, self._signed, self._payee = quote, start.quote, payee
        self._job = Job(self.world.kernel, self._provider.pace, request, prompt_tokens, self)
        self._provider.began(self)
        sampling = Sampling(
            max_tokens=request.max_tokens, temperature=request.temperature, top_p=request.top_p, seed=request.seed
        )
        self.carry_out(self._session.admit(quote, payee, sampling, prompt_tokens, now))

    def _refuse(self, no: Refused) -> None:
        self.carry_out(self._session.refuse(Refusal.of(no), self.world.kernel.now))

    def _drive(self, job: Job, event: Event) -> None:
        match event:
            case Prefill(tokens):
                job.prefill(tokens)
            case Generate():
                job.generate()
            case Hold():
                job.hold()
            case Resume():
                job.resume()
            case StopEngine():
                job.stop()
            case _:
                pass

    def _leave(self) -> None:
        """Give back the slot and the channel, once."""
        if self._payee is not None:
            payee, self._payee = self._payee, None
            self.stop()
            self._provider.selling.ended(self._signed)
            self._provider.ended(self, payee)
