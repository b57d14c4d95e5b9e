"""One answer, whoever gives it: where a provider fails, the next goes on from the text that has come.

Each part is an answer of its own, with its own price, channel, count and receipt, and each provider is paid for its
part. Only the reader sees one answer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from inference.answer import Reading
from inference.engine import Request
from inference.nursery import open_background
from p2p.answer import Answer
from p2p.budget import Budget
from p2p.buying import Deal, worst_cost_nano
from p2p.discovery import Found
from p2p.errors import EngineError, Error, NoFunds, Refused, RemoteError, Unavailable
from p2p.funding import TooManyChannels
from p2p.patience import patiently
from p2p.protocol.negotiate import Quote
from p2p.standing_quotes import Held
from p2p.trace import Trace

if TYPE_CHECKING:
    from p2p.peer import LightPeer

PROVIDERS_MAX = 4  # that one answer is asked of
BUSY_PATIENCE_S = 60.0  # while every slot is in use

# What another provider may do better, or one that can be paid already.
OTHERS_MAY_DO = (Unavailable, RemoteError, EngineError, Refused, TooManyChannels, NoFunds)
# Refusals that others would repeat: it is the request.
OVER_QUOTE = "prompt_over_quote"
EVERYWHERE = frozenset({OVER_QUOTE, "too_long"})


class LastingAnswer(Reading[str]):
    """Iterate over it for the text, piece by piece; `parts` are the answers that it consists of, the last one last.

    The iteration raises what `Answer` raises, when nobody is left who goes on: for lack of providers, of ones that can
    continue a text (`CONTINUE`; nobody can where it holds more than prose), of money, or after `PROVIDERS_MAX`.
    """

    def __init__(
        self,
        peer: LightPeer,
        request: Request,
        found: Sequence[Found],
        *,
        budget: Budget,
        free: bool,
        allow: Callable[[int], Awaitable[None]],
        agreed: Callable[[Deal], None],
        trace: Trace,
    ) -> None:
        super().__init__(0)
        self.found = found
        self.parts: list[Answer] = []
        self._peer = peer
        self._request = request
        self._free = free
        self._budget = budget
        self._allow = allow
        self._agreed = agreed
        self._trace = trace
        self._text: list[str] = []
        self._left_out: set[str] = set()
        self._counts_are_believed = True
        self._missed: dict[bytes, Error] = {}  # what came of standing quotes under which no answer began, by their ids

    @property
    def completion_tokens(self) -> int:
        """Received so far."""
        return sum(part.completion_tokens for part in self.parts)

    @property
    def cost_nano(self) -> int:
        """What all parts cost so far."""
        return sum(part.cost_nano for part in self.parts)

    async def run(self) -> None:
        """Buy part after part, until the answer is whole or nobody goes on; the error is for the reader."""
        try:
            deal = await patiently(lambda: self._agree(self.found, self._request, free=self._free), BUSY_PATIENCE_S)
            while (error := await self._read(deal)) is not None:
                deal = await self._successor(deal, error)
        except Error as error:
            self.error = error
        finally:
            self._send.close()

    async def _read(self, deal: Deal) -> Error | None:
        """One part, to its end; what is wrong with it, if it is not the answer's end and another provider may help."""
        before = len(self.parts)
        try:
            async with self._peer.answer(deal, self._rest()) as part:
                self.parts.append(part)
                async for piece in part:
                    self._text.append(piece)
                    await self._send.send(piece)
        except OTHERS_MAY_DO as error:
            if isinstance(error, Refused) and error.reason in EVERYWHERE and not self._was_miscounted(error):
                raise
            came = self.parts[before:]
            whole = self.completion_tokens >= self._request.max_tokens or any(part.whole for part in came)
            return None if whole else error
        return None

    def _rest(self) -> Request:
        """What is still to be answered."""
        text, tokens = "".join(self._text), self.completion_tokens
        if text:
            return self._request.rest(text, tokens)
        return msgspec.structs.replace(self._request, max_tokens=self._request.max_tokens - tokens)

    async def _successor(self, over: Deal, error: Error) -> Deal:
        """Who goes on after the one that failed. Raises `error` if nobody does.

        A provider that says no to its standing quote may say yes to a question, and one that is not where it was may be
        elsewhere by now.
        """
        if self._text and not self._request.can_be_resumed:
            raise error
        failed = over.provider
        if self._was_miscounted(error):
            self._counts_are_believed = False
        elif over.held is not None and over.signed.id not in self._missed and self._is_blameless(error):
            self._missed[over.signed.id] = error
            self._trace("no_deal", peer=failed, why=str(error), reason=error.word)
        else:
            self._left_out.add(failed)
            self._peer.give_up(failed, error)
        if len(self._left_out) >= PROVIDERS_MAX:
            raise error
        try:
            broke = isinstance(error, NoFunds)
            deal = await patiently(lambda: self._agree_with_another(broke=broke), BUSY_PATIENCE_S)
        except Error as nobody:
            self._trace("no_failover", peer=failed, why=str(nobody), reason=nobody.word)
            raise error from nobody
        self._trace("failover", peer=deal.provider, failed=failed, tokens=self.completion_tokens)
        return deal

    async def _agree_with_another(self, *, broke: bool) -> Deal:
        """One that was found already and to which a channel is open, or else one that gives the rest away, or else any
        such, or else one that is looked for. Who is `broke` can pay through open channels only.

        To open a channel takes longer than a reader likes to wait, but what is false is worse: who failed us too often
        is among the last.
        """
        rest, standbys = self._rest(), await self._peer.standbys()
        known = self._able(self.found, rest)
        distrusted = await self._peer.distrusted([one.peer for one in known])
        warm = [one for one in known if one.peer in standbys - distrusted]
        giving = [one for one in known if one.advert.free_tokens and one.peer not in distrusted]
        others = [one for one in known if one not in warm and (one.peer in standbys or not broke)]
        ways = [(known, True)] if self._free else [(warm, False), (giving, True), (others, False)]
        problem: Error = Unavailable("nobody else was found who can go on")
        for some, free in ways:
            try:
                if some:
                    return await self._agree(some, rest, free=free)
            except Error as error:
                problem = error
        if broke:
            raise problem
        fresh = self._able(await self._peer.find(rest.model), rest)
        self.found = [*self.found, *(one for one in fresh if one not in known)]
        if not fresh:
            raise problem
        return await self._agree(fresh, rest, free=self._free)

    def _able(self, found: Sequence[Found], rest: Request) -> list[Found]:
        """Those that have not failed, and that can go on if there is something to go on from."""
        return [one for one in found if one.peer not in self._left_out and rest.needs <= {*one.model.features}]

    async def _agree(self, found: Sequence[Found], request: Request, *, free: bool) -> Deal:
        standing = () if free else await self._peer.held(request, self._budget)
        held = [one for one in standing if self._may_be_honoured(one, found)]
        if not found and not held:  # another process was faster
            self.found = found = await self._peer.find(request.model)
        bound, budget = self._prompt_tokens_bound(), self._budget

        async def consent(quote: Quote) -> None:
            worst_nano = self.cost_nano + worst_cost_nano(quote, request)
            if budget.answer_max_nano is not None and worst_nano > budget.answer_max_nano:
                raise Refused(
                    "over_budget", f"it could cost {worst_nano} nano in all: more than answer_max_nano allows"
                )
            await self._allow(worst_nano)

        try:
            deal = await self._peer.agree(found, request, bound, free=free, held=held, budget=budget, consent=consent)
        except Error:
            await self._allow(self.cost_nano)
            raise
        self._agreed(deal)
        return deal

    def _was_miscounted(self, error: Error) -> bool:
        """Whether the prompt is too long for a quote that was asked for by what another provider had counted: it may be
        wrong, or a cheat.
        """
        return isinstance(error, Refused) and error.reason == OVER_QUOTE and self._prompt_tokens_bound() is not None

    def _is_blameless(self, error: Error) -> bool:
        return not self._text and isinstance(error, Refused | Unavailable)

    def _may_be_honoured(self, held: Held, found: Sequence[Found]) -> bool:
        missed = self._missed.get(held.signed.id)
        if isinstance(missed, Unavailable) and held.quote.provider not in {one.peer for one in found}:
            return False
        return not isinstance(missed, Refused) and bool(self._able([held.found], self._rest()))

    def _prompt_tokens_bound(self) -> int | None:
        """Of the prompt with the text so far, where it was counted; other tokens may spell the same text."""
        counted = next((part.prompt_tokens for part in self.parts if part.prompt_tokens), 0)
        if not counted or not self._counts_are_believed:
            return None
        tokens = counted + self.completion_tokens
        return tokens + tokens // 8 + 16


async def allow_anything(_nano: int) -> None:
    """Of an answer about which nobody else is asked."""


@asynccontextmanager
async def open_lasting_answer(
    peer: LightPeer,
    request: Request,
    *,
    budget: Budget,
    free: bool,
    allow: Callable[[int], Awaitable[None]],
    agreed: Callable[[Deal], None],
    trace: Trace,
) -> AsyncIterator[LastingAnswer]:
    """The answer to `request`, by a standing quote or from whom `peer` finds; `agreed` is told of each deal.

    Before each deal `allow` is told what all parts may cost then, and may raise `Refused`; where no deal comes of it,
    it is told what they cost so far. Leaving the context early cancels the answer and pays what was done.

    Raises as `LightPeer.find`; later errors come from iterating.
    """
    found = () if not free and await peer.held(request, budget) else await peer.find(request.model)
    answer = LastingAnswer(peer, request, found, budget=budget, free=free, allow=allow, agreed=agreed, trace=trace)
    async with open_background() as background:
        background.start_soon(answer.run)
        yield answer
