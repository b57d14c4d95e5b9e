"""Carries out what a session core says, and wakes it when it wants to be woken: the same work on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from p2p.errors import RemoteError
from p2p.protocol.session import Event, Failed, Send
from p2p.protocol.session_client import ClientSession
from p2p.protocol.session_provider import ProviderSession
from sim.network import End
from sim.world import World


class SessionRim:
    """One side of one session. A subclass acts on what is not a message, and looks after its exposure."""

    def __init__(self, world: World, end: End, core: ClientSession | ProviderSession, hears: Any) -> None:
        self.world = world
        self._end = end
        self._core = core
        end.attach(hears, self._heard, self._lost)

    def act(self, event: Event) -> None:
        """Carry out an event that is not `Send`."""
        raise NotImplementedError

    def check_exposure(self) -> None:
        """Called after each batch of events."""
        raise NotImplementedError

    def carry_out(self, events: Sequence[Event]) -> None:
        """In order; what is saved needs no time here."""
        for event in events:
            match event:
                case Send(message):
                    self._end.send(message)
                case Failed(error):
                    self.world.invariants.require(
                        "honesty", not isinstance(error, RemoteError), f"{self._end.owner} blames a peer: {error}"
                    )
                    self._end.close()
                    self.act(event)
                case _:
                    self.act(event)
        self.check_exposure()

    def keep_time(self) -> None:
        """Have the core woken at its deadline. A deadline that moved meanwhile costs it an idle tick."""
        deadline_s = self._core.deadline()
        if deadline_s is not None and self._end.is_open:
            self.world.kernel.at(max(deadline_s, self.world.kernel.now), self._tick)

    def _tick(self) -> None:
        if self._end.is_open:
            self.carry_out(self._core.tick(self.world.kernel.now))
            self.keep_time()

    def _heard(self, message: Any) -> None:
        self.carry_out(self._core.receive(message, self.world.kernel.now))

    def _lost(self) -> None:
        self.carry_out(self._core.lost(self.world.kernel.now))
