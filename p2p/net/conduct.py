"""Core: what peers did wrong, and who is kept out for it. No I/O and no clock.

Faults are forgiven with time, because software has bugs; who makes many within a short time is banned for a while.
A ban names a peer, not its address: others may live behind that.
"""

from __future__ import annotations

from typing import NamedTuple

from p2p.protocol.rates import Rates

FAULTS_FORGIVEN = 32  # at once
FORGIVEN_EVERY_S = 10.0  # one more
BAN_S = 600.0
MAX_BANS = 10_000  # identities cost nothing; the oldest ban makes room


class Ban(NamedTuple):
    """A peer with whom we have nothing to do until then."""

    why: str
    until: float


class Conduct:
    """`now` is any clock in seconds that does not run backwards, the same in every call."""

    def __init__(self) -> None:
        self._faults = Rates(per_s=1 / FORGIVEN_EVERY_S, burst=FAULTS_FORGIVEN)
        self._bans: dict[str, Ban] = {}

    def fault(self, peer: str, why: str, now: float) -> Ban | None:
        """Hold something against a peer; its ban, if this was once too often."""
        if self._faults.take(peer, now):
            return None
        self._bans.pop(peer, None)  # a later one counts from its own beginning
        ban = self._bans[peer] = Ban(why, now + BAN_S)
        if len(self._bans) > MAX_BANS:
            del self._bans[next(iter(self._bans))]
        return ban

    def ban(self, peer: str, now: float) -> Ban | None:
        """Why and until when the peer is banned, if it is."""
        ban = self._bans.get(peer)
        return ban if ban is not None and now < ban.until else None

    def bans(self, now: float) -> dict[str, Ban]:
        """Every peer that is banned."""
        self._bans = {peer: ban for peer, ban in self._bans.items() if now < ban.until}
        return dict(self._bans)
