"""Core: the client's side of one paid answer.

The client signs only for work that it has: at any moment `authorised` is at most one window above `delivered`, and in
the answer itself it pays for what arrived. What does not fit the quote, the counts or the receipt ends the session.
"""

from __future__ import annotations

from typing import TypeVar

from chain.channel import Lane, Payer
from chain.errors import ChainError
from p2p.errors import Error, PaymentError, RemoteError, Unavailable
from p2p.protocol.negotiate import Quote, Refusal
from p2p.protocol.price import Tokens, cost_nano
from p2p.protocol.receipt import Receipt, ResponseHash, countersign, request_hash
from p2p.protocol.session import (
    CLIENT_HEARS,
    ENDED,
    RECEIPT_PATIENCE_S,
    Begun,
    Cancel,
    Close,
    Completed,
    Deliver,
    Delta,
    End,
    Event,
    Failed,
    Finished,
    Heartbeat,
    Liveness,
    Pause,
    Payment,
    Progress,
    ProgressBody,
    SaveClaim,
    SaveDelivered,
    SaveReceipt,
    Send,
    Start,
    State,
    ToClient,
)
from p2p.protocol.stall import patience_s
from p2p.protocol.wire import BodySigner, PeerVerifier, Signed, SignedBody, open_signed

# Byte-level vocabularies have no token shorter than a byte, so a count beyond the bytes received is made up. The
# slack is for tokens whose last byte is still to come.
COUNT_SLACK_TOKENS = 8
# Fewer bytes than any tokenizer in use spends on a token of ordinary text: a first voucher that does not overpay.
BYTES_PER_TOKEN_MAX = 16
# Several times the longest token of any vocabulary in use: more text than that for its tokens is a flood.
TOKEN_BYTES_MAX = 1024
# A look at the time that comes so late shows that it was us who were busy, or asleep.
LATE_S = 1.0

B = TypeVar("B", bound=SignedBody)


