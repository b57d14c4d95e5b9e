"""Core: the servers that we know, more of them the nearer they are (Maymounkov and Mazières, 2002, section 2.2).

An entry is a server that answered us. One that has not been heard of for `CHECK_AFTER_S`, or whose connection broke,
is asked whether it lives; from the moment of doubt until it answers it is handed out to nobody.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from p2p.protocol.kad_messages import Contact, K, kad_id, shared_prefix_bits

CHECK_AFTER_S = 240.0
CHECK_AGAIN_S = 60.0  # the same for one whose place is wanted
MAX_WAITING = 4  # newcomers that wait for a place in a full bucket
MAX_PER_ORIGIN = 4  # in one bucket, so that one network cannot fill it


class Entry:
    """One server. `origin` names the network that its connection came from, empty if that says nothing."""

    __slots__ = ("contact", "heard_at", "id", "is_doubted", "origin")

    def __init__(self, contact: Contact, origin: str, now: float) -> None:
        self.contact = contact
        self.id = kad_id(contact.peer)
        self.origin = origin
        self.heard_at = now
        self.is_doubted = False


class _Bucket:
    """Those that share so many leading bits with us, and those that wait for a place, both with the last heard last."""

    __slots__ = ("entries", "waiting")

    def __init__(self) -> None:
        self.entries: dict[bytes, Entry] = {}
        self.waiting: dict[bytes, Entry] = {}


class RoutingTable:
    """At most `K` entries for each number of leading bits shared with our id."""

    def __init__(self, me: bytes) -> None:
        self._me = kad_id(me)
        self._buckets: dict[int, _Bucket] = {}
        self._entries: dict[bytes, Entry] = {}
        self._trusted: dict[int, Entry] = {}  # those not in doubt by id, the longest silent first

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def get(self, peer: bytes) -> Entry | None:
        """What is known of a server."""
        return self._entries.get(peer)

    def heard(self, contact: Contact, origin: str, now: float) -> Contact | None:
        """A server answered us. Returns the one to check if there is no place: whoever has been silent for longest."""
        entry = Entry(contact, origin, now)
        bucket = self._buckets.setdefault(shared_prefix_bits(self._me, entry.id), _Bucket())
        known = bucket.entries.get(contact.peer)
        if known is None and (len(bucket.entries) >= K or _crowds(bucket, origin)):
            return self._let_wait(bucket, entry)
        if known is not None and known.origin != origin and _crowds(bucket, origin):
            self.failed(contact.peer)  # it has moved to where there is no place for one more
            return None
        bucket.waiting.pop(contact.peer, None)
        self._remove(bucket, contact.peer)
        self._insert(bucket, entry)
        return None

    def doubt(self, peer: bytes) -> Contact | None:
        """Hand an entry out no more until it is heard of. Returns it unless it is unknown or in doubt already."""
        entry = self._entries.get(peer)
        if entry is None or entry.is_doubted:
            return None
        entry.is_doubted = True
        del self._trusted[entry.id]
        return entry.contact

    def failed(self, peer: bytes) -> None:
        """A server did not answer: it gives its place to whoever waits for it."""
        bucket = self._bucket_of(peer)
        if bucket is None:
            return
        bucket.waiting.pop(peer, None)
        self._remove(bucket, peer)
        while bucket.waiting and len(bucket.entries) < K:
            _, entry = bucket.waiting.popitem()
            if not _crowds(bucket, entry.origin):
                self._insert(bucket, entry)

    def deadline(self) -> float:
        """When `due` has somebody."""
        longest_silent = next(iter(self._trusted.values()), None)
        return math.inf if longest_silent is None else longest_silent.heard_at + CHECK_AFTER_S

    def due(self, now: float) -> list[Contact]:
        """Those to check now. They are in doubt from here on."""
        silent = []
        while self.deadline() <= now:
            contact = next(iter(self._trusted.values())).contact
            silent.append(contact)
            self.doubt(contact.peer)
        return silent

    def closest(self, target: int, count: int = K, *, but: bytes = b"") -> list[Contact]:
        """The `count` nearest to `target` that are not in doubt."""
        nearest = sorted(self._trusted, key=target.__xor__)[: count + 1]
        return [contact for each in nearest if (contact := self._trusted[each].contact).peer != but][:count]

    def sparse_buckets(self) -> list[int]:
        """Which buckets may lack servers that exist. None does that is nearer than the `K` neighbours, all known."""
        neighbours = self.closest(self._me)
        if len(neighbours) < K:
            return []
        horizon = shared_prefix_bits(self._me, kad_id(neighbours[-1].peer))
        return [bits for bits in range(horizon) if bits not in self._buckets or len(self._buckets[bits].entries) < K]

    def _let_wait(self, bucket: _Bucket, entry: Entry) -> Contact | None:
        if _crowds(bucket, entry.origin):
            return None
        bucket.waiting.pop(entry.contact.peer, None)
        bucket.waiting[entry.contact.peer] = entry
        if len(bucket.waiting) > MAX_WAITING:
            del bucket.waiting[next(iter(bucket.waiting))]
        longest_silent = next(iter(bucket.entries.values()))
        return longest_silent.contact if longest_silent.heard_at + CHECK_AGAIN_S <= entry.heard_at else None

    def _bucket_of(self, peer: bytes) -> _Bucket | None:
        return self._buckets.get(shared_prefix_bits(self._me, kad_id(peer)))

    def _insert(self, bucket: _Bucket, entry: Entry) -> None:
        peer = entry.contact.peer
        bucket.entries[peer] = self._entries[peer] = self._trusted[entry.id] = entry

    def _remove(self, bucket: _Bucket, peer: bytes) -> None:
        bucket.entries.pop(peer, None)
        if entry := self._entries.pop(peer, None):
            self._trusted.pop(entry.id, None)


def _crowds(bucket: _Bucket, origin: str) -> bool:
    """Whether one more of `origin` would be too many."""
    return origin != "" and sum(entry.origin == origin for entry in bucket.entries.values()) >= MAX_PER_ORIGIN
