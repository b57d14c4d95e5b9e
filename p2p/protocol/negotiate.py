"""Core: agreeing on a price, straight between one client and one provider.

    Ask -> Quote -> (Counter -> Quote)* -> Accept -> Accepted, at most four quotes.
    GiveBack, on a stream of its own, where nothing comes of it after all.

A quote is signed by the provider and binds it until `valid_until`: the client may start a session by showing it back,
and the provider need remember no more than how often it was used. Whoever speaks out of turn breaks the protocol.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Annotated, NamedTuple

import msgspec

from p2p.errors import LocalError, Refused, RemoteError
from p2p.protocol.advert import ChannelOffer, Tier
from p2p.protocol.price import FREE, Prices, Tokens, cost_nano
from p2p.protocol.wire import (
    SHOWN,
    Bytes32,
    Message,
    Name,
    Nat,
    PeerVerifier,
    Signed,
    SignedBody,
    Size,
    decode,
    open_signed,
)

PROTOCOL = "/bombyx/negotiate/1"
MAX_ROUNDS = 4
QUOTE_LIFETIME_S = 120
NONCE_BYTES = 16  # of a client that speaks as we do

Window = Annotated[int, msgspec.Meta(ge=1, le=(1 << 63) - 1)]
Nonce = Annotated[bytes, msgspec.Meta(min_length=8, max_length=64)]
Detail = Annotated[str, msgspec.Meta(max_length=1024, pattern=SHOWN)]


class Ask(Message, frozen=True, kw_only=True, tag="ask"):
    """What a client wants a price for. The sizes are upper bounds; the prompt itself is not shown yet.

    For more than one use it asks for a standing quote.
    """

    model: Name
    prompt_tokens: Size
    max_tokens: Size
    payer_key: Bytes32
    nonce: Nonce
    tier: Tier = "open"
    uses: Size = 1  # answers that are wanted at these prices
    until: Nat = 0  # of a standing quote: when the last of them is wanted, unix seconds
    free: bool = False  # out of the provider's allowance for newcomers

    @property
    def standing(self) -> bool:
        """Whether a standing quote is asked for."""
        return self.uses > 1


class Quote(SignedBody, frozen=True, kw_only=True, tag="bombyx/quote/1"):
    """A binding price for one client, one payer key and stated sizes."""

    provider: Name
    client: Name
    payer_key: Bytes32
    model: Name
    digest: Name
    prompt_tokens: Size
    max_tokens: Size
    prices: Prices
    # The most unpaid work that the provider carries and the most that the client is asked to pay ahead.
    window_nano: Window
    ttft_ms: Nat
    tokens_per_s: Nat
    channel: ChannelOffer
    uses: Size
    issued_at: Nat
    valid_until: Nat
    nonce: Nonce
    tier: Tier = "open"
    free: bool = False  # out of the provider's allowance, at prices of 0

    @property
    def unpaid(self) -> bool:
        """Whether it costs nothing, so that no channel is needed."""
        return self.prices == FREE

    @property
    def worst_cost_nano(self) -> int:
        """What one use costs at most."""
        return self.cost_at_most_nano(self.prompt_tokens, self.max_tokens)

    def cost_at_most_nano(self, prompt_tokens: int, max_tokens: int) -> int:
        """What one use costs at most that has no more tokens than these."""
        most = Tokens(input=min(prompt_tokens, self.prompt_tokens), output=min(max_tokens, self.max_tokens))
        return cost_nano(self.prices, most)

    @property
    def longest_ms(self) -> int:
        """How long one use takes at most, as promised."""
        return self.ttft_ms + -(-1000 * self.max_tokens // max(1, self.tokens_per_s))

    @property
    def standing(self) -> bool:
        """Whether it is for many answers. Such a one is accepted once, and then shown to begin each of them."""
        return self.uses > 1


class Offer(Message, frozen=True, kw_only=True, tag="quote"):
    """Carries a signed quote; `final` says that a counter would be refused."""

    quote: Signed
    final: bool = False


class Counter(Message, frozen=True, kw_only=True, tag="counter"):
    """The prices at which the client would accept at once."""

    prices: Prices


class Accept(Message, frozen=True, kw_only=True, tag="accept"):
    """Takes the quote with this id."""

    quote_id: Bytes32


class Accepted(Message, frozen=True, kw_only=True, tag="accepted"):
    """Confirms; a place is kept free until `hold_until`."""

    quote_id: Bytes32
    hold_until: Nat


class GiveBack(Message, frozen=True, kw_only=True, tag="give_back"):
    """The place that is kept for the accepted quote with this id is not needed. There is no answer."""

    quote_id: Bytes32


class Refusal(Message, frozen=True, kw_only=True, tag="refusal"):
    """An honest no, with the price or the time at which it would be a yes where there is one."""

    reason: Name
    detail: Detail = ""
    prices: Prices | None = None
    retry_after_s: Nat | None = None

    @classmethod
    def of(cls, no: Refused) -> Refusal:
        """As it is said."""
        return cls(reason=no.reason, detail=no.detail, retry_after_s=no.retry_after_s, prices=no.prices)

    def error(self) -> Refused:
        """As it is raised."""
        return Refused(self.reason, self.detail, retry_after_s=self.retry_after_s, prices=self.prices)


Owed = Ask | Counter | Accept  # an answer
ToProvider = Owed | GiveBack
ToClient = Offer | Accepted | Refusal


class Turn(NamedTuple):
    """How a negotiation stands for whoever is to speak: the first quote, the latest one, and how many were made."""

    opening: Prices
    quoted: Prices
    rounds: int


class State(Enum):
    """Whose turn it is."""

    START = auto()
    ASKED = auto()  # the provider owes a quote
    QUOTED = auto()  # the client owes a counter or an accept
    ACCEPTING = auto()  # the provider owes the confirmation
    AGREED = auto()
    REFUSED = auto()
    GIVEN_BACK = auto()  # the place of an earlier agreement


MOVES: dict[tuple[State, type[Message]], State] = {
    (State.START, Ask): State.ASKED,
    (State.ASKED, Offer): State.QUOTED,
    (State.ASKED, Refusal): State.REFUSED,
    (State.QUOTED, Counter): State.ASKED,
    (State.QUOTED, Accept): State.ACCEPTING,
    (State.ACCEPTING, Accepted): State.AGREED,
    (State.ACCEPTING, Refusal): State.REFUSED,
    (State.START, GiveBack): State.GIVEN_BACK,
}
ENDED = frozenset({State.AGREED, State.REFUSED, State.GIVEN_BACK})


class _Party:
    """The table, walked by what we send and by what we receive alike."""

    def __init__(self) -> None:
        self.state = State.START
        self.rounds = 0

    def _follow(self, message: Message) -> bool:
        following = MOVES.get((self.state, type(message)))
        if following is None:
            return False
        self.state = following
        self.rounds += following is State.QUOTED
        return True

    def _said(self, message: Message) -> None:
        if not self._follow(message):
            raise LocalError(f"a {type(message).__name__} cannot be sent while {self.state.name}")

    def _heard(self, message: Message) -> None:
        if not self._follow(message):
            raise RemoteError("out_of_turn", f"{type(message).__name__} while {self.state.name}")


class Buyer(_Party):
    """The client's side of one negotiation. Send what `ask`, `counter` and `accept` return."""

    def __init__(self, *, network: str, client: str, provider: str, verify: PeerVerifier) -> None:
        super().__init__()
        self._network = network
        self._client = client
        self._provider = provider
        self._verify = verify
        self._ask: Ask | None = None
        self.quote: Quote | None = None
        self.signed: Signed | None = None
        self.final = False
        self.refusal: Refusal | None = None

    def ask(self, ask: Ask) -> Ask:
        """Open the negotiation."""
        self._said(ask)
        self._ask = ask
        return ask

    @property
    def may_counter(self) -> bool:
        """Whether the protocol leaves room for another round."""
        return self.state is State.QUOTED and not self.final and self.rounds < MAX_ROUNDS

    def counter(self, prices: Prices) -> Counter:
        """Name our own prices."""
        if not self.may_counter:
            raise LocalError("this quote cannot be countered")
        message = Counter(prices=prices)
        self._said(message)
        return message

    def accept(self, now: float) -> Accept:
        """Take the quote that stands."""
        if self.quote is None or self.signed is None or self.quote.valid_until <= now:
            raise LocalError("there is no valid quote to accept")
        message = Accept(quote_id=self.signed.id)
        self._said(message)
        return message

    def receive(self, message: ToClient, now: float) -> None:
        """Take the provider's answer; the result stands in `state`, `quote` and `refusal`. Raises `RemoteError`."""
        self._heard(message)
        match message:
            case Offer():
                self._take_quote(message, now)
            case Accepted():
                if self.signed is None or message.quote_id != self.signed.id:
                    raise RemoteError("wrong_quote", "confirmed another quote than the one accepted")
            case Refusal():
                self.refusal = message

    def _take_quote(self, offer: Offer, now: float) -> None:
        quote = open_signed(
            offer.quote, Quote, by=lambda body: body.provider, network=self._network, verify=self._verify
        )
        ask = self._ask
        assert ask is not None
        promised = (quote.provider, quote.client, quote.payer_key, quote.model, quote.nonce, quote.tier, quote.free)
        if promised != (self._provider, self._client, ask.payer_key, ask.model, ask.nonce, ask.tier, ask.free):
            raise RemoteError("wrong_quote", "it is for another peer, key, model, request or tier")
        if quote.free and not quote.unpaid:
            raise RemoteError("wrong_quote", "what is given away has a price")
        if quote.prompt_tokens < ask.prompt_tokens or quote.max_tokens < ask.max_tokens:
            raise RemoteError("wrong_quote", "it covers less than was asked for")
        if quote.uses > ask.uses or quote.standing != ask.standing:
            raise RemoteError("wrong_quote", "it is for another number of answers than was asked for")
        if quote.valid_until <= now:
            raise RemoteError("wrong_quote", "expired")
        self.quote, self.signed, self.final = quote, offer.quote, offer.final


