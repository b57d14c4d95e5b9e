"""A simulated provider: announces itself, quotes, serves, settles, and may die in the middle of an answer."""

from __future__ import annotations

from typing import NamedTuple

from chain.channel import Payee
from p2p.protocol import advert, negotiate, release, session
from p2p.protocol.advert import MAX_LIFETIME_S, Advert, ChannelOffer, Pull, provider_keys
from p2p.protocol.release import CloseRequest
from p2p.protocol.sales import PriceList
from p2p.protocol.strategy import SellerStrategy
from p2p.protocol.wire import sign
from sim.engine import Pace
from sim.network import End
from sim.payees import Payees
from sim.process import sleep, spawn
from sim.regions import Place
from sim.selling import Selling
from sim.serving import Serving
from sim.signatures import FakeSigner
from sim.slow_chain import NETWORK
from sim.world import World


class Profile(NamedTuple):
    """What one provider has and wants."""

    strategy: SellerStrategy
    pace: Pace
    slots: int


class ProviderActor:
    """One seller. Its wallet's address is made from its name."""

    def __init__(self, world: World, name: str, place: Place, profile: Profile) -> None:
        self.name = name
        self.pace = profile.pace
        self._world = world
        self._signer = FakeSigner(name)
        payee_key = FakeSigner(f"{name}/payee")
        terms = world.scenario.providers
        self._channel = ChannelOffer(
            payee=f"wallet/{name}",
            payee_key=payee_key.public_key,
            deposit_min_nano=terms.deposit_min_nano,
            challenge_period_s=terms.challenge_period_s,
        )
        self.payees = Payees(world, self._channel, payee_key)
        self.selling = Selling(
            world,
            name,
            price_list=PriceList(profile.strategy, terms.window_cap_nano),
            pace=profile.pace,
            slots=profile.slots,
            channel=self._channel,
        )
        self._serving: dict[Serving, None] = {}
        self._advert_seq = 0
        self._alive = True
        self._doom: bool | None = None  # whether silent, once it is to die
        world.invariants.grant(self._channel.payee, terms.wallet_nano)
        world.network.join(name, place, self._accept)

    async def live(self) -> None:
        """Announce ourselves as long as anyone may ask."""
        while self._world.clients_left:
            if self._alive:
                keys = provider_keys(self._advert())
                self._world.directory.announce(self.name, keys, self._world.kernel.now + MAX_LIFETIME_S)
            await sleep(self._world.kernel, self._world.scenario.providers.readvertise_s)

    def doom(self, *, silent: bool) -> None:
        """Die at the next opportunity."""
        self._doom = silent

    def die_if_doomed(self) -> None:
        """An opportunity: a client has a part of its answer."""
        if self._doom is None:
            return
        self._world.trace("died", provider=self.name, silent=self._doom, sessions=len(self._serving))
        self._world.network.crash(self.name, silent=self._doom)
        self._alive, self._doom = False, None
        for serving in self._serving:
            serving.stop()
        self._serving = {}
        self.payees.crash()
        self.selling.crash()
        self._world.kernel.after(self._world.scenario.faults.downtime_s, self._return)

    def began(self, serving: Serving) -> None:
        """A session was admitted."""
        self._serving[serving] = None
        self.selling.busy += 1

    def ended(self, serving: Serving, payee: Payee) -> None:
        """A session is over."""
        del self._serving[serving]
        self.selling.busy -= 1
        self.payees.give_back(payee.channel)

    def _return(self) -> None:
        self._world.network.restore(self.name)
        self._alive = True
        self._world.trace("returned", provider=self.name)

    def _advert(self) -> Advert:
        now = int(self._world.kernel.now)
        self._advert_seq += 1
        return Advert(
            network=NETWORK.name,
            peer=self.name,
            addresses=(),
            seq=self._advert_seq,
            issued_at=now,
            expires_at=now + MAX_LIFETIME_S,
            models=self.selling.offers(),
            channel=self._channel,
        )

    def _accept(self, end: End) -> None:
        match end.protocol:
            case advert.PROTOCOL:
                end.attach(Pull, lambda _: end.send(sign(self._advert(), self._signer)), end.close)
            case negotiate.PROTOCOL:
                spawn(self.selling.negotiate(end))
            case session.PROTOCOL:
                Serving(self._world, self, end)
            case release.PROTOCOL:
                end.attach(CloseRequest, lambda request: end.send(self.payees.release(request, end.peer)), end.close)
            case _:
                end.close()
