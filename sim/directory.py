"""A stand-in for the DHT: who announced itself under which key, seen through bounded random samples.

It knows names only, stale ones too. The advert is pulled from the provider itself, which is also the liveness probe.
"""

from __future__ import annotations

import random
from collections.abc import Iterable


class Directory:
    """Announcements that expire. Nobody is ever given all of them."""

    def __init__(self) -> None:
        self._announced: dict[str, dict[str, float]] = {}

    def announce(self, peer: str, keys: Iterable[str], until_s: float) -> None:
        """List a peer under each of these keys (`p2p.protocol.advert.provider_keys`)."""
        for key in keys:
            self._announced.setdefault(key, {})[peer] = until_s

    def sample(self, key: str, limit: int, now: float, chance: random.Random) -> list[str]:
        """At most `limit` of those announced under `key`, drawn without favour."""
        live = [peer for peer, until_s in self._announced.get(key, {}).items() if until_s > now]
        return chance.sample(live, min(limit, len(live)))