class Seller(_Party):
    """The provider's side of one negotiation: keeps the turns; the price list's strategy decides the prices."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Ask | None = None
        self.signed: Signed | None = None
        self.turn: Turn | None = None  # since the first quote
        self.standing: Quote | None = None  # the quote, if it is a standing one
        self.final = False

    @property
    def last_round(self) -> bool:
        """Whether the next quote ends the haggling."""
        return self.rounds >= MAX_ROUNDS - 1

    def receive(self, message: ToProvider) -> None:
        """Take the client's message; `state` then says what is owed. Raises `RemoteError`."""
        self._heard(message)
        match message:
            case Ask():
                self.asked = message
            case Counter():
                if self.final:
                    raise RemoteError("out_of_turn", "a counter to a final quote")
            case Accept():
                if self.signed is None or message.quote_id != self.signed.id:
                    raise RemoteError("wrong_quote", "accepted another quote than the one made")

    def offer(self, quote: Signed, *, final: bool) -> Offer:
        """Send this quote."""
        message = Offer(quote=quote, final=final or self.last_round)
        self._said(message)
        self.signed, self.final = quote, message.final
        body: Quote = decode(quote.body, Quote)
        prices, self.standing = body.prices, body if body.standing else None
        self.turn = Turn(self.turn.opening if self.turn else prices, prices, self.rounds)
        return message

    def confirm(self, hold_until: int) -> Accepted:
        """Confirm the accepted quote."""
        assert self.signed is not None
        message = Accepted(quote_id=self.signed.id, hold_until=hold_until)
        self._said(message)
        return message

    def refuse(self, refusal: Refusal) -> Refusal:
        """Say no."""
        self._said(refusal)
        return refusal


class QuoteUses:
    """How often each of our quotes was used, forgotten once it expires: a replayed quote buys nothing twice."""

    def __init__(self) -> None:
        self._used: dict[bytes, tuple[int, int]] = {}

    def use(self, quote_id: bytes, quote: Quote, now: float) -> None:
        """Count one use. Raises `Refused` for an expired or used-up quote."""
        self._used = {key: value for key, value in self._used.items() if value[1] > now}
        if quote.valid_until <= now:
            raise Refused("quote_expired", "the quote has expired: ask for a new one")
        used, _ = self._used.get(quote_id, (0, 0))
        if used >= quote.uses:
            raise Refused("quote_used", "the quote was used already: ask for a new one")
        self._used[quote_id] = (used + 1, quote.valid_until)
