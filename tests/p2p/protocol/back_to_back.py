"""Two session cores wired back to back: no network, no clock but a counter, and an engine that is a list."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import msgspec

from chain.channel import Payee, Payer
from chain.keys import Ed25519Signer, verify
from p2p.errors import EngineError
from p2p.keys import peer_id_of, verify_by_peer
from p2p.protocol.advert import ChannelOffer
from p2p.protocol.negotiate import Quote
from p2p.protocol.price import Prices
from p2p.protocol.receipt import Sampling
from p2p.protocol.session import (
    Check,
    Deliver,
    Event,
    Generate,
    Hold,
    Prefill,
    Resume,
    SaveClaim,
    SaveDelivered,
    SaveReceipt,
    Send,
    StopEngine,
    ToClient,
    ToProvider,
)
from p2p.protocol.session_client import ClientSession
from p2p.protocol.session_provider import ProviderSession
from p2p.protocol.wire import Message, Signed, sign

NETWORK = "devnet"
GLOBAL_ID = -239
CHANNEL = bytes(range(32))
CLIENT = Ed25519Signer(b"c" * 32)
PROVIDER = Ed25519Signer(b"p" * 32)
PAYER = Ed25519Signer(b"v" * 32)
PAYEE = Ed25519Signer(b"r" * 32)
PRICES = Prices(100_000_000, 50_000_000, 300_000_000)

Change = Callable[[Message], Message | None]


def make_quote(**changes: object) -> tuple[Quote, Signed]:
    quote = Quote(
        network=NETWORK,
        provider=peer_id_of(PROVIDER.public_key),
        client=peer_id_of(CLIENT.public_key),
        payer_key=PAYER.public_key,
        model="m",
        digest="d",
        prompt_tokens=4000,
        max_tokens=1000,
        prices=PRICES,
        window_nano=20_000,
        ttft_ms=100,
        tokens_per_s=50,
        channel=ChannelOffer(
            payee="0:" + "0" * 64, payee_key=PAYEE.public_key, deposit_min_nano=1, challenge_period_s=3600
        ),
        uses=1,
        issued_at=1000,
        valid_until=2000,
        nonce=b"n" * 16,
    )
    quote = msgspec.structs.replace(quote, **changes)
    return quote, sign(quote, PROVIDER)


@dataclass
class Wired:
    """A session between two cores. `to_client` and `to_provider` may change, drop or record what passes."""

    pieces: list[tuple[str, int]] = field(default_factory=lambda: [("Hello", 1), (" world", 1), ("!", 1)])
    prompt_tokens: int = 40
    deposit: int = 10_000_000
    to_client: Change = lambda message: message
    to_provider: Change = lambda message: message
    prefill: Callable[[int], int] = lambda tokens: tokens
    engine_breaks_after: int | None = None
    quote_changes: dict[str, object] = field(default_factory=dict)
    max_tokens: int = 1000
    client_delivered: int = 0
    client_authorised: int = 0

    def __post_init__(self) -> None:
        self.quote, self.signed_quote = make_quote(**self.quote_changes)
        self.payer = Payer(
            CHANNEL,
            GLOBAL_ID,
            PAYER,
            deposited_nano=self.deposit,
            delivered_nano=self.client_delivered,
            authorised_nano=self.client_authorised,
        )
        self.payee = Payee(CHANNEL, GLOBAL_ID, PAYER.public_key, verify, deposited_nano=self.deposit)
        self.client = ClientSession(
            session=b"s" * 16,
            quote=self.quote,
            signed_quote=self.signed_quote,
            payer=self.payer,
            request=b"x" * (4 * self.prompt_tokens),
            salt=b"t" * 16,
            max_tokens=self.max_tokens,
            signer=CLIENT,
            verify=verify_by_peer,
        )
        self.provider = ProviderSession(signer=PROVIDER, verify=verify_by_peer)
        self.client_events: list[Event] = []
        self.provider_events: list[Event] = []
        self.text = ""
        self.now = 1000.0
        self.max_ahead = self.max_behind = 0
        self._inbox: deque[tuple[bool, Message]] = deque()
        self._engine: deque[tuple[str, int]] = deque()
        self._held = False
        self._generating = False
        self._given = 0

    def run(self) -> Wired:
        """Start and carry on until nothing moves any more."""
        self._client(self.client.start(self.now))
        self.settle()
        return self

    def settle(self) -> None:
        """Deliver messages and engine output until nothing moves."""
        while self._inbox or (self._generating and not self._held):
            while self._inbox:
                to_client, message = self._inbox.popleft()
                self.now += 0.001
                if to_client:
                    self._client(self.client.receive(cast(ToClient, message), self.now))
                else:
                    self._provider(self.provider.receive(cast(ToProvider, message), self.now))
            if self._generating and not self._held:
                self._one_piece()

    def events(self, kind: type[Event]) -> list[Event]:
        """Everything of one kind, from both sides."""
        return [e for e in (*self.client_events, *self.provider_events) if isinstance(e, kind)]

    def _one_piece(self) -> None:
        if self.engine_breaks_after == self._given:
            self._generating = False
            self._provider(self.provider.engine_failed(EngineError("it broke"), self.now))
        elif self._engine:
            text, tokens = self._engine.popleft()
            self._given += 1
            self._provider(self.provider.produced(text, tokens, self.now))
        else:
            self._generating = False
            self._provider(self.provider.generated("stop", self.now))

    def _client(self, events: list[Event]) -> None:
        saved = self.payer.authorised_nano if not events else 0
        for event in events:
            self.client_events.append(event)
            match event:
                case SaveClaim(claim, _):
                    saved = claim.amount_nano
                case Send(message):
                    payment = getattr(message, "payment", message if hasattr(message, "channel_total_nano") else None)
                    assert payment is None or payment.channel_total_nano <= saved, "sent before it was saved"
                    changed = self.to_provider(message)
                    if changed is not None:
                        self._inbox.append((False, changed))
                case Deliver(text, _):
                    self.text += text
        self.max_ahead = max(self.max_ahead, -self.payer.unpaid_nano)

    def _provider(self, events: list[Event]) -> None:
        for event in events:
            self.provider_events.append(event)
            match event:
                case Send(message):
                    changed = self.to_client(message)
                    if changed is not None:
                        self._inbox.append((True, changed))
                case Check():
                    sampling = Sampling(max_tokens=1000, temperature=0.0, top_p=1.0, seed=0)
                    self._provider(self.provider.admit(self.quote, self.payee, sampling, self.prompt_tokens, self.now))
                case Prefill(tokens):
                    self._provider(self.provider.prefilled(self.prefill(tokens), self.now))
                case Generate():
                    self._engine = deque(self.pieces)
                    self._generating = True
                case Hold():
                    self._held = True
                case Resume():
                    self._held = False
                case StopEngine():
                    self._generating = False
                case SaveClaim(claim, delivered):
                    self.payee.saved(authorised_nano=claim.amount_nano, delivered_nano=delivered)
                case SaveDelivered(_, delivered):
                    self.payee.saved(delivered_nano=delivered)
                case SaveReceipt():
                    pass
        if any(isinstance(event, SaveClaim) for event in events):
            self._provider(self.provider.look(self.now))
        self.max_behind = max(self.max_behind, self.payee.unpaid_nano)
