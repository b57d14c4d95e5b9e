"""How fast frames are taken from each connection: work for us that costs the sender next to nothing."""

from __future__ import annotations

from collections import Counter

import trio

from p2p.protocol.rates import Rates

# Taken from the connections of one address together, once each has used up its burst. A frame costs some 3 µs of a core
# if there is nothing in it, and 4 KiB about as much. A stream of tokens has at most some hundred frames a second.
FRAMES_PER_S, FRAMES_BURST = 10_000.0, 20_000.0
BYTES_PER_FRAME = 4096
MAX_WAIT_S = 10.0  # less than it takes to be thought dead


class Pace:
    """One connection's. `held` counts, by address, those of a host's connections that are being held back.

    These share their address's rate evenly, so that many of them get no more than one, and whoever sends little from
    there is hardly held back.
    """

    def __init__(self, address: str, held: Counter[str]) -> None:
        self._address = address
        self._held = held
        self._rates = Rates(per_s=FRAMES_PER_S, burst=FRAMES_BURST)

    async def keep(self, frames: int, size_bytes: int) -> None:
        """Wait until more may be taken, now that so much was."""
        cost = max(1, self._held[self._address]) * (frames + size_bytes / BYTES_PER_FRAME)
        wait_s = self._rates.spend("", trio.current_time(), cost)
        if not wait_s:
            return
        self._held[self._address] += 1
        try:
            await trio.sleep(min(wait_s, MAX_WAIT_S))
        finally:
            self._held[self._address] -= 1
            if not self._held[self._address]:
                del self._held[self._address]
