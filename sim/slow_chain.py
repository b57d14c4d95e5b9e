"""The in-memory chain with the one thing that it leaves out: an operation takes seconds to be confirmed."""

from __future__ import annotations

from collections.abc import Callable

from chain.errors import ChannelUnusable, TransactionFailed
from chain.ledger import Network, Transaction
from chain.memory import MemoryChain
from sim.invariants import Invariants
from sim.kernel import Kernel
from sim.process import sleep
from sim.record import Trace
from sim.scenario import Range
from sim.signatures import verify

NETWORK = Network("simulated", 1)


class SlowChain:
    """Carry operations on `memory` through `confirmed`, so that they take their time and are checked."""

    def __init__(self, kernel: Kernel, confirm_s: Range, trace: Trace) -> None:
        self.memory = MemoryChain(NETWORK, now=lambda: int(kernel.now), verify=verify)
        self.invariants = Invariants(kernel, self.memory)
        self._kernel = kernel
        self._confirm_s = confirm_s
        self._trace = trace
        self._chance = kernel.stream("chain")

    async def confirmed(self, wallet: str, operation: Callable[[], Transaction]) -> Transaction:
        """What `operation`, carried by `wallet`, came to once confirmed.

        Raises `InsufficientFunds`. Whatever else a chain refuses is a bug here, where everyone is honest.
        """
        await sleep(self._kernel, self._confirm_s.draw(self._chance))
        try:
            done = operation()
        except (TransactionFailed, ChannelUnusable) as error:
            self.invariants.require("operations", False, f"{wallet} had an operation refused: {error}")
            raise
        self.invariants.charged(wallet, done.fee_nano)
        self._trace("transaction", wallet=wallet, op=done.op, fee_nano=done.fee_nano)
        return done
