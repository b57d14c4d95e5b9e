"""Core: the provider's side of one paid answer.

The provider works ahead of payment by at most one window for each answer, counted over all that the payer owes it and
up to what its owner allows: it takes the prompt in steps that there is room for, and of the output it hands over what
there is room for, a token at least.
The rest waits, and the engine with it. It aborts nothing for want of a voucher until its patience ends.
"""

from __future__ import annotations

from chain.channel import Lane, Payee
from chain.errors import ChainError
from chain.voucher import Claim
from p2p.errors import EngineError, Error, PaymentError, RemoteError, Unavailable
from p2p.protocol.backlog import Backlog
from p2p.protocol.negotiate import Quote, Refusal
from p2p.protocol.price import Tokens, cost_nano, tokens_within
from p2p.protocol.receipt import (
    Reason,
    Receipt,
    ResponseHash,
    Sampling,
    SignedReceipt,
    request_hash,
)
from p2p.protocol.session import (
    ENDED,
    HEARTBEAT_S,
    PAYMENT_PATIENCE_S,
    PROVIDER_HEARS,
    SILENCE_S,
    Begun,
    Cancel,
    Check,
    Close,
    Completed,
    Delta,
    End,
    Event,
    Failed,
    Finished,
    Generate,
    Heartbeat,
    Hold,
    Liveness,
    Pause,
    Payment,
    Prefill,
    Progress,
    ProgressBody,
    Resume,
    SaveClaim,
    SaveDelivered,
    SaveLost,
    SaveReceipt,
    Send,
    Start,
    State,
    StopEngine,
    ToClient,
    ToProvider,
)
from p2p.protocol.window import one_token_nano
from p2p.protocol.wire import BodySigner, PeerVerifier, Signed, sign


