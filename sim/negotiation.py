"""A simulated client's side of one negotiation."""

from __future__ import annotations

from typing import NamedTuple

from p2p.protocol import negotiate
from p2p.protocol.haggling import Haggling
from p2p.protocol.negotiate import Accept, Ask, Buyer, Counter, Quote, State, ToClient
from p2p.protocol.strategy import BuyerStrategy
from p2p.protocol.wire import Signed
from sim.network import Inbox
from sim.signatures import verify_by_peer
from sim.slow_chain import NETWORK
from sim.world import World

PATIENCE_S = 5.0


class Agreement(NamedTuple):
    """A quote that both sides stand by."""

    quote: Quote
    signed: Signed


class Negotiation:
    """One stream to one provider, from the first question to an agreement or a no."""

    def __init__(self, world: World, client: str, provider: str) -> None:
        self.provider = provider
        self._kernel = world.kernel
        self._end = world.network.connect(client, provider, negotiate.PROTOCOL)
        self._inbox = Inbox[ToClient](world.kernel, self._end, ToClient, patience_s=PATIENCE_S)
        self._buyer = Buyer(network=NETWORK.name, client=client, provider=provider, verify=verify_by_peer)

    async def quote(self, ask: Ask) -> Quote | None:
        """The provider's first quote; `None` for a refusal or silence."""
        return self._buyer.quote if await self._exchange(self._buyer.ask(ask)) else None

    async def agree(self, strategy: BuyerStrategy) -> Agreement | None:
        """Haggle as the strategy says, then accept; `None` if the provider changed its mind or went away."""
        haggling = Haggling(self._buyer, strategy)
        while self._buyer.state is not State.AGREED:
            if not await self._exchange(haggling.say(self._kernel.now)):
                return None
        assert self._buyer.quote is not None
        assert self._buyer.signed is not None
        return Agreement(self._buyer.quote, self._buyer.signed)

    def leave(self) -> None:
        """Say no more."""
        self._end.close()

    async def _exchange(self, message: Ask | Counter | Accept) -> bool:
        """Send, and hear the answer: whether the negotiation goes on."""
        self._end.send(message)
        answer = await self._inbox.next()
        if answer is None:
            return False
        self._buyer.receive(answer, self._kernel.now)
        return self._buyer.state is not State.REFUSED
