"""Core: one paid answer. The messages, the states and the events that both sides of a session share.

    client                                provider
    Start (request, quote, voucher) --->  checks the channel, counts the prompt
                  <---  Begun (prompt tokens, what the channel stands at)
    Payment       --->  works through the prompt in steps that the window covers
                  <---  Progress (signed), then Delta ... Delta
    Payment       --->  goes on while unpaid work fits the window, else says Pause and waits
                  <---  Finished (receipt, signed)
    Close (countersignature, last voucher) --->
                  <---  End

A killed peer looks like a clean close, so a stream that ends before `End` (or a `Refusal`) has failed, and both sides
send `Heartbeat` when they have nothing else to say. Events come out in the order in which they must be carried out:
what is to be saved comes before what is to be sent because of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from chain.voucher import Claim
from p2p.errors import Error
from p2p.protocol.negotiate import Refusal
from p2p.protocol.receipt import Receipt, SignedReceipt
from p2p.protocol.wire import Bytes16, Bytes32, Bytes64, Message, Nat, Signed, SignedBody, Size

PROTOCOL = "/bombyx/session/1"
SESSION_ID_BYTES = 16
SESSIONS_PER_CHANNEL_MAX = 8
HEARTBEAT_S = 5.0
SILENCE_S = 20.0  # four heartbeats missed
RECEIPT_PATIENCE_S = 2.0  # how long a client waits for the receipt of a provider that it gives up as stalled
PAYMENT_PATIENCE_S = 30.0  # how long a paused provider waits for a voucher, and for the last one


class Payment(Message, frozen=True, kw_only=True, tag="payment"):
    """A voucher: this session's part of it, and the channel's total, which is what is signed."""

    session_total_nano: Nat
    channel_total_nano: Nat
    signature: Bytes64


class Start(Message, frozen=True, kw_only=True, tag="start"):
    """Opens a session under a quote. `request` is an encoded `inference.engine.Request`."""

    session: Bytes16
    quote: Signed
    channel: Bytes32
    request: bytes
    salt: Bytes16
    payment: Payment


class Begun(Message, frozen=True, kw_only=True, tag="begun"):
    """Admits the session: the exact prompt size, and the channel's totals as the provider has them."""

    prompt_tokens: Size
    delivered_nano: Nat
    accepted_nano: Nat


class ProgressBody(SignedBody, frozen=True, kw_only=True, tag="bombyx/progress/1"):
    """The provider's word that so much of the prompt is worked through."""

    session: Bytes16
    prompt_tokens_done: Size


class Progress(Message, frozen=True, kw_only=True, tag="progress"):
    """Carries a signed `ProgressBody`."""

    progress: Signed


class Delta(Message, frozen=True, kw_only=True, tag="delta"):
    """Text that became final since the last frame, the token ids it stands for, and their sum so far."""

    text: str
    tokens: Nat
    total_tokens: Nat


class Pause(Message, frozen=True, kw_only=True, tag="pause"):
    """The window is full: nothing more until the channel's total reaches `due_nano`."""

    due_nano: Nat


class Finished(Message, frozen=True, kw_only=True, tag="finished"):
    """The answer is whole; carries the provider's signed `Receipt`."""

    receipt: Signed


class Cancel(Message, frozen=True, kw_only=True, tag="cancel"):
    """The client has enough; what was done so far is receipted and paid."""


class Close(Message, frozen=True, kw_only=True, tag="close"):
    """The client agrees to the receipt and pays the rest."""

    countersignature: Bytes64
    payment: Payment


class Heartbeat(Message, frozen=True, kw_only=True, tag="heartbeat"):
    """Still here."""


class End(Message, frozen=True, kw_only=True, tag="end"):
    """The last frame of a session that went well."""


ToProvider = Start | Payment | Cancel | Close | Heartbeat
ToClient = Begun | Progress | Delta | Pause | Finished | Heartbeat | Refusal | End


class State(Enum):
    """The phases of a session, the same words on both sides."""

    NEW = auto()
    STARTING = auto()  # the provider checks the channel and counts
    PREFILL = auto()
    STREAMING = auto()
    PAUSED = auto()  # only the provider pauses
    CLOSING = auto()  # the receipt is out, the countersignature is owed
    DONE = auto()
    FAILED = auto()


ENDED = frozenset({State.DONE, State.FAILED})

