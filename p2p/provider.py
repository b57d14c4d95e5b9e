"""The seller's shell: one provider on the network, serving adverts, negotiations, sessions and releases."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import trio

from chain.keeper import BookKeeper
from chain.ledger import Ledger
from chain.settling import SettlePolicy
from chain.voucher import Signer
from inference.engine import Engine
from inference.measure import Measured
from p2p.demands import Demands
from p2p.discovery import Announcer, Directory
from p2p.errors import Error, Refused
from p2p.giving import Giving
from p2p.host import Host, Stream
from p2p.keys import verify_by_peer
from p2p.manners import Pause
from p2p.payees import Payees
from p2p.protocol import negotiate, release, session
from p2p.protocol.advert import MAX_LIFETIME_S, Advert, ChannelOffer
from p2p.protocol.allowance import Allowance
from p2p.protocol.negotiate import Refusal
from p2p.protocol.receipt import Receipt
from p2p.protocol.release import CloseRequest, ToClient
from p2p.protocol.sales import PriceList
from p2p.protocol.wire import Signed, sign
from p2p.selling import Selling
from p2p.serving import Serving
from p2p.settlements import Settlements
from p2p.stream import MessageStream
from p2p.trace import Trace, silent
from p2p.upkeep import Upkeep

NO_ALLOWANCE = Allowance()
RELEASE_TIMEOUT_S = 300.0  # what is due is settled on chain first


class Provider:
    """Sells answers of one engine over one host, paid on one ledger."""

    def __init__(
        self,
        *,
        host: Host,
        engine: Engine,
        measured: Mapping[str, Measured],
        ledger: Ledger,
        keeper: BookKeeper,
        identity: Signer,
        payee_key: Signer,
        price_list: PriceList,
        deposit_min_nano: int,
        challenge_period_s: int,
        settle_policy: SettlePolicy,
        allowance: Allowance = NO_ALLOWANCE,
        pause: Callable[[], Pause | None] = lambda: None,
        went_out: Callable[[int], None] = lambda _: None,
        clock: Callable[[], float],
        trace: Trace = silent,
    ) -> None:
        """`pause` says why nothing new is served, if so; `went_out` hears of so many tokens of some answer."""
        self._host, self._engine, self._keeper, self._identity = host, engine, keeper, identity
        self._went_out = went_out
        self._clock, self._trace, self._seq = clock, trace, 0
        self._network = ledger.network.name
        self._channel = ChannelOffer(
            payee=ledger.wallet.address,
            payee_key=payee_key.public_key,
            deposit_min_nano=deposit_min_nano,
            challenge_period_s=challenge_period_s,
        )
        self._settlements = Settlements(ledger=ledger, keeper=keeper, policy=settle_policy, clock=clock, trace=trace)
        self._payees = Payees(
            ledger, keeper, self._channel, self._settlements, price_list.window_cap_nano, clock=clock, trace=trace
        )
        self._upkeep = Upkeep(
            ledger=ledger,
            keeper=keeper,
            payees=self._payees,
            settlements=self._settlements,
            signer=payee_key,
            challenge_period_s=challenge_period_s,
            trace=trace,
        )
        self._giving = Giving(keeper, allowance, clock, trace)
        self._sales = Selling(
            network=self._network,
            peer=host.peer,
            signer=identity,
            engine=engine,
            measured=measured,
            price_list=price_list,
            channel=self._channel,
            funded=self._payees.clients,
            keeper=keeper,
            giving=self._giving,
            pause=pause,
            clock=clock,
            trace=trace,
        )

    @property
    def answering(self) -> int:
        """How many answers are under way."""
        return self._sales.sessions

    async def drained(self) -> None:
        """Wait until no answer is under way."""
        await self._sales.drained()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; `started` once others can find us."""
        await self._payees.load()
        await self._settlements.load(self._payees)
        await self._sales.load()
        async with trio.open_nursery() as nursery:
            self._host.serve(negotiate.PROTOCOL, self._sales.negotiate)
            self._host.serve(session.PROTOCOL, self._serve_session, timeout_s=math.inf)  # the core has its deadlines
            self._host.serve(release.PROTOCOL, self._serve_release, timeout_s=RELEASE_TIMEOUT_S)
            nursery.start_soon(self._upkeep.watch)
            await nursery.start(Announcer(self._host, self.advert, self._trace).run)
            nursery.start_soon(self._listen)
            task_status.started()

    async def _listen(self) -> None:
        """Pass on what others say of our families, and tell those of us who want what we have."""
        host, network, clock, trace = self._host, self._network, self._clock, self._trace
        directory = Directory(host, network=network, verify=verify_by_peer, clock=clock, trace=trace)
        suit = self._sales.would_sell
        demands = Demands(host, network=network, verify=verify_by_peer, clock=clock, suit=suit, trace=trace)
        families = sorted({model.family for model in self._engine.models()})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(directory.listen, families)
            nursery.start_soon(demands.listen, families)
            nursery.start_soon(demands.answer, self.advert)

    def advert(self) -> tuple[Advert, Signed]:
        """What we offer right now, signed."""
        now = self._clock()
        self._seq = max(self._seq + 1, int(now * 1000))  # it rises even if the clock is set back
        advert = Advert(
            network=self._network,
            peer=self._host.peer,
            addresses=tuple(self._host.addresses()),
            seq=self._seq,
            issued_at=int(now),
            expires_at=int(now) + MAX_LIFETIME_S,
            models=self._sales.offers(),
            channel=self._channel,
            free_tokens=self._giving.tokens,
        )
        return advert, sign(advert, self._identity)

    async def _serve_session(self, stream: Stream) -> None:
        serving = Serving(
            stream,
            engine=self._engine,
            sales=self._sales,
            payees=self._payees,
            giving=self._giving,
            keeper=self._keeper,
            signer=self._identity,
            went_out=self._went_out,
            clock=self._clock,
            trace=self._trace,
        )
        try:
            await serving.run()
            self._tell(stream.peer, serving.receipt)
        except Error as error:
            self._trace("session_failed", peer=stream.peer, why=str(error), reason=error.word)
            raise
        finally:
            if serving.channel is not None:
                await self._upkeep.settle(serving.channel)

    def _tell(self, peer: str, receipt: Receipt | None) -> None:
        if receipt is not None:
            self._trace(
                "served",
                peer=peer,
                model=receipt.model,
                tokens_in=receipt.tokens.input,
                tokens_out=receipt.tokens.output,
                earned_nano=receipt.session_total_nano,
            )

    async def _serve_release(self, stream: Stream) -> None:
        messages = MessageStream[CloseRequest](stream, CloseRequest, self._trace)
        request = await messages.answer()
        try:
            answer: ToClient = await self._upkeep.release(request, stream.peer)
        except Refused as no:
            answer = Refusal.of(no)
        await messages.send(answer)
        await messages.close()
