"""A client's audits: after some answers a question of its own to the same provider, whose answer another engine reads.

It is asked and paid like any other, over a channel that is open already, so that its provider can hardly tell. The
reader has the same weights; it is opened when it is first needed. What comes of it is signed and kept with what else is
known of the provider. Nothing here is in a user's way: what goes wrong with an audit is told and forgotten.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

import trio

from chain.voucher import Signer
from inference.engine import SCORE, Engine, ModelInfo, Request
from inference.nursery import open_background
from p2p.answer import Answer
from p2p.buying import worst_cost_nano
from p2p.errors import Error, Refused
from p2p.foreign import translated
from p2p.peer import LightPeer
from p2p.protocol.audit import (
    Delivered,
    Finding,
    Outcome,
    Verdict,
    Weights,
    due,
    judge,
    limits_of,
    strain_permille,
    with_earlier,
)
from p2p.protocol.audit_prompts import synthetic
from p2p.protocol.negotiate import Quote
from p2p.protocol.receipt import Receipt
from p2p.protocol.reputation import Evidence, Kind, weigh
from p2p.protocol.wire import sign
from p2p.trace import Trace, silent
from p2p.track_record import TrackRecord

WAITING_MAX = 16  # of a provider's answers, after which an audit may be due; more at a time are passed over

KINDS = {
    Outcome.PASSED: Kind.AUDIT_PASSED,
    Outcome.FAILED: Kind.AUDIT_FAILED,
    Outcome.UNCLEAR: Kind.AUDIT_UNCLEAR,
}


class Reader(NamedTuple):
    """What reads others' answers: how to open it, and what its engine is called."""

    open: Callable[[], AbstractAsyncContextManager[Engine]]
    engine: str


@dataclass(frozen=True)
class AuditBudget:
    """How much is audited, and what for."""

    share_percent: float = 2.0
    nano_per_day: int = 10_000_000
    real_prompts: bool = False  # read the user's own answers, in place of asking more


class _Heard(NamedTuple):
    """An answer that was given in full."""

    request: Request
    answer: Answer
    receipt: Receipt


class _Waiting:
    """Answers that nobody has considered yet, taken of one provider after the other: a busy one delays itself only."""

    def __init__(self) -> None:
        self._by_provider: dict[str, deque[_Heard]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_provider)

    def add(self, heard: _Heard) -> bool:
        """Whether there is room for it."""
        queue = self._by_provider.setdefault(heard.receipt.provider, deque())
        if len(queue) == WAITING_MAX:
            return False
        queue.append(heard)
        return True

    def take(self) -> _Heard:
        """The oldest of the provider whose turn it is. There must be one."""
        provider = next(iter(self._by_provider))
        queue = self._by_provider.pop(provider)
        heard = queue.popleft()
        if queue:
            self._by_provider[provider] = queue  # behind the others
        return heard


