"""How much of our processor a connection may use by its frames: they cost the sender next to nothing."""

from __future__ import annotations

from collections import Counter

import trio

from p2p.protocol.rates import Rates

# Of one core, for the connections of one address together, once each has used up its burst. At 3 µs for an empty frame
# and 40 µs for a full one that is some 80,000 frames or 400 MB a second.
SHARE = 0.25
SHARE_IN_ALL = 0.5  # for all that are being held back, however many addresses they have
BURST_S = 1.0
MAX_WAIT_S = 10.0  # less than it takes to be thought dead


class Pace:
    """One connection's. `held` counts, by address, those of a host's connections that are being held back.

    These share their address's part evenly, so that many of them get no more than one, and whoever sends little from
    there is hardly held back. Once in debt it pays more, the more addresses there are like its own.
    """

    def __init__(self, address: str, held: Counter[str]) -> None:
        self._address = address
        self._held = held
        self._rates = Rates(per_s=SHARE, burst=BURST_S)

    async def keep(self, work_s: float) -> None:
        """Wait until more may be done for the connection, now that so much was."""
        now, cost_s = trio.current_time(), work_s * max(1, self._held[self._address])
        if not self._rates.spend("", now, cost_s):
            return
        surcharge = max(0.0, len(self._held) * SHARE / SHARE_IN_ALL - 1)
        wait_s = self._rates.spend("", now, cost_s * surcharge)
        self._held[self._address] += 1
        try:
            await trio.sleep(min(wait_s, MAX_WAIT_S))
        finally:
            self._held[self._address] -= 1
            if not self._held[self._address]:
                del self._held[self._address]