class ProviderSession:
    """Feed it messages and the engine's results, carry out its events in order. One instance is one answer."""

    def __init__(self, *, signer: BodySigner, verify: PeerVerifier) -> None:
        self.state = State.NEW
        self._signer = signer
        self._verify = verify
        self._liveness = Liveness()
        self._done = Tokens()
        self._backlog = Backlog()
        self._response = ResponseHash()
        self._prompt_tokens = 0
        self._step_tokens = 0  # as far as the prompt is being worked through
        self._working = False  # the engine is at work, or held
        self._waiting_since = 0.0
        self._started_at = 0.0
        self._first_token_at: float | None = None
        self._receipt: Receipt | None = None
        self._signed_receipt: Signed | None = None
        self._start: Start
        self._quote: Quote
        self._payee: Payee
        self._lane: Lane
        self._sampling: Sampling

    @property
    def tokens(self) -> Tokens:
        """What was delivered so far."""
        return self._done

    @property
    def worked_tokens(self) -> int:
        """What the engine was put to, delivered or not, except where it failed."""
        return self._step_tokens + self._done.output

    @property
    def looks_for_room(self) -> bool:
        """Whether `look` may be of use."""
        return self.state is State.PAUSED or (self.state is State.PREFILL and not self._working)

    def receive(self, message: ToProvider, now: float) -> list[Event]:
        """Take one message. A breach of protocol comes back as a `Failed` event; nothing is raised."""
        if self.state in ENDED:
            return []
        self._liveness.heard(now)
        try:
            if self.state not in PROVIDER_HEARS[type(message)]:
                raise RemoteError("out_of_turn", f"{type(message).__name__} while {self.state.name}")
            return self._handle(message, now)
        except Error as error:
            return self._fail(error, now)

    def look(self, now: float) -> list[Event]:
        """Something happened on the channel or another one of this payer: go on if the window has room again.

        Where it has not, nothing is said: a voucher that changes nothing must neither buy patience nor be answered.
        """
        if not self.looks_for_room:
            return []
        if self.state is State.PREFILL:
            return self._step_of_prompt(now) or []
        if handed_over := self._hand_over(now):
            if self._backlog:
                return [*handed_over, self._ask_for_pay(now)]
            self.state = State.STREAMING
            self._lane.waits = False
            return [*handed_over, Resume()]
        return []

    def refuse(self, refusal: Refusal, now: float) -> list[Event]:
        """Answer `Check` with an honest no."""
        if self.state is not State.STARTING:  # the client left meanwhile
            return []
        self.state = State.DONE
        return [self._send(refusal, now)]

    def admit(self, quote: Quote, payee: Payee, sampling: Sampling, prompt_tokens: int, now: float) -> list[Event]:
        """Answer `Check` with a yes: the quote is ours and unused, the channel good, the prompt counted."""
        if self.state is not State.STARTING:
            return []
        self._quote, self._payee, self._sampling = quote, payee, sampling
        self._prompt_tokens = prompt_tokens
        try:
            accepted = self._enter()
        except Error as error:
            return self._fail(error, now)
        begun = Begun(
            prompt_tokens=prompt_tokens,
            delivered_nano=payee.delivered_nano,
            accepted_nano=payee.authorised_nano,
        )
        return [*accepted, self._send(begun, now), *self._next_step(now)]

    def prefilled(self, tokens: int, now: float) -> list[Event]:
        """The engine worked through this many prompt tokens in all. What it was not told to do is a gift."""
        self._working = False
        if self.state is not State.PREFILL:
            return []
        return [*self._progress(min(tokens, self._step_tokens), now), *self._next_step(now)]

    def produced(self, text: str, tokens: int, now: float) -> list[Event]:
        """The engine gave a piece of the answer: hand it over as far as the window has room for it."""
        assert self.state is not State.PAUSED, "an engine that is held gives nothing"
        if self.state is not State.STREAMING:
            return []
        proven = self._prompt_proven(now)
        self._backlog.add(text, tokens)
        handed_over = self._hand_over(now)
        if not self._backlog:
            return [*proven, *handed_over]
        self.state = State.PAUSED
        return [*proven, *handed_over, Hold(), self._ask_for_pay(now)]

    def generated(self, reason: Reason, now: float) -> list[Event]:
        """The engine is done: receipt what was delivered. An empty answer proves nothing of the rest of its prompt."""
        self._working = False
        if self.state is not State.STREAMING:
            return []
        return self._finish(reason, now)

    def engine_failed(self, error: EngineError, now: float) -> list[Event]:
        """The engine broke. What was delivered before is receipted; if that is nothing, the session just fails."""
        self._working = False
        self._step_tokens = self._done.input
        if self.state in ENDED or self.state is State.CLOSING:
            return []
        if self._done == Tokens():
            self.state = State.FAILED
            refusal = Refusal(reason="engine_failed", detail="the engine failed; nothing is charged")
            return [*self._leave(now), self._send(refusal, now), Failed(error)]
        return self._finish("failed", now)

    def lost(self, now: float) -> list[Event]:
        """The stream ended. Unless the session had ended before, it failed."""
        if self.state in ENDED:
            return []
        return self._fail(Unavailable("the client went away"), now)

    def deadline(self) -> float | None:
        """When `tick` wants to be called, at the latest."""
        if self.state in ENDED or self.state is State.NEW:
            return None
        patience = self._waiting_since + PAYMENT_PATIENCE_S
        return min(self._liveness.deadline(), patience) if self._waiting else self._liveness.deadline()

    def tick(self, now: float) -> list[Event]:
        """Time has passed."""
        if self.deadline() is None:
            return []
        if self._liveness.silent(now):
            return self._fail(Unavailable("the client fell silent"), now)
        if not self._waiting:
            self._waiting_since = now
        elif now >= self._waiting_since + PAYMENT_PATIENCE_S:
            return self._fail(PaymentError("no voucher came in time"), now)
        if not self._liveness.heartbeat_due(now):
            return []
        return self.look(now) or [self._send(Heartbeat(), now)]

    @property
    def _waiting(self) -> bool:
        """Whether it is the client who has to do something: countersign, or pay.

        Where nothing is owed, the window is full of work that is under way for other sessions, or that died with one.
        """
        return self.state is State.CLOSING or (self.looks_for_room and self._payee.debt_nano > 0)

    def _handle(self, message: ToProvider, now: float) -> list[Event]:
        match message:
            case Start():
                return self._check(message, now)
            case Payment():
                return [*self._accept(message), *self.look(now)]
            case Cancel():
                return self._cancel(now)
            case Close():
                return self._close(message, now)
            case Heartbeat():
                return []

    def _check(self, start: Start, now: float) -> list[Event]:
        self._start = start
        self._started_at = now
        self._liveness.said(now)
        self.state = State.STARTING
        return [Check(start)]

    def _enter(self) -> list[Event]:
        """Take a place on the channel, and its first voucher.

        If nobody else is on it, what a session that died left unpaid is written off: down to what was paid before, of
        which the higher voucher speaks, ours or the one that comes with this session.
        """
        payee, payment = self._payee, self._start.payment
        try:
            self._lane = payee.enter(self._start.session)
        except ChainError as error:
            raise RemoteError("out_of_turn", str(error)) from error
        self._lane.window_nano = self._quote.window_nano
        self.state = State.PREFILL
        if self._lane.shared:
            return self._accept(payment)
        paid_before = max(payee.authorised_nano, payment.channel_total_nano - payment.session_total_nano)
        payee.agree_on(min(payee.delivered_nano, paid_before))
        return [*self._save_lost(), *self._accept(payment)]

    def _accept(self, payment: Payment) -> list[Event]:
        """Take a voucher; one that came late is ignored."""
        claim = Claim(self._start.channel, payment.channel_total_nano, payment.signature)
        try:
            news = self._payee.accept(claim)
        except ChainError as error:
            raise RemoteError("bad_voucher", str(error)) from error
        self._lane.paid_nano = max(self._lane.paid_nano, payment.session_total_nano)
        if not news:
            return []
        return [SaveClaim(claim, self._payee.earned_nano)]

    def _next_step(self, now: float) -> list[Event]:
        """The next step of the prompt, or a word to the client that it must pay first."""
        step = self._step_of_prompt(now)
        if step is not None:
            return step
        return [self._ask_for_pay(now)]

    def _step_of_prompt(self, now: float) -> list[Event] | None:
        """Work through as much of the prompt as the window has room for; the last step is the answer itself."""
        prices, done = self._quote.prices, self._done
        room_nano = min(self._room_nano(now), self._payee.window_nano - self._payee.under_way_nano)
        step = min(self._prompt_tokens, done.input + tokens_within(room_nano, prices.input, prices, done))
        if step == done.input < self._prompt_tokens:
            return None
        self._lane.waits = False
        self._working, self._step_tokens = True, step
        self._payee.begin(self._start.session, cost_nano(prices, Tokens(input=step)) - cost_nano(prices, done))
        saved = self._save_if_due()
        if step < self._prompt_tokens:
            return [*saved, Prefill(step)]
        self.state = State.STREAMING
        return [*saved, Generate()]

    def _room_nano(self, now: float) -> int:
        """So much more may be handed over to this payer before it pays."""
        return self._payee.room_nano(self._start.session, now, one_token_nano(self._quote.prices))

    def _prompt_proven(self, now: float) -> list[Event]:
        """The first token of an answer proves that the whole prompt was worked through."""
        if self._first_token_at is not None:
            return []
        self._first_token_at = now
        return self._progress(self._prompt_tokens, now)

    def _progress(self, tokens: int, now: float) -> list[Event]:
        if tokens <= self._done.input:
            return []
        saved = self._account(Tokens(input=tokens))
        body = ProgressBody(network=self._quote.network, session=self._start.session, prompt_tokens_done=tokens)
        return [*saved, self._send(Progress(progress=sign(body, self._signer)), now)]

    def _hand_over(self, now: float) -> list[Event]:
        """Of the output that is ready, what the window has room for."""
        prices = self._quote.prices
        text, tokens = self._backlog.take(tokens_within(self._room_nano(now), prices.output, prices, self._done))
        if not text and not tokens:
            return []
        self._response.add(text)
        saved = self._account(Tokens(input=self._done.input, output=self._done.output + tokens))
        return [*saved, self._send(Delta(text=text, tokens=tokens, total_tokens=self._done.output), now)]

    def _ask_for_pay(self, now: float) -> Send:
        self._waiting_since = now
        self._lane.waits = True
        return self._send(Pause(due_nano=self._payee.delivered_nano), now)

    def _cancel(self, now: float) -> list[Event]:
        if self.state is State.CLOSING:  # it crossed the receipt on the way
            return []
        return [StopEngine(), *self._finish("cancelled", now)]

    def _finish(self, reason: Reason, now: float) -> list[Event]:
        self.state = State.CLOSING
        self._waiting_since = now
        receipt = self._make_receipt(reason, now)
        signed = sign(receipt, self._signer)
        self._receipt, self._signed_receipt = receipt, signed
        return [
            SaveDelivered(self._payee.channel, self._payee.earned_nano),
            SaveReceipt(SignedReceipt(signed)),
            self._send(Finished(receipt=signed), now),
        ]

    def _make_receipt(self, reason: Reason, now: float) -> Receipt:
        quote, start = self._quote, self._start
        return Receipt(
            network=quote.network,
            session=start.session,
            quote_id=start.quote.id,
            client=quote.client,
            provider=quote.provider,
            model=quote.model,
            digest=quote.digest,
            request_hash=request_hash(start.salt, start.request),
            response_hash=self._response.digest(),
            sampling=self._sampling,
            tokens=self._done,
            reason=reason,
            prices=quote.prices,
            session_total_nano=cost_nano(quote.prices, self._done),
            channel=start.channel,
            channel_total_nano=self._payee.delivered_nano,
            finished_at=int(now),
            ttft_ms=int(1000 * ((self._first_token_at or now) - self._started_at)),
            duration_ms=int(1000 * (now - self._started_at)),
            promised_ttft_ms=quote.ttft_ms,
            promised_tokens_per_s=quote.tokens_per_s,
        )

    def _close(self, close: Close, now: float) -> list[Event]:
        assert self._receipt is not None
        assert self._signed_receipt is not None
        accepted = self._accept(close.payment)  # saved whatever else is wrong: it is money
        if not self._verify(self._quote.client, self._signed_receipt.body, close.countersignature):
            error: Error = RemoteError("bad_signature", "the countersignature is not the client's")
            return [*accepted, *self._fail(error, now)]
        if self._lane.unpaid_nano > 0:
            error = RemoteError("unpaid", "the last voucher is below what was delivered")
            return [*accepted, *self._fail(error, now)]
        # While other sessions run on the channel, what they just delivered is not yet paid. Without any, what is
        # missing was lost with an earlier session on the way to an honest client.
        if self._payee.unpaid_nano > 0 and not self._lane.shared:
            return [*accepted, *self._fail(PaymentError("the channel is behind what was delivered"), now)]
        signed = SignedReceipt(self._signed_receipt, close.countersignature)
        self.state = State.DONE
        saved = [*accepted, *self._leave(now), SaveReceipt(signed)]
        return [*saved, self._send(End(), now), Completed(self._receipt, signed)]

    def _account(self, done: Tokens) -> list[Event]:
        """Count what is handed over; a crash must not cost more than a window, what is unpaid included."""
        before = cost_nano(self._quote.prices, self._done)
        self._done = done
        self._payee.deliver(self._start.session, cost_nano(self._quote.prices, done) - before)
        return self._save_if_due()

    def _save_if_due(self) -> list[Event]:
        if self._payee.unsaved_nano <= self._payee.window_nano:
            return []
        return [SaveDelivered(each.channel, each.earned_nano) for each in self._payee.unsaved_earned]

    def _leave(self, now: float) -> list[Event]:
        """Give up the place on the channel. By then every other session of the payer was heard of, or is found dead."""
        self._payee.leave(self._start.session, until=now + SILENCE_S + HEARTBEAT_S)
        return self._save_lost()

    def _save_lost(self) -> list[Event]:
        return [SaveLost(each.channel, each.lost_nano) for each in self._payee.unsaved_lost]

    def _send(self, message: ToClient, now: float) -> Send:
        self._liveness.said(now)
        return Send(message)

    def _fail(self, error: Error, now: float) -> list[Event]:
        stop: list[Event] = [StopEngine()] if self._working else []
        admitted = self.state not in {State.NEW, State.STARTING}
        self.state = State.FAILED
        if admitted:
            stop += [SaveDelivered(self._payee.channel, self._payee.earned_nano), *self._leave(now)]
        return [*stop, Failed(error)]