class Auditor:
    """Made by `open_auditor`."""

    def __init__(
        self,
        peer: LightPeer,
        reader: Reader,
        budget: AuditBudget,
        *,
        track_record: TrackRecord,
        identity: Signer,
        clock: Callable[[], float],
        draw: Callable[[int], int],
        trace: Trace,
    ) -> None:
        self._peer = peer
        self._reader = reader
        self._budget = budget
        self._track_record = track_record
        self._identity = identity
        self._clock = clock
        self._draw = draw
        self._trace = trace
        self._waiting, self._arrival = _Waiting(), trio.lowlevel.ParkingLot()
        self._pending, self._rest = 0, trio.lowlevel.ParkingLot()
        self._engine: Engine | None = None

    def hear(self, request: Request, answer: Answer) -> None:
        """An answer of the user's is over."""
        if answer.receipt is None or not answer.whole or self._budget.share_percent == 0:
            return
        if self._waiting.add(_Heard(request, answer, answer.receipt)):
            self._pending += 1
            self._arrival.unpark()
        else:
            self._trace("audit_skipped", peer=answer.deal.provider, why="too many wait")

    async def settled(self) -> None:
        """Wait until no audit is under way or due."""
        while self._pending:
            await self._rest.park()

    async def run(self) -> None:
        """One audit after the other, forever."""
        async with AsyncExitStack() as stack:
            while True:
                while not self._waiting:
                    await self._arrival.park()
                heard = self._waiting.take()
                try:
                    await self._consider(heard, stack)
                except Error as error:
                    self._trace("audit_skipped", peer=heard.receipt.provider, why=str(error), reason=error.word)
                self._pending -= 1
                self._rest.unpark_all()

    async def _consider(self, heard: _Heard, stack: AsyncExitStack) -> None:
        provider = heard.receipt.provider
        known = weigh(await self._track_record.of(provider), self._clock())
        if not due(known, self._budget.share_percent, self._draw):
            return
        if self._engine is None:
            with translated():
                self._engine = await stack.enter_async_context(self._reader.open())
        model = self._readable(heard.receipt)
        if model is None:
            self._trace("audit_skipped", peer=provider, why=f"no reader has the weights of {heard.receipt.model}")
        elif self._budget.real_prompts and heard.request.top_p == 1 and not heard.request.stop:
            await self._read(model, heard.request, heard.answer, own=False)
        else:
            await self._ask(model, heard)

    def _readable(self, receipt: Receipt) -> ModelInfo | None:
        """The very weights that the provider says it has."""
        assert self._engine is not None
        for model in self._engine.models():
            if (model.id, model.digest) == (receipt.model, receipt.digest) and SCORE in model.features:
                return model
        return None

    async def _ask(self, model: ModelInfo, heard: _Heard) -> None:
        provider, request = heard.receipt.provider, synthetic(self._draw, heard.request)
        found = [one for one in await self._peer.find(request.model) if one.peer == provider]
        if not found:
            self._trace("audit_skipped", peer=provider, why="it is not there any more")
            return

        async def consent(quote: Quote) -> None:
            spent_nano = await self._track_record.audits_cost_today_nano()
            if spent_nano + worst_cost_nano(quote, request) > self._budget.nano_per_day:
                raise Refused("over_budget", f"{spent_nano} nano were spent on audits today")

        deal = await self._peer.agree(found, request, consent=consent)
        self._trace("auditing", peer=provider)
        answer: Answer | None = None
        try:
            async with self._peer.answer(deal, request, audit=True) as answer:
                async for _ in answer:
                    pass
        except Error as error:
            if answer is not None:
                await self._come_to_nothing(answer, error.word)
            raise
        await self._read(model, request, answer, own=True)

    async def _come_to_nothing(self, answer: Answer, why: str) -> None:
        """Its cost counts all the same."""
        evidence = Evidence(at=int(self._clock()), kind=Kind.AUDIT_UNCLEAR, code=why)
        await self._note(evidence, answer, own=True)

    async def _read(self, model: ModelInfo, request: Request, answer: Answer, *, own: bool) -> None:
        """Have the answer read, and say what is found of it."""
        assert self._engine is not None
        receipt = answer.receipt
        if receipt is None or not answer.text:
            await self._come_to_nothing(answer, "no_answer")
            return
        with translated():
            scored = await self._engine.score(request, answer.text)
            prompt_tokens = await self._engine.count(request)
        limits = limits_of(Weights(model.id, model.quantisation, self._reader.engine))
        delivered = Delivered(request.temperature == 0, receipt.reason, receipt.tokens)
        finding = judge(delivered, scored, prompt_tokens, limits)
        strain = strain_permille(finding, limits) if delivered.greedy else None
        if delivered.greedy:
            finding = with_earlier(finding, await self._track_record.of(receipt.provider), limits)
        verdict = self._verdict(finding, answer, receipt, model, own=own)
        evidence = Evidence(
            at=verdict.at,
            kind=KINDS[finding.outcome],
            code=finding.fault or ("too_short" if finding.outcome is Outcome.UNCLEAR else ""),
            tokens=finding.tokens,
            strain_permille=strain,
            verdict=sign(verdict, self._identity),
        )
        await self._note(evidence, answer, own=own)

    def _verdict(self, finding: Finding, answer: Answer, receipt: Receipt, model: ModelInfo, *, own: bool) -> Verdict:
        assert answer.signed_receipt is not None
        return Verdict(
            network=receipt.network,
            auditor=receipt.client,
            provider=receipt.provider,
            receipt=answer.signed_receipt.receipt.id,
            model=model.id,
            quantisation=model.quantisation,
            digest=model.digest,
            engine=self._reader.engine,
            synthetic=own,
            outcome=finding.outcome,
            fault=finding.fault or "",
            tokens=finding.tokens,
            deviation_milli=round(1000 * finding.deviation),
            at=int(self._clock()),
        )

    async def _note(self, evidence: Evidence, answer: Answer, *, own: bool) -> None:
        peer, cost_nano = answer.deal.provider, answer.cost_nano if own else 0
        await self._track_record.note_audit(peer, evidence, cost_nano)
        self._trace(
            "audited",
            peer=peer,
            outcome=evidence.kind.removeprefix("audit_"),
            why=evidence.code,
            tokens=evidence.tokens,
            cost_nano=cost_nano,
        )


@asynccontextmanager
async def open_auditor(
    peer: LightPeer,
    reader: Reader,
    budget: AuditBudget,
    *,
    track_record: TrackRecord,
    identity: Signer,
    clock: Callable[[], float],
    draw: Callable[[int], int] = secrets.randbelow,
    trace: Trace = silent,
) -> AsyncIterator[Auditor]:
    """Audit after the answers of `peer` for as long as the context lasts; `draw(n)` is a random integer in [0, n)."""
    auditor = Auditor(
        peer,
        reader,
        budget,
        track_record=track_record,
        identity=identity,
        clock=clock,
        draw=draw,
        trace=trace,
    )
    async with open_background() as background:
        background.start_soon(auditor.run)
        with peer.heard_by(auditor.hear):
            yield auditor
