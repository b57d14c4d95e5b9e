"""One run: a scenario and a seed in, a trace and its digest out."""

from __future__ import annotations

import time
from dataclasses import dataclass

from chain.errors import ChainError
from p2p.errors import Error
from sim.errors import Violation
from sim.population import settle_in
from sim.record import Trace
from sim.scenario import Scenario
from sim.world import World

# After the last question and the longest downtime, everything comes to its end well within this.
WIND_UP_S = 3600.0


@dataclass(frozen=True)
class Outcome:
    """What came of a run. Everything but `wall_s` is a function of scenario and seed."""

    scenario: Scenario
    seed: int
    trace: Trace
    digest: str
    virtual_s: float
    events: int
    wall_s: float

    @property
    def events_per_s(self) -> int:
        """Kernel events per second of the machine's time."""
        return round(self.events / self.wall_s)


def simulate(scenario: Scenario, seed: int, *, messages: bool = False) -> Outcome:
    """Run to the end: until every question has its answer, every channel is closed, and nothing is planned.

    With `messages`, each message is in the trace, which then has another digest.

    Raises `ScenarioError`, or `Violation` where the simulated world breaks a promise.
    """
    started_s = time.perf_counter()
    world = World(scenario, seed, messages=messages)
    settle_in(world)
    try:
        world.kernel.run(until_s=scenario.duration_s + scenario.faults.downtime_s + WIND_UP_S)
    except (Error, ChainError) as error:
        # Everyone is honest here, so a core that raises has found a fault in another one.
        raise Violation(seed, world.kernel.now, f"{type(error).__name__}: {error}") from error
    _conclude(world)
    return Outcome(
        scenario=scenario,
        seed=seed,
        trace=world.trace,
        digest=world.trace.digest(),
        virtual_s=world.kernel.now,
        events=world.kernel.events,
        wall_s=time.perf_counter() - started_s,
    )


def _conclude(world: World) -> None:
    """The last checks; the last record binds every frame that was sent into the digest."""
    world.invariants.require("everyone", world.clients_left == 0, f"{world.clients_left} clients are stuck")
    world.invariants.money()
    world.invariants.wallets()
    world.trace("checked", **world.invariants.checked)
    network = world.network
    world.trace("traffic", messages=network.messages, bytes=network.bytes, sha256=network.traffic.hexdigest())
