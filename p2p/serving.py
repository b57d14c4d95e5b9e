"""One paid answer at the provider: the session's core on one side, the engine on the other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial

import trio

from chain.channel import Payee
from chain.keeper import BookKeeper
from chain.voucher import Claim
from inference.engine import Delta, Engine, Finished, FinishReason, Request
from p2p.book_events import save_events
from p2p.errors import EngineError, Error, Refused, RemoteError
from p2p.foreign import translated
from p2p.giving import Giving
from p2p.host import Stream
from p2p.keys import verify_by_peer
from p2p.payees import Payees
from p2p.protocol.negotiate import Quote, Refusal
from p2p.protocol.receipt import Receipt, Sampling
from p2p.protocol.sales import require_features, require_fits
from p2p.protocol.session import (
    Check,
    Completed,
    Event,
    Generate,
    Hold,
    Prefill,
    Resume,
    Save,
    Start,
    StopEngine,
    ToProvider,
)
from p2p.protocol.session_provider import ProviderSession
from p2p.protocol.wire import BodySigner, decode
from p2p.selling import Selling
from p2p.session_shell import SessionShell
from p2p.stream import MessageStream
from p2p.trace import Trace

# What may pile up between engine and network before the engine waits; also the largest piece sent at once.
MAX_PIECE_TOKENS = 16


class Pieces:
    """The engine's output on its way to the network: what comes while the network is busy goes out as one piece."""

    def __init__(self) -> None:
        self._text = ""
        self._tokens = 0
        self._end: FinishReason | EngineError | None = None
        self._some = trio.Event()
        self._room = trio.Event()

    async def put(self, delta: Delta) -> None:
        """Add output, waiting while a whole piece is pending."""
        while self._tokens >= MAX_PIECE_TOKENS:
            self._room = trio.Event()
            await self._room.wait()
        self._text += delta.text
        self._tokens += delta.tokens
        self._some.set()

    def end(self, end: FinishReason | EngineError) -> None:
        """Nothing more comes, and why."""
        self._end = end
        self._some.set()

    async def some(self) -> None:
        """Wait until there is output, or the end."""
        await self._some.wait()

    def take(self) -> tuple[str, int, FinishReason | EngineError | None]:
        """All pending text, the tokens it stands for, and the end if it was reached."""
        taken = (self._text, self._tokens, self._end)
        self._text, self._tokens = "", 0
        self._some = trio.Event()
        if self._end is not None:
            self._some.set()
        self._room.set()
        return taken


