"""How much of our processor a connection may use by its frames: they cost the sender next to nothing."""

from __future__ import annotations

from collections import Counter

import trio

from p2p.protocol.rates import Rates

# Of one core, for the connections of one address together, once they have used up its burst. At 3 µs for an empty frame
# and 40 µs for a full one that is some 80,000 frames or 400 MB a second.
SHARE = 0.25
SHARE_IN_ALL = 0.5  # for all that are being held back, however many addresses they have
BURST_S = 1.0  # of an address, which has it again after `REFILL_S`
REFILL_S = 600.0
OWN_BURST_S = 0.05  # of each connection, when that is gone: for whoever sends little from there
MAX_WAIT_S = 10.0  # less than it takes to be thought dead


class Paces:
    """What the connections of a host have in common: what their addresses used up, and which are being held back."""

    def __init__(self) -> None:
        self.used = Rates(per_s=BURST_S / REFILL_S, burst=BURST_S)
        self.held = Counter[str]()  # connections, by address


class Pace:
    """One connection's.

    Those of an address that are being held back share its part evenly, so that many of them get no more than one, and
    whoever sends little from there is hardly held back. Once in debt it pays more, the more addresses there are like
    its own.
    """

    def __init__(self, address: str, paces: Paces) -> None:
        self._address = address
        self._used = paces.used
        self._held = paces.held
        self._own = Rates(per_s=SHARE, burst=OWN_BURST_S)

    async def keep(self, work_s: float) -> None:
        """Wait until more may be done for the connection, now that so much was."""
        now = trio.current_time()
        if self._used.take(self._address, now, work_s):
            return
        cost_s = work_s * max(1, self._held[self._address])
        if not self._own.spend("", now, cost_s):
            return
        surcharge = max(0.0, len(self._held) * SHARE / SHARE_IN_ALL - 1)
        wait_s = self._own.spend("", now, cost_s * surcharge)
        self._held[self._address] += 1
        try:
            await trio.sleep(min(wait_s, MAX_WAIT_S))
        finally:
            self._held[self._address] -= 1
            if not self._held[self._address]:
                del self._held[self._address]
