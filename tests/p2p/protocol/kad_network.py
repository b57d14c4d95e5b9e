"""Many Kademlia cores on a network in memory, in virtual time: who is up, what is under way, and what it costs."""

from __future__ import annotations

import hashlib
import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from functools import partial

from p2p.protocol.kad_messages import AddProvider, Contact, Response
from p2p.protocol.kad_tasks import Announced, Found, Located, Result, Withdrawn
from p2p.protocol.kademlia import Abandon, Ask, Event, Kademlia

DIAL_FAILS_S = 0.3  # a machine that is there says that nobody listens


class KadNetwork:
    """Peers by number. Those in `silent` are down and say nothing; others that are down refuse at once."""

    def __init__(self, seed: int, latency_s: tuple[float, float] = (0.01, 0.15)) -> None:
        self.chance = random.Random(seed)
        self.now = 0.0
        self.peers: dict[bytes, Kademlia] = {}
        self.silent: set[bytes] = set()
        self.clients: set[bytes] = set()
        self.origins: dict[bytes, str] = {}  # the networks that some connect from
        self.asked: Counter[bytes] = Counter()  # the questions that each peer has put
        self.results: dict[tuple[bytes, int], Result] = {}
        self._latency_s = latency_s
        self._planned: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._woken_at: dict[bytes, float] = {}

    def join(self, name: str, *bootstraps: Contact, server: bool = True, kind: type[Kademlia] = Kademlia) -> Kademlia:
        """A new peer, or one that was down, that knows only these."""
        me = peer_of(name)
        core = self.peers[me] = kind(me, server=server, entropy=hashlib.sha256(me).digest(), now=self.now)
        self.silent.discard(me)
        if not server:
            self.clients.add(me)
        self.act(core, lambda: core.join(bootstraps, self.now)[1])
        return core

    def crash(self, peer: bytes, *, silent: bool = False) -> None:
        """Gone from one moment to the next, with all that it knew."""
        del self.peers[peer]
        if silent:
            self.silent.add(peer)

    def act(self, core: Kademlia, call: Callable[[], list[Event]]) -> None:
        """Have one peer do something, and see to what follows."""
        if self.peers.get(core.me) is core:
            self._carry_out(core, call())

    def do(self, core: Kademlia, call: Callable[[], tuple[int, list[Event]]]) -> Result:
        """Have one peer do something, and wait for what comes of it."""
        operation, events = call()
        self._carry_out(core, events)
        while (core.me, operation) not in self.results:
            self._step()
        return self.results.pop((core.me, operation))

    def locate(self, core: Kademlia, key: bytes) -> Located:
        result = self.do(core, lambda: core.locate(key, self.now))
        assert isinstance(result, Located)
        return result

    def announce(self, core: Kademlia, key: bytes) -> Announced:
        result = self.do(core, lambda: core.announce(key, (address_of(core.me),), self.now))
        assert isinstance(result, Announced)
        return result

    def withdraw(self, core: Kademlia, key: bytes) -> Withdrawn:
        result = self.do(core, lambda: core.withdraw(key, self.now))
        assert isinstance(result, Withdrawn)
        return result

    def find(self, core: Kademlia, key: bytes, limit: int = 20) -> Found:
        result = self.do(core, lambda: core.find(key, limit, self.now))
        assert isinstance(result, Found)
        return result

    def run(self, duration_s: float) -> None:
        """Let time pass."""
        until = self.now + duration_s
        while self._planned and self._planned[0][0] <= until:
            self._step()
        self.now = until

    def _step(self) -> None:
        self.now, _, action = heapq.heappop(self._planned)
        action()

    def _at(self, delay_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._planned, (self.now + delay_s, next(self._order), action))

    def _carry_out(self, core: Kademlia, events: list[Event]) -> None:
        for event in events:
            match event:
                case Ask():
                    self._at(self._delay_s(), partial(self._arrive, core, event))
                case Abandon():
                    pass
                case result:
                    self.results[core.me, result.operation] = result
        self._wake(core)

    def _wake(self, core: Kademlia) -> None:
        """See to it that the core's `tick` is called when it is due."""
        due_at = max(core.deadline(), self.now)
        if self._woken_at.get(core.me, float("inf")) > due_at:
            self._woken_at[core.me] = due_at
            self._at(due_at - self.now, partial(self._tick, core, due_at))

    def _tick(self, core: Kademlia, due_at: float) -> None:
        if self._woken_at.get(core.me) == due_at:
            del self._woken_at[core.me]
            self.act(core, lambda: core.tick(self.now))

    def _arrive(self, asking: Kademlia, ask: Ask) -> None:
        peer = ask.contact.peer
        self.asked[asking.me] += 1
        server = self.peers.get(peer)
        if server is None or peer in self.clients:
            if peer not in self.silent:
                self._at(DIAL_FAILS_S, lambda: self.act(asking, lambda: asking.failed(ask.query, self.now)))
            return
        response: Response | None = None
        for request in ask.requests:
            response = server.receive(asking.me, self.origins.get(asking.me, ""), request, self.now)
        assert (response is None) is isinstance(ask.requests[-1], AddProvider)
        if asking.me not in self.clients:
            self.act(server, lambda: server.noticed(contact_of(asking.me), self.now))
        answered = partial(asking.answered, ask.query, response or Response(), origin=self.origins.get(peer, ""))
        self._at(self._delay_s(), lambda: self.act(asking, lambda: answered(now=self.now)))

    def _delay_s(self) -> float:
        return self.chance.uniform(*self._latency_s)


def peer_of(name: str) -> bytes:
    return b"\x00\x24\x08\x01\x12\x20" + hashlib.sha256(name.encode()).digest()


def address_of(peer: bytes) -> bytes:
    return b"/memory/" + peer[-8:]


def contact_of(peer: bytes) -> Contact:
    return Contact(peer, (address_of(peer),))