class Serving:
    """A session under way."""

    def __init__(
        self,
        stream: Stream,
        *,
        engine: Engine,
        sales: Selling,
        payees: Payees,
        giving: Giving,
        keeper: BookKeeper,
        signer: BodySigner,
        went_out: Callable[[int], None],
        clock: Callable[[], float],
        trace: Trace,
    ) -> None:
        self._peer = stream.peer
        self._went_out = went_out
        self._keeper = keeper
        self._engine = engine
        self._sales = sales
        self._payees = payees
        self._giving = giving
        self._source = stream.source
        self._signer = signer
        self._trace = trace
        self._core = ProviderSession(signer=signer, verify=verify_by_peer)
        self._messages = MessageStream[ToProvider](stream, ToProvider, trace)
        self._shell = SessionShell(
            self._core,
            self._messages,
            save=self._save,
            act=self._act,
            clock=clock,
        )
        self._pieces = Pieces()
        self._flowing = trio.Event()
        self._flowing.set()
        self._work = trio.CancelScope()
        self._leases = AsyncExitStack()
        self._request: Request
        self._payee: Payee
        self.channel: bytes | None = None
        self.receipt: Receipt | None = None

    async def run(self) -> None:
        """Serve the session to its end. Raises the `Error` that ended it early."""
        async with self._leases:
            start = await self._messages.answer()
            await self._shell.run(partial(self._core.receive, start))

    async def _save(self, events: Sequence[Save]) -> None:
        await save_events(self._keeper, self._peer, events)
        self._payees.saved(events)

    async def _act(self, event: Event) -> None:
        match event:
            case Check(start):
                self._shell.start_soon(self._admit, start)
            case Prefill(tokens):
                self._begin_work(self._prefill, tokens)
            case Generate():
                self._begin_work(self._generate)
                self._shell.start_soon(self._pass_on)
            case Hold():
                self._flowing = trio.Event()
            case Resume():
                self._flowing.set()
            case StopEngine():
                self._work.cancel()
            case Completed(receipt, _):
                self.receipt = receipt
            case _:
                raise AssertionError(f"{event} is not for a provider")

    def _begin_work(self, work: Callable[..., Awaitable[None]], *args: object) -> None:
        """Have the engine do something that `StopEngine` ends, also if that comes before it began."""
        self._work = trio.CancelScope()
        self._shell.start_soon(self._worked, self._work, work, *args)

    async def _worked(self, scope: trio.CancelScope, work: Callable[..., Awaitable[None]], *args: object) -> None:
        with scope:
            await work(*args)

    async def _admit(self, start: Start) -> None:
        try:
            quote, payee, sampling, prompt_tokens = await self._examine(start)
        except Refused as no:
            await self._refuse(no)
        except EngineError:
            await self._refuse(Refused("engine_failed", "the engine failed; nothing is charged"))
        except Error as error:
            await self._shell.fail(error)
        else:
            await self._shell.step(partial(self._core.admit, quote, payee, sampling, prompt_tokens))
            await self._look_again(payee.channel)

    async def _look_again(self, channel: bytes) -> None:
        """For the rest of the session: whatever happens on the channel may let it go on."""
        while True:
            news = self._payees.news(channel)
            if self._core.looks_for_room:  # most who share a channel do not
                await self._shell.step(self._core.look)
            await news.wait()

    async def _refuse(self, no: Refused) -> None:
        self._trace("refused", peer=self._peer, reason=no.reason, why=str(no))
        await self._shell.step(partial(self._core.refuse, Refusal.of(no)))

    async def _examine(self, start: Start) -> tuple[Quote, Payee, Sampling, int]:
        """Everything that is checked before work begins. Raises `Refused` or `RemoteError`."""
        quote, model = await self._leases.enter_async_context(self._sales.redeemed(start.quote, self._peer))
        request: Request = decode(start.request, Request)
        if request.model != quote.model or not 0 < request.max_tokens <= quote.max_tokens:
            raise RemoteError("wrong_quote", "the request is not the one that was quoted")
        require_features(model, request)
        first = Claim(start.channel, start.payment.channel_total_nano, start.payment.signature)
        payee = await self._leases.enter_async_context(self._payees.lease(first, quote))
        self._payee, self.channel = payee, start.channel
        with translated():
            prompt_tokens = await self._engine.count(request)
        if prompt_tokens > quote.prompt_tokens:
            raise Refused("prompt_over_quote", f"the prompt has {prompt_tokens} tokens, the quote covers fewer")
        require_fits(model, prompt_tokens, request.max_tokens)
        if quote.free:
            await self._be_granted(prompt_tokens + request.max_tokens)
        self._request = request
        sampling = Sampling(
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed,
        )
        return quote, payee, sampling, prompt_tokens

    async def _be_granted(self, tokens: int) -> None:
        """For as long as the session lasts; then what was not worked on is struck off again."""
        granted = self._giving.granted(self._peer, self._source, tokens, lambda: self._core.worked_tokens)
        await self._leases.enter_async_context(granted)

    async def _prefill(self, tokens: int) -> None:
        try:
            with translated():
                done = await self._engine.prefill(self._request, tokens)
        except Error as error:
            await self._shell.step(partial(self._core.engine_failed, EngineError(str(error))))
        else:
            await self._shell.step(partial(self._core.prefilled, done))
            self._payees.tell(self._payee.channel)

    async def _generate(self) -> None:
        """Take from the engine into `Pieces`."""
        try:
            with translated():
                async with self._engine.generate(self._request) as items:
                    async for item in items:
                        if isinstance(item, Finished):
                            self._pieces.end(item.reason)
                        else:
                            await self._pieces.put(item)
        except Error as error:
            self._pieces.end(EngineError(str(error)))

    async def _pass_on(self) -> None:
        """Give pieces to the core as fast as network and payment allow, then the end."""
        end = await self._pass_one_on()
        self._payees.tell(self._payee.channel)  # with the first piece the prompt is not under way any more
        while end is None:
            end = await self._pass_one_on()
        await self._flowing.wait()
        if isinstance(end, EngineError):
            await self._shell.step(partial(self._core.engine_failed, end))
        else:
            await self._shell.step(partial(self._core.generated, end))

    async def _pass_one_on(self) -> FinishReason | EngineError | None:
        await self._pieces.some()
        if not self._flowing.is_set():  # waiting for what is so already costs a turn of the scheduler
            await self._flowing.wait()
        await self._shell.outbox.drained()
        text, tokens, end = self._pieces.take()
        if text or tokens:
            await self._shell.step(partial(self._core.produced, text, tokens))
            self._went_out(tokens)
        return end
