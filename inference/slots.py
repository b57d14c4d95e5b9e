"""Core: which slot of an engine a prompt goes to, so that what is cached is used and not overwritten.

llama-server's own choice was tried and dropped: prompts share their template's first tokens, and by that likeness a
short chat took the slot of a long prompt that had been worked through and not yet answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from operator import eq


class Slots:
    """The free slots, least recently used first, each with the prompt it last held."""

    def __init__(self, count: int) -> None:
        self._free: dict[int, Sequence[int]] = dict.fromkeys(range(count), ())

    def take(self, prompt: Sequence[int]) -> int:
        """The free slot that shares most with `prompt`, if that keeps at least half of what it holds.

        Otherwise the least recently used one. There must be a free slot.
        """
        shared = {slot: _shared(held, prompt) for slot, held in self._free.items()}
        kind = [slot for slot, held in self._free.items() if shared[slot] and 2 * shared[slot] >= len(held)]
        slot = max(kind, key=shared.__getitem__) if kind else next(iter(self._free))
        del self._free[slot]
        return slot

    def give_back(self, slot: int, prompt: Sequence[int]) -> None:
        """The slot is free again and holds `prompt`."""
        self._free[slot] = prompt


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    return sum(1 for _ in takewhile(bool, map(eq, one, other)))