class ClientSession:
    """Feed it messages, carry out its events in order. One instance is one answer."""

    def __init__(
        self,
        *,
        session: bytes,
        quote: Quote,
        signed_quote: Signed,
        payer: Payer,
        request: bytes,
        salt: bytes,
        max_tokens: int,
        untold_bytes_max: int = 0,
        signer: BodySigner,
        verify: PeerVerifier,
    ) -> None:
        self.state = State.NEW
        self._session = session
        self._quote = quote
        self._signed_quote = signed_quote
        self._payer = payer
        self._request = request
        self._salt = salt
        self._max_tokens = max_tokens
        self._untold_bytes_max = untold_bytes_max  # of text that no tokens stand for
        self._signer = signer
        self._verify = verify
        self._authorised_before_nano = payer.authorised_nano
        self._said_paid_nano = 0  # for this session; what another one pays, the provider cannot tell apart
        self._prompt_tokens = 0
        self._done = Tokens()
        self._text_bytes = 0
        self._response = ResponseHash()
        self._receipt: Receipt | None = None
        self._signed_receipt: Signed | None = None
        self._cancelled = False
        self._stalled = False
        self._liveness = Liveness()
        self._progress_at = 0.0
        self._lane = Lane()

    @property
    def tokens(self) -> Tokens:
        """What was delivered so far."""
        return self._done

    @property
    def prompt_tokens(self) -> int:
        """The prompt's size as the provider counted it; 0 before it said so."""
        return self._prompt_tokens

    @property
    def cost_nano(self) -> int:
        """What was delivered so far costs."""
        return cost_nano(self._quote.prices, self._done)

    @property
    def paid_nano(self) -> int:
        """What was authorised for this session, what it is ahead included."""
        return self._lane.paid_nano

    @property
    def receipt(self) -> Receipt | None:
        """The provider's, once it has come and is found right."""
        return self._receipt

    @property
    def stalled(self) -> bool:
        """Whether it was ended because the provider made no progress."""
        return self._stalled

    def start(self, now: float) -> list[Event]:
        """Open the session with a first, small voucher."""
        assert self.state is State.NEW
        self.state = State.STARTING
        self._liveness.heard(now)
        self._progress_at = now
        ahead = cost_nano(self._quote.prices, Tokens(input=len(self._request) // BYTES_PER_TOKEN_MAX))
        try:
            self._lane = self._payer.enter(self._session)
            saved, payment = self._pay(ahead)
        except ChainError as error:
            return self._fail(PaymentError(str(error)))
        except PaymentError as error:
            return self._fail(error)
        start = Start(
            session=self._session,
            quote=self._signed_quote,
            channel=self._payer.channel,
            request=self._request,
            salt=self._salt,
            payment=payment,
        )
        return [saved, self._send(start, now)]

    def receive(self, message: ToClient, now: float) -> list[Event]:
        """Take one message. A breach of protocol comes back as a `Failed` event; nothing is raised."""
        if self.state in ENDED:
            return []
        self._liveness.heard(now)
        if not isinstance(message, Heartbeat | Pause):
            self._progress_at = now
        try:
            if self.state not in CLIENT_HEARS[type(message)]:
                raise RemoteError("out_of_turn", f"{type(message).__name__} while {self.state.name}")
            return self._handle(message, now)
        except Error as error:
            return self._fail(error)

    def cancel(self, now: float) -> list[Event]:
        """Ask the provider to stop; what was done is still receipted and paid."""
        if self._cancelled or self.state not in {State.PREFILL, State.STREAMING}:
            return []
        self._cancelled = True
        return [self._send(Cancel(), now)]

    def lost(self, now: float) -> list[Event]:
        """The stream ended. Unless the session had ended before, it failed."""
        if self.state in ENDED:
            return []
        return self._fail(
            Unavailable("the provider went away in the middle of the answer; only what came is paid for: ask again")
        )

    def deadline(self) -> float | None:
        """When `tick` wants to be called, at the latest."""
        if self.state in ENDED or self.state is State.NEW:
            return None
        return min(self._liveness.deadline(), self._progress_at + self._patience_s)

    def tick(self, now: float) -> list[Event]:
        """Time has passed."""
        deadline = self.deadline()
        if deadline is None:
            return []
        if now > deadline + LATE_S:  # what was said meanwhile is still to be heard
            self._progress_at = now
        if self._liveness.silent(now):
            return self._fail(Unavailable("the provider fell silent; only what came is paid for: ask again"))
        if now >= self._progress_at + self._patience_s:
            return self._give_up(now)
        return [self._send(Heartbeat(), now)] if self._liveness.heartbeat_due(now) else []

    @property
    def _patience_s(self) -> float:
        """For the next sign of progress."""
        if self._stalled:
            return RECEIPT_PATIENCE_S
        left = {State.STARTING: self._quote.prompt_tokens, State.PREFILL: self._prompt_tokens - self._done.input}
        return patience_s(
            ttft_ms=self._quote.ttft_ms,
            tokens_per_s=self._quote.tokens_per_s,
            prompt_tokens=left.get(self.state),
        )

    def _give_up(self, now: float) -> list[Event]:
        """The provider stalls. If it is there, it is still receipted and paid for what it did."""
        stop = [] if self._stalled else self.cancel(now)
        if not stop:
            return self._fail(Unavailable("the provider makes no progress; only what came is paid for: ask again"))
        self._stalled = True
        self._progress_at = now
        return stop

    def _handle(self, message: ToClient, now: float) -> list[Event]:
        match message:
            case Begun():
                return self._begun(message, now)
            case Progress():
                return self._progress(message, now)
            case Delta():
                return self._delta(message, now)
            case Pause():
                return self._paused(message, now)
            case Finished():
                return self._finished(message, now)
            case Refusal():
                raise message.error()
            case End():
                return self._ended()
            case Heartbeat():
                return []

    def _begun(self, message: Begun, now: float) -> list[Event]:
        if message.prompt_tokens > self._quote.prompt_tokens:
            raise RemoteError("overcount", "more prompt tokens than the quote covers")
        if not self._lane.shared:
            self._adopt(message.delivered_nano)
        self._prompt_tokens = message.prompt_tokens
        self.state = State.PREFILL
        return self._pay_now(now)

    def _adopt(self, delivered_nano: int) -> None:
        """Take the provider's delivered total: frames of a session that died may have been lost on the way to us.

        That can cost us no more than we had signed for. It may name more while it has not noticed yet that an earlier
        session is dead; then it will write the rest off.
        """
        self._payer.agree_on(min(delivered_nano, self._authorised_before_nano))

    def _paused(self, message: Pause, now: float) -> list[Event]:
        """Answer also if nothing is to be added: the voucher that says so may have died with another session."""
        before = self._payer.authorised_nano, self._said_paid_nano
        self._payer.asked_for(message.due_nano)
        saved, payment = self._pay()
        if (self._payer.authorised_nano, self._said_paid_nano) != before:  # it was for us that it waited
            self._progress_at = now
        return [saved, self._send(payment, now)]

    def _progress(self, message: Progress, now: float) -> list[Event]:
        body = self._opened(message.progress, ProgressBody)
        if body.session != self._session or not self._done.input < body.prompt_tokens_done <= self._prompt_tokens:
            raise RemoteError("bad_progress")
        self._account(Tokens(input=body.prompt_tokens_done))
        if body.prompt_tokens_done == self._prompt_tokens:
            self.state = State.STREAMING
        return self._pay_now(now)

    def _opened(self, signed: Signed, kind: type[B]) -> B:
        """What the provider has signed. Raises `RemoteError`."""
        quote = self._quote
        return open_signed(signed, kind, by=lambda _: quote.provider, network=quote.network, verify=self._verify)

    def _delta(self, message: Delta, now: float) -> list[Event]:
        output = self._done.output + message.tokens
        self._text_bytes += len(message.text.encode())
        if output != message.total_tokens:
            raise RemoteError("overcount", "token counts that do not add up")
        if output > self._max_tokens or output > self._text_bytes + COUNT_SLACK_TOKENS:
            raise RemoteError("overcount", "more tokens than were asked for, or than the text can hold")
        if self._text_bytes > (output + COUNT_SLACK_TOKENS) * TOKEN_BYTES_MAX + self._untold_bytes_max:
            raise RemoteError("undercount", "more text than the tokens can stand for")
        self._response.add(message.text)
        self._account(Tokens(input=self._done.input, output=output))
        owed = max(self._payer.owed_nano(self._quote.window_nano), self.cost_nano - self._said_paid_nano)
        due = owed * 4 >= self._quote.window_nano
        return [Deliver(message.text, message.tokens), *(self._pay_now(now) if due else [])]

    def _finished(self, message: Finished, now: float) -> list[Event]:
        receipt = self._opened(message.receipt, Receipt)
        self._check_receipt(receipt)
        self._payer.asked_for(receipt.channel_total_nano)
        self._receipt, self._signed_receipt = receipt, message.receipt
        self.state = State.CLOSING
        saved, payment = self._pay()
        signed = countersign(message.receipt, self._signer)
        close = Close(countersignature=signed.countersignature, payment=payment)
        return [saved, SaveReceipt(signed), self._send(close, now)]

    def _check_receipt(self, receipt: Receipt) -> None:
        """All but the channel's total: that moves with other sessions, also such as died and the provider still counts.

        We pay up to it within the window, as after a `Pause`.
        """
        mine = (
            self._session,
            self._signed_quote.id,
            self._quote.client,
            self._quote.provider,
            self._quote.model,
            self._quote.digest,
            request_hash(self._salt, self._request),
            self._response.digest(),
            self._quote.prices,
            self._done,
            self.cost_nano,
            self._payer.channel,
            self._quote.ttft_ms,
            self._quote.tokens_per_s,
        )
        theirs = (
            receipt.session,
            receipt.quote_id,
            receipt.client,
            receipt.provider,
            receipt.model,
            receipt.digest,
            receipt.request_hash,
            receipt.response_hash,
            receipt.prices,
            receipt.tokens,
            receipt.session_total_nano,
            receipt.channel,
            receipt.promised_ttft_ms,
            receipt.promised_tokens_per_s,
        )
        if mine != theirs:
            raise RemoteError("bad_receipt", "it differs from what arrived")
        if (receipt.reason == "cancelled") > self._cancelled:
            raise RemoteError("bad_receipt", "cancelled by nobody")

    def _ended(self) -> list[Event]:
        assert self._receipt is not None
        assert self._signed_receipt is not None
        self.state = State.DONE
        self._payer.leave(self._session)
        return [Completed(self._receipt, countersign(self._signed_receipt, self._signer))]

    def _account(self, done: Tokens) -> None:
        before = self.cost_nano
        self._done = done
        self._payer.deliver(self._session, self.cost_nano - before)

    def _pay_now(self, now: float) -> list[Event]:
        """Pay if there is more to be said than before: credit may cover the channel's total and not this session's."""
        before = self._payer.authorised_nano, self._said_paid_nano
        saved, payment = self._pay()
        news = (payment.channel_total_nano, payment.session_total_nano) != before
        return [saved, self._send(payment, now)] if news else []

    def _pay(self, ahead_nano: int | None = None) -> tuple[SaveClaim, Payment]:
        """Pay for what was delivered, and while the prompt is worked through for its next step ahead."""
        if ahead_nano is None:
            rest = Tokens(input=self._prompt_tokens - self._done.input)
            ahead_nano = cost_nano(self._quote.prices, rest) if self.state is State.PREFILL else 0
        try:
            claim = self._payer.pay(self._session, ahead_nano, self._quote.window_nano)
        except ChainError as error:
            raise PaymentError(str(error)) from error
        self._said_paid_nano = self._lane.paid_nano
        return SaveClaim(claim, self._payer.delivered_nano), Payment(
            session_total_nano=self._lane.paid_nano,
            channel_total_nano=claim.amount_nano,
            signature=claim.signature,
        )

    def _send(self, message: Start | Payment | Cancel | Close | Heartbeat, now: float) -> Send:
        self._liveness.said(now)
        return Send(message)

    def _fail(self, error: Error) -> list[Event]:
        self.state = State.FAILED
        self._payer.leave(self._session)
        return [SaveDelivered(self._payer.channel, self._payer.delivered_nano), Failed(error)]
