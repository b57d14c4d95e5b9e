"""Several sessions on one channel between two processes that die: no network, no clock but a counter, two small disks.

Each session has a stream of its own, so messages of different sessions overtake each other at will. A stream that
breaks loses what is under way, and each end notices it when it may. A process that dies keeps what its disk holds. The
provider's disk takes its time: a session waits for what it saves, and the others go on meanwhile.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from back_to_back import CHANNEL, CLIENT, GLOBAL_ID, PAYEE, PAYER, PRICES, PROVIDER, make_quote

from chain.channel import Payee, Payer, State
from chain.errors import ChannelUnusable
from chain.keys import verify
from chain.voucher import Claim
from p2p.keys import verify_by_peer
from p2p.protocol.price import Tokens, cost_nano
from p2p.protocol.receipt import Sampling
from p2p.protocol.session import (
    ENDED,
    HEARTBEAT_S,
    Check,
    Completed,
    Delta,
    Event,
    Failed,
    Generate,
    Hold,
    Prefill,
    Progress,
    ProgressBody,
    Resume,
    Save,
    SaveClaim,
    SaveDelivered,
    SaveLost,
    SaveReceipt,
    Send,
    StopEngine,
)
from p2p.protocol.session_client import ClientSession
from p2p.protocol.session_provider import ProviderSession
from p2p.protocol.wire import Message, decode

DEPOSIT_NANO = 100_000_000
WINDOW_NANO = 20_000
SAMPLING = Sampling(max_tokens=1000, temperature=0.0, top_p=1.0, seed=0)


Step = Callable[[float], list[Event]]


class Died(Exception):
    """The process is gone in the middle of what it did."""


@dataclass
class Disk:
    """What one side asked to have saved; like the book it keeps the highest voucher and the highest delivered total."""

    claim: Claim | None = None
    delivered_nano: int = 0
    lost_nano: int = 0
    released: Claim | None = None

    @property
    def authorised_nano(self) -> int:
        return self.claim.amount_nano if self.claim else 0

    def save(self, event: SaveClaim | SaveDelivered | SaveLost) -> None:
        if isinstance(event, SaveLost):
            self.lost_nano = max(self.lost_nano, event.lost_nano)
            return
        if isinstance(event, SaveClaim) and event.claim.amount_nano > self.authorised_nano:
            assert self.released is None, "a released channel takes no voucher"
            self.claim = event.claim
        self.delivered_nano = max(self.delivered_nano, event.delivered_nano)


@dataclass
class Talk:
    """One session: its two cores as far as they live, its stream, and the engine's part."""

    client: ClientSession | None
    provider: ProviderSession | None
    prompt_tokens: int
    pieces: deque[int]
    to_provider: deque[Any] = field(default_factory=deque)
    to_client: deque[Any] = field(default_factory=deque)
    broken: bool = False
    work: str = ""  # what the engine is at: prefill or answer
    prefill_tokens: int = 0
    held: bool = False
    unsaved: deque[Event] = field(default_factory=deque)  # from a save on: what the provider is still to carry out
    waiting: deque[Step] = field(default_factory=deque)  # for that
    handed_over: Tokens = field(default_factory=Tokens)

    @property
    def over(self) -> bool:
        cores = (self.client, self.provider)
        return all(core is None or core.state in ENDED for core in cores)


