"""Core: what a Kademlia peer does for its owner, each a task of several questions, and what comes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import NamedTuple

from p2p.protocol.kad_messages import (
    MAX_ADDRESSES,
    MAX_PROVIDERS_TAKEN,
    PROVIDERS_PER_ANSWER,
    AddProvider,
    Contact,
    FindNode,
    GetProviders,
    Ping,
    Request,
    Response,
    kad_id,
)
from p2p.protocol.lookup import Walk

ENOUGH_WITNESSES = 3  # servers that named somebody, before a look-up waits for nobody who is slow


class Located(NamedTuple):
    """The servers closest to the target, nearest first."""

    operation: int
    closest: tuple[Contact, ...]


class Sought(NamedTuple):
    """Where servers say that the peer is; without addresses if none knows."""

    operation: int
    contact: Contact


class Announced(NamedTuple):
    """Which servers say that they hold our record, and whether most of them name as many others as fit an answer."""

    operation: int
    servers: tuple[Contact, ...]
    is_crowded: bool


class Withdrawn(NamedTuple):
    """The servers that held our record were told."""

    operation: int


class Found(NamedTuple):
    """Who announced the key, and whether most that know any name as many as fit an answer."""

    operation: int
    providers: tuple[Contact, ...]
    is_crowded: bool


Result = Located | Sought | Announced | Withdrawn | Found
Question = tuple[Contact, tuple[Request, ...]]
"""Whom to ask what: the requests go out one after the other, and the answer is that to the last."""


class Locate:
    """Find the servers closest to `key`."""

    def __init__(self, operation: int, key: bytes, me: bytes, seeds: Iterable[Contact]) -> None:
        self.operation = operation
        self._walk = Walk(kad_id(key), me, seeds)
        self._me = me
        self._request: Request = FindNode(key)

    @property
    def is_over(self) -> bool:
        return self._walk.is_over

    def questions(self) -> list[Question]:
        return [(contact, (self._request,)) for contact in self._walk.next()]

    def answered(self, contact: Contact, response: Response, origin: str) -> None:
        self._walk.answered(contact.peer, response.closer, origin)

    def failed(self, contact: Contact) -> None:
        self._walk.failed(contact.peer)

    def slow(self, contact: Contact) -> None:
        self._walk.slow(contact.peer)

    def conclude(self) -> Task | Result | None:
        return Located(self.operation, tuple(self._walk.closest()))


class Seek(Locate):
    """Find out where `peer` is, from others alone."""

    def __init__(self, operation: int, peer: bytes, me: bytes, seeds: Iterable[Contact]) -> None:
        super().__init__(operation, peer, me, seeds)
        self._walk.failed(peer)
        self._named: list[Contact] = []
        self._peer = peer

    @property
    def is_over(self) -> bool:
        return len(self._named) >= ENOUGH_WITNESSES or super().is_over

    def answered(self, contact: Contact, response: Response, origin: str) -> None:
        super().answered(contact, response, origin)
        self._named += [each for each in response.closer if each.peer == self._peer][:1]

    def conclude(self) -> Task | Result | None:
        addresses = Counter(address for each in self._named for address in dict.fromkeys(each.addresses))
        return Sought(self.operation, Contact(self._peer, most_named(addresses)))


class Refresh(Locate):
    """Go where we know few, only to meet those who are there."""

    def conclude(self) -> Task | Result | None:
        return None


class Announce(Locate):
    """Put our record on the servers closest to its key."""

    def __init__(self, operation: int, record: AddProvider, me: bytes, seeds: Iterable[Contact]) -> None:
        super().__init__(operation, record.key, me, seeds)
        self._record = record

    def conclude(self) -> Task | Result | None:
        return Store(self.operation, self._record, self._me, self._walk.closest())


class Find(Locate):
    """Find up to `limit` providers of `key`. `ours` is what we hold ourselves."""

    def __init__(
        self,
        operation: int,
        key: bytes,
        me: bytes,
        seeds: Iterable[Contact],
        *,
        limit: int,
        ours: tuple[Contact, ...],
    ) -> None:
        super().__init__(operation, key, me, seeds)
        self._request = GetProviders(key)
        self._limit = limit
        self._named: list[tuple[Contact, ...]] = []  # by each witness
        self._peers: set[bytes] = set()
        self._take(ours)

    @property
    def is_over(self) -> bool:
        if len(self._named) < ENOUGH_WITNESSES:
            return super().is_over
        return len(self._peers) >= self._limit or self._walk.has_settled

    def answered(self, contact: Contact, response: Response, origin: str) -> None:
        super().answered(contact, response, origin)
        self._take(response.providers)

    def conclude(self) -> Task | Result | None:
        full = sum(len(named) >= PROVIDERS_PER_ANSWER for named in self._named)
        return Found(self.operation, tuple(self._merged()), 2 * full > len(self._named))

    def _take(self, providers: tuple[Contact, ...]) -> None:
        named = tuple(each for each in providers[:MAX_PROVIDERS_TAKEN] if each.peer != self._me)
        if named:
            self._named.append(named)
            self._peers.update(each.peer for each in named)

    def _merged(self) -> Iterator[Contact]:
        """By turns one of each witness, so that none fills the limit; of the addresses, those that most name."""
        addresses: dict[bytes, Counter[bytes]] = {}
        for provider in (each for turn in zip_longest(*self._named) for each in turn if each is not None):
            if provider.peer in addresses or len(addresses) < self._limit:
                addresses.setdefault(provider.peer, Counter()).update(list(dict.fromkeys(provider.addresses)))
        for peer, counts in addresses.items():
            yield Contact(peer, most_named(counts))


class AskAll:
    """Ask each of these servers the same, all at once."""

    def __init__(self, operation: int, servers: Iterable[Contact], *requests: Request) -> None:
        self.operation = operation
        self._unasked = list(servers)
        self._open = len(self._unasked)
        self._requests = requests

    @property
    def is_over(self) -> bool:
        return self._open == 0

    def questions(self) -> list[Question]:
        unasked, self._unasked = self._unasked, []
        return [(contact, self._requests) for contact in unasked]

    def answered(self, contact: Contact, response: Response, origin: str) -> None:
        self._open -= 1

    def failed(self, contact: Contact) -> None:
        self._open -= 1

    def slow(self, contact: Contact) -> None:
        """Nobody waits to be asked in its stead."""

    def conclude(self) -> Task | Result | None:
        return None


class Check(AskAll):
    """Ask a server whether it lives."""

    def __init__(self, server: Contact) -> None:
        super().__init__(0, [server], Ping())


class Store(AskAll):
    """Tell of our record, then ask who the providers are: a server holds the record if it names us."""

    def __init__(self, operation: int, record: AddProvider, me: bytes, servers: Iterable[Contact]) -> None:
        super().__init__(operation, servers, record, GetProviders(record.key))
        self.key = record.key
        self._me = me
        self._holders: list[Contact] = []
        self._full: list[bool] = []

    def answered(self, contact: Contact, response: Response, origin: str) -> None:
        super().answered(contact, response, origin)
        self._full.append(len(response.providers) >= PROVIDERS_PER_ANSWER)
        if any(provider.peer == self._me for provider in response.providers):
            self._holders.append(contact)

    def conclude(self) -> Task | Result | None:
        return Announced(self.operation, tuple(self._holders), 2 * sum(self._full) > len(self._full))


class Withdraw(AskAll):
    """Tell of our record's end. Nothing answers that."""

    def __init__(self, operation: int, key: bytes, servers: Iterable[Contact]) -> None:
        super().__init__(operation, servers, AddProvider(key, ()))

    def conclude(self) -> Task | Result | None:
        return Withdrawn(self.operation)


Task = Locate | AskAll


def most_named(addresses: Counter[bytes]) -> tuple[bytes, ...]:
    """A liar's address is named by fewer servers than a true one."""
    return tuple(address for address, _ in addresses.most_common(MAX_ADDRESSES))
