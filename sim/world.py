"""What all actors of one simulated world share."""

from __future__ import annotations

from p2p.trace import silent
from sim.directory import Directory
from sim.kernel import Kernel
from sim.network import Network
from sim.record import Trace
from sim.regions import load_matrix
from sim.scenario import Scenario
from sim.slow_chain import SlowChain


class World:
    """Time, space, money and the record of what happened."""

    def __init__(self, scenario: Scenario, seed: int, *, messages: bool = False) -> None:
        self.scenario = scenario
        self.kernel = Kernel(seed)
        self.trace = Trace(self.kernel)
        matrix = load_matrix(list(scenario.regions))
        self.network = Network(
            self.kernel,
            matrix,
            jitter_percent=scenario.links.jitter_percent,
            trace=self.trace if messages else silent,
        )
        self.directory = Directory()
        self.chain = SlowChain(self.kernel, scenario.confirm_s, self.trace)
        self.invariants = self.chain.invariants
        self.clients_left = scenario.clients.count  # who still ask or have channels to close