class SharedChannel:
    """One channel, its two ends, and all that may befall them."""

    def __init__(self, tally: Counter[str] | None = None, *, exposure_max_nano: int = 0) -> None:
        self.tally: Counter[str] = Counter() if tally is None else tally
        self.limit_nano = max(WINDOW_NANO, exposure_max_nano)  # of what the payer may owe
        self.client_disk, self.provider_disk = Disk(), Disk()
        self.payer = Payer(CHANNEL, GLOBAL_ID, PAYER, deposited_nano=DEPOSIT_NANO)
        self._restore_payee()
        self.quote, self.signed_quote = make_quote(window_nano=WINDOW_NANO)
        self.talks: list[Talk] = []
        self.now = 1000.0
        self.incidents = 0  # streams and processes that ended before their time
        self.lives: dict[str, int | None] = {"client": None, "provider": None}  # events until it dies
        self.received_nano = self.delivered_nano = self.completed = 0
        self.failures: list[Exception] = []
        self.unprovoked: list[Exception] = []  # those for which nothing had gone wrong before
        self._sessions = 0

    # What may happen

    def start(self, prompt_tokens: int, pieces: Sequence[int]) -> Talk:
        """The client asks something, over a stream of its own."""
        self._sessions += 1
        core = ClientSession(
            session=self._sessions.to_bytes(16, "big"),
            quote=self.quote,
            signed_quote=self.signed_quote,
            payer=self.payer,
            request=b"x" * (4 * prompt_tokens),
            salt=b"t" * 16,
            max_tokens=1000,
            signer=CLIENT,
            verify=verify_by_peer,
        )
        provider = ProviderSession(signer=PROVIDER, verify=verify_by_peer)
        talk = Talk(core, provider, prompt_tokens, deque(pieces))
        self.talks.append(talk)
        self._client(talk, core.start)
        return talk

    def hear_provider(self, talk: Talk) -> None:
        """The client takes the next message."""
        message = talk.to_client.popleft()
        if talk.client is not None:
            self._client(talk, lambda now: talk.client.receive(message, now) if talk.client else [])

    def hear_client(self, talk: Talk) -> None:
        """The provider takes the next message."""
        message = talk.to_provider.popleft()
        if talk.provider is not None:
            self._provider(talk, lambda now: talk.provider.receive(message, now) if talk.provider else [])

    def work(self, talk: Talk) -> None:
        """The engine gets on by one piece."""
        core = talk.provider
        assert core is not None
        if talk.work == "prefill":
            talk.work = ""
            self._provider(talk, lambda now: core.prefilled(talk.prefill_tokens, now))
        elif talk.pieces:
            tokens = talk.pieces.popleft()
            self._provider(talk, lambda now: core.produced("word " * tokens, tokens, now))
        else:
            talk.work = ""
            self._provider(talk, lambda now: core.generated("stop", now))

    def save(self, talk: Talk) -> None:
        """The provider's disk has what a session waited for."""
        try:
            while talk.unsaved and isinstance(event := talk.unsaved[0], Save):
                self._live("provider")
                self._put_on_disk(event)
                talk.unsaved.popleft()
            self._carry_out(talk)
            self._look_around()
        except Died:
            self.die("provider")

    def cancel(self, talk: Talk) -> None:
        """The reader leaves."""
        if talk.client is not None:
            self._client(talk, talk.client.cancel)

    def break_stream(self, talk: Talk) -> None:
        """What is under way is lost; nobody knows yet."""
        if not talk.broken and not talk.over:
            self.incidents += 1
            self.tally["broken streams"] += 1
        talk.broken = True
        talk.to_client.clear()
        talk.to_provider.clear()

    def notice(self, talk: Talk, who: str) -> None:
        """One end finds its stream broken."""
        if who == "client" and talk.client is not None:
            self._client(talk, talk.client.lost)
        if who == "provider" and talk.provider is not None:
            self._provider(talk, talk.provider.lost)

    def die(self, who: str) -> None:
        """A process is killed, and started again on its disk."""
        self.incidents += any(not talk.over for talk in self.talks)
        self.tally["crashes"] += any(not talk.over for talk in self.talks)
        self.lives[who] = None
        for talk in self.talks:
            talk.broken = True
            talk.to_client.clear()
            talk.to_provider.clear()
            if who == "client":
                talk.client = None
            else:
                talk.provider, talk.work = None, ""
                talk.unsaved.clear()
                talk.waiting.clear()
        if who == "client":
            self._restore_payer()
        else:
            self._restore_payee()

    def release(self) -> bool:
        """The two close together, unless a session runs at either end; whether they did."""
        if self.payer.lanes or any(talk.unsaved for talk in self.talks):
            return False
        try:
            if self.payee.state is State.OPEN and self.client_disk.claim is not None:
                self.payee.accept(self.client_disk.claim)
                self._put_on_disk(SaveClaim(self.client_disk.claim, 0))
            released = self.payee.release(PAYEE)
        except ChannelUnusable:
            return False
        assert self.provider_disk.released in (None, released)
        self.provider_disk.released = self.client_disk.released = released
        return True

    def wait(self, seconds: float) -> None:
        """Time passes for everybody."""
        self.now += seconds
        silent = seconds > HEARTBEAT_S and any(not talk.over for talk in self.talks)
        self.incidents += silent
        self._tick()

    def _tick(self) -> None:
        for talk in list(self.talks):
            if talk.client is not None:
                self._client(talk, talk.client.tick)
            if talk.provider is not None:
                self._provider(talk, talk.provider.tick)

    def finish_saving(self) -> None:
        """The provider's disk has a moment's rest."""
        for talk in list(self.talks):
            while talk.unsaved:
                self.save(talk)

    def beat(self) -> None:
        """Time for a heartbeat; nothing is slow but the disk and the engines."""
        self.now += HEARTBEAT_S
        self._tick()
        self.drain()

    def movable(self) -> list[tuple[Callable[[Talk], None], Talk]]:
        """All that could happen next by itself."""
        moves: list[tuple[Callable[[Talk], None], Talk]] = []
        for talk in self.talks:
            if talk.to_client:
                moves.append((self.hear_provider, talk))
            if talk.to_provider:
                moves.append((self.hear_client, talk))
            if talk.unsaved:
                moves.append((self.save, talk))
            elif talk.work and not talk.held:
                moves.append((self.work, talk))
        return moves

    def drain(self) -> None:
        """Until nothing moves any more."""
        while moves := self.movable():
            for move, talk in moves:
                if (move, talk) in self.movable():
                    move(talk)

    def forget(self) -> None:
        """Drop sessions that are over at both ends."""
        self.talks = [talk for talk in self.talks if not talk.over or talk.unsaved]

    # How it is carried out

    def _client(self, talk: Talk, make: Callable[[float], list[Event]]) -> None:
        core = talk.client
        assert core is not None
        self.now += 0.001
        before = core.cost_nano
        try:
            events = make(self.now)
            self.received_nano += core.cost_nano - before
            for event in events:
                self._one("client", talk, event)
        except Died:
            self.die("client")

    def _provider(self, talk: Talk, step: Step) -> None:
        """One step at a time: it is over when all that it says is carried out."""
        self.now += 0.001
        talk.waiting.append(step)
        try:
            if not talk.unsaved:
                self._carry_out(talk)
                self._look_around()
        except Died:
            self.die("provider")

    def _carry_out(self, talk: Talk) -> None:
        """What is left of a step, up to the next save, and the steps that waited for it."""
        while True:
            while talk.unsaved:
                if isinstance(talk.unsaved[0], Save):
                    return
                self._one("provider", talk, talk.unsaved.popleft())
            if not talk.waiting:
                return
            talk.unsaved.extend(talk.waiting.popleft()(self.now))

    def _look_around(self) -> None:
        """The rim lets all sessions know when something happened on the channel."""
        for talk in list(self.talks):
            if talk.provider is not None and talk.provider.look not in talk.waiting:
                talk.waiting.append(talk.provider.look)
                if not talk.unsaved:
                    self._carry_out(talk)

    def _put_on_disk(self, event: Save) -> None:
        match event:
            case SaveClaim(claim, delivered_nano):
                self.provider_disk.save(event)
                self.payee.saved(authorised_nano=claim.amount_nano, delivered_nano=delivered_nano)
            case SaveDelivered(_, delivered_nano):
                self.provider_disk.save(event)
                self.payee.saved(delivered_nano=delivered_nano)
            case SaveLost(_, lost_nano):
                self.provider_disk.save(event)
                self.payee.saved(lost_nano=lost_nano)
            case SaveReceipt():
                pass

    def _one(self, who: str, talk: Talk, event: Event) -> None:
        self._live(who)
        match event:
            case SaveClaim() | SaveDelivered():
                self.client_disk.save(event)
            case Send(message):
                if who == "provider":
                    self._hand_over(talk, message)
                if not talk.broken:
                    (talk.to_provider if who == "client" else talk.to_client).append(message)
            case Check():
                self._admit(talk)
            case Prefill(tokens):
                talk.work, talk.prefill_tokens = "prefill", tokens
            case Generate():
                talk.work = "answer"
            case Hold() | Resume():
                talk.held = isinstance(event, Hold)
            case StopEngine():
                talk.work = ""
            case Completed():
                self.completed += 1
                self.tally["completed at one end"] += 1
            case Failed(error):
                self.failures.append(error)
                if not self.incidents:
                    self.unprovoked.append(error)
                self.break_stream(talk)

    def _hand_over(self, talk: Talk, message: Message) -> None:
        before = cost_nano(PRICES, talk.handed_over)
        match message:
            case Progress(progress=signed):
                body: ProgressBody = decode(signed.body, ProgressBody)
                talk.handed_over = Tokens(input=body.prompt_tokens_done)
            case Delta(total_tokens=total_tokens):
                talk.handed_over = Tokens(input=talk.handed_over.input, output=total_tokens)
        self.delivered_nano += cost_nano(PRICES, talk.handed_over) - before

    def _live(self, who: str) -> None:
        left = self.lives[who]
        if left is not None:
            self.lives[who] = left - 1
            if left == 0:
                raise Died

    def _admit(self, talk: Talk) -> None:
        core = talk.provider
        assert core is not None
        talk.waiting.append(partial(core.admit, self.quote, self.payee, SAMPLING, talk.prompt_tokens))

    def _restore_payer(self) -> None:
        disk = self.client_disk
        self.payer = Payer(
            CHANNEL,
            GLOBAL_ID,
            PAYER,
            deposited_nano=DEPOSIT_NANO,
            delivered_nano=disk.delivered_nano,
            authorised_nano=disk.authorised_nano,
        )
        self.payer.write_off()

    def _restore_payee(self) -> None:
        disk = self.provider_disk
        self.payee = Payee(
            CHANNEL,
            GLOBAL_ID,
            PAYER.public_key,
            verify,
            deposited_nano=DEPOSIT_NANO,
            delivered_nano=disk.delivered_nano,
            accepted=disk.claim,
            lost_nano=disk.lost_nano,
            exposure_max_nano=self.limit_nano,
        )
        self.payee.write_off()
        if disk.released is not None:
            self.payee.state, self.payee.released_nano = State.RELEASED, disk.released.amount_nano
