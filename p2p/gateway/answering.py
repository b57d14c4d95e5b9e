"""From a call to its answers: bought from whoever sells them, told to the caller as they come."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import trio

from inference.engine import FinishReason, Request
from inference.nursery import open_background
from p2p.errors import Error
from p2p.failover import LastingAnswer
from p2p.foreign import translated
from p2p.gateway import metadata
from p2p.gateway.calls import Call, Choice, Dialect, Outcome, Piece, Pieces
from p2p.gateway.checks import Audits
from p2p.gateway.failures import SERVER, Failure, Rejected, failure_of
from p2p.gateway.wire import Wire

Ask = Callable[[Request], AbstractAsyncContextManager[LastingAnswer]]
"""Finds, agrees, pays; raises as `LightPeer.ask` does."""

AuditsOf = Callable[[Collection[str]], Awaitable[Audits]]
"""Of providers, what was found."""

Say = Callable[[int, Piece, Mapping[str, Any] | None], Awaitable[None]]
"""Of one choice: more of it, and what there is to say of its provider where that is another than before."""


class Answering:
    """One call's answers. Leaving early stops them all, and what came is paid."""

    def __init__(self, call: Call, ask: Ask, audits: AuditsOf, answer_id: str) -> None:
        self._call = call
        self._ask = ask
        self._audits = audits
        self._id = answer_id
        self._answers: dict[int, LastingAnswer] = {}
        self._pieces: list[list[Piece]] = [[] for _ in call.requests]
        self._told = [0] * len(call.requests)  # of whose providers the caller was told

    @property
    def known(self) -> Mapping[str, Any] | None:
        """What there is to say of the first answer whose provider is known; `None` before."""
        begun = [answer.parts for answer in self._answers.values() if answer.parts]
        return metadata.of_parts(begun[0]) if begun else None

    @property
    def cost_nano(self) -> int:
        """So far."""
        return sum(answer.cost_nano for answer in self._answers.values())

    async def whole(self, wire: Wire, dialect: Dialect, timeout_s: float | None) -> None:
        """One body."""
        try:
            await self._run_within(timeout_s, _unsaid)
        except Error as error:
            await self._fail(wire, error)
            return
        outcome = await self._outcome()
        await wire.body(200, dialect.whole(outcome), metadata.headers(outcome.bombyx, over=True))

    async def stream(self, wire: Wire, dialect: Dialect, timeout_s: float | None) -> None:
        """Events, from the first text on. What goes wrong before has a status of its own."""
        opened = trio.Lock()
        begun = False

        async def say(index: int, piece: Piece, news: Mapping[str, Any] | None) -> None:
            nonlocal begun
            async with opened:
                if not begun:
                    await wire.open(metadata.headers(self.known or {}, over=False))
                    await wire.events(dialect.opening())
                    begun = True
            await wire.events([*(dialect.begun(index, news) if news else ()), *dialect.piece(index, piece)])

        async with open_background() as background:
            background.start_soon(wire.keep_alive)
            try:
                await self._run_within(timeout_s, say)
            except Error as error:
                if not wire.is_open:
                    await self._fail(wire, error)
                    return
                await wire.events(dialect.failed(failure_of(error, charged=True, extra=self._extra())))
            else:
                outcome = await self._outcome()
                if not begun:  # an answer without a word
                    await wire.open(metadata.headers(outcome.bombyx, over=False))
                    await wire.events(dialect.opening())
                await wire.events(dialect.closing(outcome))
        await wire.close()

    async def _run_within(self, timeout_s: float | None, say: Say) -> None:
        """Raises `Rejected` if that does not do; what came by then is paid."""
        with trio.move_on_after(math.inf if timeout_s is None else timeout_s) as scope:
            await self._run(say)
        if scope.cancelled_caught:
            raise Rejected(Failure(504, SERVER, "timeout", f"no whole answer within {timeout_s:g} s"))

    async def _run(self, say: Say) -> None:
        """All answers side by side; the first error ends them."""
        requests = self._call.requests
        if len(requests) == 1:
            await self._one(0, requests[0], say)
            return
        first: list[Error] = []

        async def one(index: int, request: Request, scope: trio.CancelScope) -> None:
            try:
                await self._one(index, request, say)
            except Error as error:
                first.append(error)
                scope.cancel()

        async with trio.open_nursery() as nursery:
            for index, request in enumerate(requests):
                nursery.start_soon(one, index, request, nursery.cancel_scope)
        if first:
            raise first[0]

    async def _one(self, index: int, request: Request, say: Say) -> None:
        async with self._ask(request) as answer:
            self._answers[index] = answer
            reader = Pieces(request, f"call_{self._id}{index}")
            async for text in answer:
                with translated():
                    piece = reader.feed(text)
                await self._tell(index, piece, say)
            with translated():
                rest = reader.end()
            await self._tell(index, rest, say)

    async def _tell(self, index: int, piece: Piece, say: Say) -> None:
        if piece:
            self._pieces[index].append(piece)
            parts = self._answers[index].parts
            news = metadata.of_parts(parts) if len(parts) > self._told[index] else None
            self._told[index] = len(parts)
            await say(index, piece, news)

    async def _outcome(self) -> Outcome:
        answers = [self._answers[index] for index in range(len(self._call.requests))]
        parts = [part for answer in answers for part in answer.parts]
        audits = await self._audits({part.deal.provider for part in parts})
        return Outcome(
            [
                Choice(sum(pieces, Piece()), _reason(answer))
                for pieces, answer in zip(self._pieces, answers, strict=True)
            ],
            sum(part.prompt_tokens for part in parts),
            sum(part.completion_tokens for part in parts),
            metadata.merged([metadata.of_parts(answer.parts, audits) for answer in answers]),
        )

    async def _fail(self, wire: Wire, error: Error) -> None:
        await wire.fail(failure_of(error, charged=self.cost_nano > 0, extra=self._extra()))

    def _extra(self) -> Mapping[str, Any]:
        known = self.known
        return {} if known is None else {"bombyx": known}


def _reason(answer: LastingAnswer) -> FinishReason:
    """Why it ended. A whole answer whose receipt was lost was as long as it could be, or ended by itself."""
    receipt = answer.parts[-1].receipt
    return "length" if receipt is not None and receipt.reason == "length" else "stop"


async def _unsaid(_index: int, _piece: Piece, _news: Mapping[str, Any] | None) -> None:
    await trio.lowlevel.checkpoint()
