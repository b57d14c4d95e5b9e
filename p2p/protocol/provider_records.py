"""Core: what providers announced to us, for as long as an advert lives and within bounds that strangers cannot move.

Where there is no room, the origin (the network that announcements come from) that has most gives way, if it has more
than the newcomer's. So whoever floods us makes room for everyone else out of its own.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from p2p.protocol.kad_messages import PROVIDERS_PER_ANSWER, Contact

RECORD_LIFE_S = 600.0  # as long as an advert lives at most; both are renewed each 240 s
MAX_RECORDS = 20_000
MAX_RECORDS_PER_KEY = 2 * PROVIDERS_PER_ANSWER

_Name = tuple[bytes, bytes]  # key, peer


class _Record(NamedTuple):
    contact: Contact
    origin: str
    expires_at: float


class ProviderRecords:
    """Who announced which key. `limit` and `limit_per_key` bound the records in all and of one key."""

    def __init__(self, *, limit: int = MAX_RECORDS, limit_per_key: int = MAX_RECORDS_PER_KEY) -> None:
        self._limit = limit
        self._limit_per_key = limit_per_key
        self._records: dict[_Name, _Record] = {}  # the soonest to expire first
        self._keys: dict[bytes, dict[bytes, _Record]] = {}  # of each key, those handed out last at the end
        self._origins: dict[str, dict[_Name, None]] = {}  # of each origin, the soonest to expire first

    def __len__(self) -> int:
        return len(self._records)

    def add(self, key: bytes, contact: Contact, origin: str, now: float) -> bool:
        """Keep or renew a record; False if there is no room for it."""
        self.tick(now)
        name = key, contact.peer
        if name not in self._records and not self._make_room(key, origin):
            return False
        self.remove(*name)
        record = self._records[name] = _Record(contact, origin, now + RECORD_LIFE_S)
        self._keys.setdefault(key, {})[contact.peer] = record
        self._origins.setdefault(origin, {})[name] = None
        return True

    def remove(self, key: bytes, peer: bytes) -> None:
        """Forget a record, if there is one."""
        record = self._records.pop((key, peer), None)
        if record is None:
            return
        of_key, of_origin = self._keys[key], self._origins[record.origin]
        del of_key[peer], of_origin[key, peer]
        if not of_key:
            del self._keys[key]
        if not of_origin:
            del self._origins[record.origin]

    def get(self, key: bytes, now: float, *, first: bytes = b"") -> tuple[Contact, ...]:
        """Up to `PROVIDERS_PER_ANSWER` of those who announced `key`: `first`, then those not named for longest."""
        self.tick(now)
        of_key = self._keys.get(key, {})
        named = [peer for peer in of_key if peer != first][: PROVIDERS_PER_ANSWER - (first in of_key)]
        for peer in named:
            of_key[peer] = of_key.pop(peer)
        return tuple(of_key[peer].contact for peer in ([first] if first in of_key else []) + named)

    def tick(self, now: float) -> None:
        """Forget what has expired."""
        while self._records:
            name, record = next(iter(self._records.items()))
            if record.expires_at > now:
                return
            self.remove(*name)

    def _make_room(self, key: bytes, origin: str) -> bool:
        of_key = self._keys.get(key, {})
        if len(of_key) >= self._limit_per_key:
            counts = Counter(record.origin for record in of_key.values())
            most = max(counts, key=lambda each: counts[each])
            if counts[most] <= counts[origin] + 1:
                return False
            self.remove(key, next(peer for peer, record in of_key.items() if record.origin == most))
        elif len(self._records) >= self._limit:
            most = max(self._origins, key=lambda each: len(self._origins[each]))
            if len(self._origins[most]) <= len(self._origins.get(origin, ())) + 1:
                return False
            self.remove(*next(iter(self._origins[most])))
        return True
