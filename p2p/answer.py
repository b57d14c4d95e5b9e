"""One paid answer at the client: the session's core on one side, the reader on the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import trio

from chain.channel import Payer
from chain.keeper import BookKeeper
from inference.answer import Reading
from p2p.book_events import save_events
from p2p.buying import Deal
from p2p.errors import EngineError, Error, Refused, RemoteError, Unavailable
from p2p.protocol.receipt import Receipt, SignedReceipt
from p2p.protocol.session import Completed, Deliver, Event, State, ToClient
from p2p.protocol.session_client import ClientSession
from p2p.session_shell import SessionShell
from p2p.stream import MessageStream

CANCEL_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Timing:
    """What the client itself saw."""

    ttft_ms: int
    tokens_per_s: float


class Answer(Reading[str]):
    """Iterate over it for the text, piece by piece; then `receipt` and `timing` are there.

    What goes wrong is raised by the iteration: `RemoteError`, `Refused`, `Unavailable`, `PaymentError`, `EngineError`
    if the provider's engine failed half way, `LocalError` if our book cannot be written or the request is too large.
    Pieces that came before were paid for and stay valid.
    """

    def __init__(
        self,
        *,
        deal: Deal,
        payer: Payer,
        core: ClientSession,
        messages: MessageStream[ToClient],
        keeper: BookKeeper,
        clock: Callable[[], float],
        keep_text: bool = False,
    ) -> None:
        """`keep_text` is for whoever looks at the whole answer in the end."""
        # An answer is bounded by max_tokens, so a reader that is slow costs this much memory and no more.
        super().__init__(deal.quote.max_tokens + 1)
        self.error: Error | None = None  # what it ended with, if it did not end well
        self.deal = deal
        self.receipt: Receipt | None = None
        self.signed_receipt: SignedReceipt | None = None
        self._payer = payer
        self._core = core
        self._shell = SessionShell(
            core, messages, save=partial(save_events, keeper, deal.provider), act=self._act, clock=clock
        )
        self.left = False  # whether we had enough before it was over
        self._keep_text = keep_text
        self._said: list[str] = []
        self._over = trio.Event()
        # A reader that is cancelled leaves in good order: what came is still paid and receipted.
        self._work = trio.CancelScope(shield=True)
        self._started_at = 0.0
        self._first_at: float | None = None
        self._last_at = 0.0

    @property
    def unpaid(self) -> bool:
        """Whether it costs nothing, and has no channel."""
        return self.deal.quote.unpaid

    @property
    def channel(self) -> bytes:
        """The channel that pays for it."""
        return self._payer.channel

    @property
    def authorised_nano(self) -> int:
        """Signed away on the channel in all."""
        return self._payer.authorised_nano

    @property
    def delivered_nano(self) -> int:
        """Received on the channel in all, at the agreed price."""
        return self._payer.delivered_nano

    @property
    def prompt_tokens(self) -> int:
        """As the provider counted them; 0 before it did."""
        return self._core.prompt_tokens

    @property
    def text(self) -> str:
        """Received so far, if it is kept."""
        return "".join(self._said)

    @property
    def completion_tokens(self) -> int:
        """Received so far."""
        return self._core.tokens.output

    @property
    def cost_nano(self) -> int:
        """What it costs us so far. Of an answer that broke off, what came and was not paid is written off."""
        return min(self._core.cost_nano, self._core.paid_nano)

    @property
    def whole(self) -> bool:
        """Whether the provider receipted it as whole, even if its last word did not reach us."""
        receipt = self._core.receipt
        return receipt is not None and receipt.reason in {"stop", "length"}

    @property
    def refusal(self) -> Refused | None:
        """The provider's no, if that is what it ended with."""
        return self.error if isinstance(self.error, Refused) else None

    @property
    def timing(self) -> Timing:
        """Milliseconds to the first piece and tokens per second over the whole answer, from the first piece on."""
        first = self._started_at if self._first_at is None else self._first_at
        seconds = max(self._last_at - first, 1e-3)
        return Timing(round(1000 * (first - self._started_at)), self.completion_tokens / seconds)

    async def run(self) -> None:
        """Carry the session to its end; the error, if there was one, is for the reader."""
        self._started_at = trio.current_time()
        try:
            with self._work:
                await self._shell.run(self._core.start)
        except Error as error:
            self.error = error
        finally:
            self._send.close()
            self._over.set()

    async def cancel(self) -> None:
        """Stop the answer, pay what was done, and wait for the end as long as is decent."""
        if self._core.state is not State.NEW and not self._over.is_set():
            self.left = True
            await self._shell.step(self._leave)
            with trio.move_on_after(CANCEL_TIMEOUT_S):
                await self._over.wait()
        self._work.cancel()

    def _leave(self, now: float) -> list[Event]:
        """Before the provider began there is nothing to be paid, and nobody who would listen."""
        return self._core.lost(now) if self._core.state is State.STARTING else self._core.cancel(now)

    async def _act(self, event: Event) -> None:
        match event:
            case Deliver(text, _):
                self._last_at = trio.current_time()
                if self._first_at is None:
                    self._first_at = self._last_at
                if text:
                    self._keep(text)
            case Completed(receipt, signed):
                self.receipt, self.signed_receipt = receipt, signed
                if receipt.reason == "failed":
                    self.error = EngineError("the provider's engine failed in the middle of the answer")
                elif self._core.stalled and receipt.reason == "cancelled":
                    self.error = Unavailable("the provider made no progress any more; what came is paid")
            case _:
                raise AssertionError(f"{event} is not for a client")

    def _keep(self, text: str) -> None:
        if self._keep_text:
            self._said.append(text)
        try:
            self._send.send_nowait(text)
        except trio.WouldBlock:
            raise RemoteError("flood", "more pieces than tokens") from None
