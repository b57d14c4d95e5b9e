"""Core: the walk through the network to the `K` servers closest to a target.

The closest that are known are asked, `ALPHA` at a time; whom they name that is closer still is asked next, until each
of the `K` closest has answered. One that takes longer than most is passed over: another is asked in its stead, and it
counts again if it answers before the end. What a liar can add is bounded: so many questions in all, so many servers of
one origin among the `K`, and nothing more of a server whose first tips were all dead.
"""

from __future__ import annotations

import bisect
import enum
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

from p2p.protocol.kad_messages import ALPHA, Contact, K, kad_id

MAX_ASKED = 100
MAX_OPEN = 4 * ALPHA  # questions under way with those that are passed over
MAX_CANDIDATES = 4 * K
MAX_DEAD_TIPS = 6
MAX_PER_ORIGIN = 8  # among the `K` closest


class _State(enum.Enum):
    NEW = enum.auto()
    ASKED = enum.auto()
    SLOW = enum.auto()
    ANSWERED = enum.auto()


class _Candidate:
    """Someone on the way. `tipster` is who named it first, nobody for those we knew."""

    __slots__ = ("contact", "distance", "origin", "state", "tipster")

    def __init__(self, contact: Contact, distance: int, tipster: bytes | None) -> None:
        self.contact = contact
        self.distance = distance
        self.tipster = tipster
        self.state = _State.NEW
        self.origin = ""


class _Tips:
    """What became of those that one server named."""

    __slots__ = ("alive", "dead")

    def __init__(self) -> None:
        self.alive = self.dead = 0

    @property
    def are_lies(self) -> bool:
        return self.dead >= MAX_DEAD_TIPS and not self.alive


class Walk:
    """One look-up for `target`, from `seeds`. `me` is never asked."""

    def __init__(self, target: int, me: bytes, seeds: Iterable[Contact]) -> None:
        self._target = target
        self._candidates: dict[bytes, _Candidate] = {}
        self._near: list[tuple[int, bytes]] = []  # the candidates in order of their distance
        self._never = {me}  # who is not to be asked (again)
        self._tips: dict[bytes, _Tips] = {}
        self._asked = 0
        for contact in seeds:
            self._add(contact, None)

    def next(self) -> list[Contact]:
        """Whom to ask now."""
        room = min(ALPHA, MAX_OPEN - self._count(_State.SLOW)) - self._count(_State.ASKED)
        chosen: list[Contact] = []
        for candidate in self._leading():
            if len(chosen) >= room or self._asked >= MAX_ASKED:
                break
            if candidate.state is _State.NEW:
                candidate.state = _State.ASKED
                self._asked += 1
                chosen.append(candidate.contact)
        return chosen

    def answered(self, peer: bytes, closer: Iterable[Contact], origin: str) -> None:
        """`peer` answered, from `origin`, and named these."""
        candidate = self._candidates.get(peer)
        if candidate is None:  # since dropped
            return
        candidate.state, candidate.origin = _State.ANSWERED, origin
        if candidate.tipster is not None:
            self._tips[candidate.tipster].alive += 1
        self._tips.setdefault(peer, _Tips())
        for contact in closer:
            self._add(contact, peer)

    def failed(self, peer: bytes) -> None:
        """`peer` did not answer, and is not to be asked any more."""
        self._never.add(peer)
        candidate = self._candidates.get(peer)
        if candidate is None:
            return
        self._drop(candidate)
        if candidate.tipster is not None:
            self._tips[candidate.tipster].dead += 1
            self._forget_lies(candidate.tipster)

    def slow(self, peer: bytes) -> None:
        """`peer` has not answered yet."""
        candidate = self._candidates.get(peer)
        if candidate is not None and candidate.state is _State.ASKED:
            candidate.state = _State.SLOW

    @property
    def has_settled(self) -> bool:
        """Whether each of the closest has answered, but for those that are passed over."""
        unfinished = (_State.ASKED,) if self._asked >= MAX_ASKED else (_State.NEW, _State.ASKED)
        return not any(candidate.state in unfinished for candidate in self._leading())

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to wait for. Where there are less than `K`, even the slow are."""
        return self.has_settled and (len(list(self._leading())) == K or not self._count(_State.SLOW))

    def closest(self) -> list[Contact]:
        """The `K` closest that answered, nearest first."""
        answered = (candidate for candidate in self._eligible() if candidate.state is _State.ANSWERED)
        return [candidate.contact for candidate in islice(answered, K)]

    def _leading(self) -> Iterator[_Candidate]:
        """The `K` closest that may live and are not slow."""
        return islice((candidate for candidate in self._eligible() if candidate.state is not _State.SLOW), K)

    def _count(self, state: _State) -> int:
        return sum(candidate.state is state for candidate in self._candidates.values())

    def _eligible(self) -> Iterator[_Candidate]:
        """All candidates, nearest first, without those that would be too many of one origin."""
        origins: Counter[str] = Counter()
        for _, peer in self._near:
            candidate = self._candidates[peer]
            if candidate.origin:
                origins[candidate.origin] += 1
                if origins[candidate.origin] > MAX_PER_ORIGIN:
                    continue
            yield candidate

    def _add(self, contact: Contact, tipster: bytes | None) -> None:
        peer = contact.peer
        if peer in self._candidates or peer in self._never or (tipster is not None and self._tips[tipster].are_lies):
            return
        distance = kad_id(peer) ^ self._target
        bisect.insort(self._near, (distance, peer))
        self._candidates[peer] = _Candidate(contact, distance, tipster)
        if len(self._near) > MAX_CANDIDATES:
            self._drop(self._candidates[self._near[-1][1]])

    def _drop(self, candidate: _Candidate) -> None:
        del self._near[bisect.bisect_left(self._near, (candidate.distance, candidate.contact.peer))]
        del self._candidates[candidate.contact.peer]

    def _forget_lies(self, tipster: bytes) -> None:
        if self._tips[tipster].are_lies:
            for candidate in list(self._candidates.values()):
                if candidate.tipster == tipster and candidate.state is _State.NEW:
                    self._drop(candidate)
