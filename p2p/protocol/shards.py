"""Core: a name's shards in the DHT, so that no key holds thousands of records however many provide it.

A provider's shard is written in hexadecimal: the first digits of SHA-256 of its binary peer id. The key of depth 0 is
the name itself, that of depth `d` the name with `#` and the first `d` digits: `any`, `any#3`, `any#3f`. A key is
crowded when most of its servers name as many providers as fit an answer.

- A provider announces itself at depth 0; wherever the key is crowded, at the next depth, too. Where it was crowded out,
  it does not try again for `CROWDED_S`.
- A client looks at depth 0; wherever the key is crowded, also in one of the sixteen shards below it, drawn by chance.
  Each provider is in some shard below a crowded key, so those found deepest are an even sample and are taken first.
  Further shards are drawn only while fewer than were wanted are found.

In a network with fewer providers than fit an answer, that is one key, and one look-up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

from p2p.protocol.kad_messages import Contact

MAX_DEPTH = 3  # 4096 shards, of some hundred records each
MAX_LOOKUPS = 20
CROWDED_S = 1200.0
MAX_CROWDED = 1024
_DIGITS = "0123456789abcdef"
_SHA2_256_MULTIHASH = b"\x12\x20"  # function code, digest length


def record_key(name: str, shard: str = "") -> bytes:
    """The DHT key (a SHA-256 multihash) of a name, or of one of its shards."""
    text = f"{name}#{shard}" if shard else name
    return _SHA2_256_MULTIHASH + hashlib.sha256(text.encode()).digest()


def announced_keys(name: str, peer: bytes) -> list[bytes]:
    """All keys under which `peer` (a binary id) may have announced itself as one of `name`."""
    return [record_key(name, _shard_of(peer)[:depth]) for depth in range(MAX_DEPTH + 1)]


def _shard_of(peer: bytes) -> str:
    return hashlib.sha256(peer).hexdigest()[:MAX_DEPTH]


class CrowdedKeys:
    """Which keys were crowded lately."""

    def __init__(self) -> None:
        self._until: dict[bytes, float] = {}

    def add(self, key: bytes, now: float) -> None:
        """`key` is crowded now."""
        self._until.pop(key, None)
        self._until[key] = now + CROWDED_S
        if len(self._until) > MAX_CROWDED:
            del self._until[next(iter(self._until))]

    def has(self, key: bytes, now: float) -> bool:
        """Whether `key` was crowded within `CROWDED_S`."""
        return self._until.get(key, 0.0) > now


class Announcing:
    """The keys under which the provider `peer` (a binary id) announces itself as one of `name`, one after the other."""

    def __init__(self, name: str, peer: bytes, crowded: CrowdedKeys) -> None:
        self._keys = announced_keys(name, peer)
        self._crowded = crowded

    def next(self, now: float) -> bytes | None:
        """The next key to announce, until there is none."""
        while self._keys and self._crowded.has(self._keys[0], now):
            del self._keys[0]
        return self._keys[0] if self._keys else None

    def heard(self, *, is_held: bool, is_crowded: bool, now: float) -> None:
        """What came of that key: whether any server holds our record, and whether it is crowded."""
        if is_crowded and not is_held:
            self._crowded.add(self._keys[0], now)
        self._keys = self._keys[1:] if is_crowded else []


class Searching:
    """The keys under which to look for `limit` providers of `name`, one after the other.

    `draw(n)` is a random number from 0 to n - 1.
    """

    def __init__(self, name: str, limit: int, draw: Callable[[int], int]) -> None:
        self._name = name
        self._limit = limit
        self._draw = draw
        self._shards = [""]  # still to be looked at, the next one last
        self._shard = ""
        self._lookups = 0
        self._was_crowded = False
        self._sample: dict[bytes, Contact] = {}  # found where it was not crowded
        self._others: dict[bytes, Contact] = {}

    def next(self) -> bytes | None:
        """The next key to look for, until there is none."""
        is_enough = len(self.found()) >= self._limit and not self._was_crowded
        if is_enough or not self._shards or self._lookups == MAX_LOOKUPS:
            return None
        self._lookups += 1
        self._shard = self._shards.pop()
        return record_key(self._name, self._shard)

    def heard(self, providers: Iterable[Contact], *, is_crowded: bool) -> None:
        """What was found under the last key."""
        self._was_crowded = is_crowded and len(self._shard) < MAX_DEPTH
        found = {provider.peer: provider for provider in providers}
        if self._was_crowded:
            self._others = found | self._others
            digits = list(_DIGITS)
            self._shards += [self._shard + digits.pop(self._draw(len(digits))) for _ in _DIGITS]
        else:
            self._sample |= found

    def found(self) -> list[Contact]:
        """Up to `limit` of those found so far, an even sample first."""
        return list((self._sample | self._others).values())[: self._limit]
