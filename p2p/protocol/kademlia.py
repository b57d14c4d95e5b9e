"""Core: one peer's part in a Kademlia network, as a server or as a client only.

    rim                                  core
    somebody asks            receive ->  the answer, if there is one
    the owner wants          announce, find, withdraw … ->  an operation's number, and events
    a question went well     answered -> events
    or not                   failed  ->  events
    time passes              tick    ->  events

Events are carried out in order. `Ask` is a question to one server, `Abandon` says that its answer is wanted no more,
and everything else is the result of an operation. A server is known once it has answered; only those who have lately
are handed out. Clients ask and are never known to anybody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from p2p.protocol.kad_messages import (
    AddProvider,
    Contact,
    GetProviders,
    Ping,
    Request,
    Response,
    kad_id,
    shared_prefix_bits,
)
from p2p.protocol.kad_tasks import (
    Announce,
    Announced,
    Check,
    Find,
    Found,
    Locate,
    Located,
    Refresh,
    Result,
    Seek,
    Sought,
    Store,
    Task,
    Withdraw,
    Withdrawn,
)
from p2p.protocol.provider_records import ProviderRecords
from p2p.protocol.rates import Rates
from p2p.protocol.routing_table import RoutingTable

QUERY_TIMEOUT_S = 5.0
PATIENCE_S = 1.5  # an answer usually takes less, with the dial; after this, others are asked
OPERATION_TIMEOUT_S = 12.0
REFRESH_S = 600.0
FIRST_REFRESH_S = 10.0  # after joining
MAX_REFRESHED_BITS = 10  # finding a key for a bucket takes 2^bits hashes
MAX_REMEMBERED = 64  # peers to start from when the table is empty
MAX_UNCHECKED = 256
MAX_CHECKS = 16  # under way
SNAPSHOT = 200

# In a small network a provider of 64 models renews some 130 records in one burst, each with three requests to a server.
REQUESTS_PER_S = 20.0
REQUESTS_AT_ONCE = 500


class Ask(NamedTuple):
    """Put these requests to the peer, on one stream; then say `answered` or `failed` with the query's number.

    The answer is that to the last one; an `AddProvider` has none, and is answered when it is written.
    """

    query: int
    contact: Contact
    requests: tuple[Request, ...]


class Abandon(NamedTuple):
    """Nothing depends on this query any more."""

    query: int


Event = Ask | Abandon | Result


class _Query(NamedTuple):
    contact: Contact
    task: Task
    asked_at: float


class Kademlia:
    """`me` is our binary peer id; `entropy` (any 32 secret bytes) decides which keys a refresh looks for.

    `origin`, wherever it is asked for, names the network that a connection comes from (for example an address prefix),
    and is empty if that tells peers apart no better than their ids.
    """

    def __init__(self, me: bytes, *, server: bool, entropy: bytes, now: float) -> None:
        self.me = me
        self.table = RoutingTable(me)
        self.records = ProviderRecords()
        self.is_server = server  # may change
        self._entropy = entropy
        self._rates = Rates(per_s=REQUESTS_PER_S, burst=REQUESTS_AT_ONCE)
        self._numbers = 0
        self._queries: dict[int, _Query] = {}  # the first asked first
        self._punctual: dict[int, None] = {}  # those of them that are not slow yet
        self._tasks: dict[Task, tuple[float, set[int]]] = {}  # when each began and its open queries, the oldest first
        self._unchecked: dict[bytes, Contact] = {}
        self._checking: set[bytes] = set()
        self._remembered: dict[bytes, Contact] = {}
        self._holders: dict[bytes, tuple[Contact, ...]] = {}  # of our records, by key
        self._refresh_at = now + FIRST_REFRESH_S
        self._refresh_keys: list[bytes] = []

    # What others ask

    def receive(self, peer: bytes, origin: str, request: Request, now: float) -> Response | None:
        """The answer to a request of `peer`; `None` for an `AddProvider`. Who asks too often gets an empty one."""
        allowed = self._rates.take(peer.hex(), now)
        if isinstance(request, AddProvider):
            if not request.addresses:
                self.records.remove(request.key, peer)
            elif allowed:
                self.records.add(request.key, Contact(peer, request.addresses), origin or peer.hex(), now)
            return None
        if not allowed or isinstance(request, Ping):
            return Response()
        providers = self.records.get(request.key, now, first=peer) if isinstance(request, GetProviders) else ()
        return Response(tuple(self.table.closest(kad_id(request.key), but=peer)), providers)

    # What the owner wants

    def join(self, contacts: Iterable[Contact], now: float) -> tuple[int, list[Event]]:
        """Look for ourselves, from these and all that we know: `Located` then says who our neighbours are."""
        for contact in contacts:
            self._remember(contact)
        return self.locate(self.me, now)

    def locate(self, key: bytes, now: float) -> tuple[int, list[Event]]:
        """Find the servers closest to a key: `Located`."""
        return self._start(Locate(self._number(), key, self.me, self._seeds(key)), now)

    def seek(self, peer: bytes, now: float) -> tuple[int, list[Event]]:
        """Find out where a peer is, without asking itself: `Sought`."""
        return self._start(Seek(self._number(), peer, self.me, self._seeds(peer)), now)

    def announce(self, key: bytes, addresses: tuple[bytes, ...], now: float) -> tuple[int, list[Event]]:
        """Have the servers closest to `key` hold our record: `Announced`. A server holds one of its own, too."""
        if self.is_server:
            self.records.add(key, Contact(self.me, addresses), self.me.hex(), now)
        record = AddProvider(key, addresses)
        return self._start(Announce(self._number(), record, self.me, self._seeds(key)), now)

    def withdraw(self, key: bytes, now: float) -> tuple[int, list[Event]]:
        """Have everyone who took our record of `key` forget it: `Withdrawn`."""
        self.records.remove(key, self.me)
        return self._start(Withdraw(self._number(), key, self._holders.pop(key, ())), now)

    def find(self, key: bytes, limit: int, now: float) -> tuple[int, list[Event]]:
        """Find up to `limit` others that announced `key`: `Found`."""
        ours = self.records.get(key, now) if self.is_server else ()
        task = Find(self._number(), key, self.me, self._seeds(key), limit=limit, ours=ours)
        return self._start(task, now)

    def restore(self, contacts: Iterable[Contact], now: float) -> list[Event]:
        """Check whether the servers of an earlier `snapshot` are still there."""
        for contact in contacts:
            self._remember(contact)
            self._doubt_whether(contact)
        return self._check(now)

    def snapshot(self) -> tuple[Contact, ...]:
        """The servers that are worth trying at the next start, the last heard of first."""
        return tuple(reversed([entry.contact for entry in self.table if not entry.is_doubted][-SNAPSHOT:]))

    # What the rim learns

    def noticed(self, contact: Contact, now: float) -> list[Event]:
        """A peer that is connected says that it is a server, and where it listens."""
        known = self.table.get(contact.peer)
        if len(self._unchecked) < MAX_UNCHECKED and (known is None or known.contact != contact):
            self._doubt_whether(contact)
        return self._check(now)

    def lost(self, peer: bytes, now: float) -> list[Event]:
        """The last connection to a peer broke."""
        contact = self.table.doubt(peer)
        if contact is not None:
            self._doubt_whether(contact)
        return self._check(now)

    def answered(
        self, query: int, response: Response, now: float, *, origin: str = "", addresses: tuple[bytes, ...] = ()
    ) -> list[Event]:
        """The answer to an `Ask`; one that was abandoned meanwhile is ignored.

        `addresses` are what the server says of itself, if it does: what others say of it is hearsay.
        """
        asked = self._close(query)
        if asked is None:
            return []
        server = Contact(asked.contact.peer, addresses or asked.contact.addresses)
        longest_silent = self.table.heard(server, origin, now)
        if longest_silent is not None:
            self._doubt_whether(longest_silent)
        asked.task.answered(asked.contact, response, origin)
        return self._go_on(asked.task, now) + self._check(now)

    def failed(self, query: int, now: float) -> list[Event]:
        """Nothing came of an `Ask`."""
        asked = self._close(query)
        if asked is None:
            return []
        if self.table.get(asked.contact.peer):
            self._remember(asked.contact)
        self.table.failed(asked.contact.peer)
        asked.task.failed(asked.contact)
        return self._go_on(asked.task, now) + self._check(now)

    # Time

    def deadline(self) -> float:
        """When `tick` is next due; any call may change it."""
        due_at = [self._refresh_at, self.table.deadline()]
        if self._punctual:
            due_at.append(self._queries[next(iter(self._punctual))].asked_at + PATIENCE_S)
        if self._queries:
            due_at.append(next(iter(self._queries.values())).asked_at + QUERY_TIMEOUT_S)
        if self._tasks:
            due_at.append(next(iter(self._tasks.values()))[0] + OPERATION_TIMEOUT_S)
        return min(due_at)

    def tick(self, now: float) -> list[Event]:
        """Do what is due."""
        events: list[Event] = []
        while self._punctual and self._queries[query := next(iter(self._punctual))].asked_at + PATIENCE_S <= now:
            del self._punctual[query]
            asked = self._queries[query]
            asked.task.slow(asked.contact)
            events += self._go_on(asked.task, now)
        while self._queries and self._queries[query := next(iter(self._queries))].asked_at + QUERY_TIMEOUT_S <= now:
            events += [Abandon(query), *self.failed(query, now)]
        while self._tasks and self._tasks[task := next(iter(self._tasks))][0] + OPERATION_TIMEOUT_S <= now:
            events += self._conclude(task, now)
        for contact in self.table.due(now):
            self._doubt_whether(contact)
        self.records.tick(now)
        return events + self._check(now) + self._refresh(now)

    # Tasks and their queries

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _start(self, task: Task, now: float) -> tuple[int, list[Event]]:
        self._tasks[task] = (now, set())
        return task.operation, self._go_on(task, now)

    def _go_on(self, task: Task, now: float) -> list[Event]:
        """Put the task's next questions; end it if there is nothing left to wait for."""
        _, open_queries = self._tasks[task]
        events: list[Event] = []
        for contact, requests in [] if task.is_over else task.questions():
            query = self._number()
            self._queries[query] = _Query(contact, task, now)
            self._punctual[query] = None
            open_queries.add(query)
            events.append(Ask(query, contact, requests))
        return events + self._conclude(task, now) if task.is_over else events

    def _close(self, query: int) -> _Query | None:
        asked = self._queries.pop(query, None)
        if asked is not None:
            self._punctual.pop(query, None)
            self._tasks[asked.task][1].discard(query)
            if isinstance(asked.task, Check):
                self._checking.discard(asked.contact.peer)
        return asked

    def _conclude(self, task: Task, now: float) -> list[Event]:
        _, open_queries = self._tasks[task]
        events: list[Event] = [Abandon(query) for query in sorted(open_queries)]
        for query in list(open_queries):
            self._close(query)
        del self._tasks[task]
        match task.conclude():
            case None:
                if isinstance(task, Refresh):
                    events += self._refresh_next(now)
            case Announced(_, servers) as result:
                assert isinstance(task, Store)
                self._holders[task.key] = servers
                events.append(result)
            case Located() | Sought() | Withdrawn() | Found() as result:
                events.append(result)
            case next_task:
                events += self._start(next_task, now)[1]
        return events

    # Who is there

    def _seeds(self, key: bytes) -> list[Contact]:
        """Where a look-up starts."""
        known = self.table.closest(kad_id(key))
        return known if len(known) > len(self._remembered) else [*known, *self._remembered.values()]

    def _remember(self, contact: Contact) -> None:
        self._remembered.pop(contact.peer, None)
        self._remembered[contact.peer] = contact
        if len(self._remembered) > MAX_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]

    def _doubt_whether(self, contact: Contact) -> None:
        """Check this one soon."""
        if contact.peer != self.me and contact.peer not in self._checking:
            self._unchecked[contact.peer] = contact

    def _check(self, now: float) -> list[Event]:
        events: list[Event] = []
        while self._unchecked and len(self._checking) < MAX_CHECKS:
            peer = next(iter(self._unchecked))
            self._checking.add(peer)
            events += self._start(Check(self._unchecked.pop(peer)), now)[1]
        return events

    def _refresh(self, now: float) -> list[Event]:
        """Look for ourselves, then for a key in each bucket that has room, one after the other."""
        if now < self._refresh_at:
            return []
        self._refresh_at = now + REFRESH_S
        bits = [bits for bits in self.table.sparse_buckets() if bits <= MAX_REFRESHED_BITS]
        self._refresh_keys = [self.me, *map(self._key_sharing, bits)]
        return self._refresh_next(now)

    def _refresh_next(self, now: float) -> list[Event]:
        if not self._refresh_keys:
            return []
        key = self._refresh_keys.pop(0)
        return self._start(Refresh(self._number(), key, self.me, self._seeds(key)), now)[1]

    def _key_sharing(self, bits: int) -> bytes:
        """A key whose place shares exactly so many leading bits with ours."""
        me = kad_id(self.me)
        while True:
            self._entropy = hashlib.sha256(self._entropy).digest()
            if shared_prefix_bits(kad_id(self._entropy), me) == bits:
                return self._entropy