# Which state each side may be in when it hears a message; everything else is out of turn.
CLIENT_HEARS: dict[type[Message], frozenset[State]] = {
    Begun: frozenset({State.STARTING}),
    Progress: frozenset({State.PREFILL}),
    Delta: frozenset({State.STREAMING}),
    Pause: frozenset({State.PREFILL, State.STREAMING}),
    Finished: frozenset({State.PREFILL, State.STREAMING}),
    Heartbeat: frozenset({State.STARTING, State.PREFILL, State.STREAMING, State.CLOSING}),
    Refusal: frozenset({State.STARTING, State.PREFILL, State.STREAMING}),
    End: frozenset({State.CLOSING}),
}
PROVIDER_HEARS: dict[type[Message], frozenset[State]] = {
    Start: frozenset({State.NEW}),
    Payment: frozenset({State.PREFILL, State.STREAMING, State.PAUSED, State.CLOSING}),
    Cancel: frozenset({State.PREFILL, State.STREAMING, State.PAUSED, State.CLOSING}),
    Close: frozenset({State.CLOSING}),
    Heartbeat: frozenset({State.STARTING, State.PREFILL, State.STREAMING, State.PAUSED, State.CLOSING}),
}


@dataclass(frozen=True, slots=True)
class Send:
    """Write this message to the peer."""

    message: Message


@dataclass(frozen=True, slots=True)
class SaveClaim:
    """A voucher signed (client) or accepted (provider), to be on disk before the next event is carried out.

    What was delivered is saved along with it and not at every piece of the answer: a crash then forgets no more than
    one window of it, and a disk has a few commits a second to make instead of hundreds.
    """

    claim: Claim
    delivered_nano: int


@dataclass(frozen=True, slots=True)
class SaveDelivered:
    """The channel's delivered total at the end of a session, to be on disk before the next event is carried out."""

    channel: bytes
    delivered_nano: int


@dataclass(frozen=True, slots=True)
class SaveLost:
    """Provider: what sessions that died left unpaid on the channel in all. A restart must not forget it."""

    channel: bytes
    lost_nano: int


@dataclass(frozen=True, slots=True)
class SaveReceipt:
    """Keep this receipt, as far as it is signed."""

    receipt: SignedReceipt


@dataclass(frozen=True, slots=True)
class Check:
    """Provider: look at the channel, count the prompt, then call `admit` or `refuse`."""

    start: Start


@dataclass(frozen=True, slots=True)
class Prefill:
    """Provider: have the engine work through this many prompt tokens in all, then call `prefilled`."""

    tokens: int


@dataclass(frozen=True, slots=True)
class Generate:
    """Provider: have the engine answer; call `produced` for each piece, then `generated`."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Provider: take nothing more from the engine until `Resume`."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Provider: go on taking from the engine."""


@dataclass(frozen=True, slots=True)
class StopEngine:
    """Provider: cancel the engine's work for this session."""


@dataclass(frozen=True, slots=True)
class Deliver:
    """Client: this piece of the answer is for the reader."""

    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Completed:
    """The session ended well."""

    receipt: Receipt
    signed: SignedReceipt


@dataclass(frozen=True, slots=True)
class Failed:
    """The session ended badly; the stream is to be reset."""

    error: Error


Event = (
    Send
    | SaveClaim
    | SaveDelivered
    | SaveLost
    | SaveReceipt
    | Check
    | Prefill
    | Generate
    | Hold
    | Resume
    | StopEngine
    | Deliver
    | Completed
    | Failed
)


Save = SaveClaim | SaveDelivered | SaveLost | SaveReceipt


class Liveness:
    """When to send a heartbeat, and when the peer has been silent too long."""

    def __init__(self) -> None:
        self._said_at = 0.0
        self._heard_at = 0.0

    def said(self, now: float) -> None:
        """We sent something."""
        self._said_at = now

    def heard(self, now: float) -> None:
        """The peer sent something."""
        self._heard_at = now

    def deadline(self) -> float:
        """When to look again."""
        return min(self._said_at + HEARTBEAT_S, self._heard_at + SILENCE_S)

    def silent(self, now: float) -> bool:
        """Whether the peer must be given up."""
        return now >= self._heard_at + SILENCE_S

    def heartbeat_due(self, now: float) -> bool:
        """Whether it is time to say that we are still here."""
        return now >= self._said_at + HEARTBEAT_S
