"""Who lives in a simulated world: places, machines, prices and strategies, drawn from the scenario."""

from __future__ import annotations

import random

from p2p.protocol.price import Prices
from p2p.protocol.strategy import AskForLess, BuyerStrategy, FixedPrice, SellerStrategy, TakeIt, UtilisationPrice
from sim.client_actor import ClientActor
from sim.engine import Pace
from sim.process import spawn
from sim.provider_actor import Profile, ProviderActor
from sim.regions import Place, draw_place
from sim.world import World

# A cached token costs half of a fresh one; the scripted engine caches nothing across answers.
CACHED_PERCENT = 50
# Deaths fall into this part of the run, so that there are answers to interrupt before and after.
DEATHS_BETWEEN = (0.1, 0.8)


def settle_in(world: World) -> None:
    """Create all actors and let them live."""
    for number in range(world.scenario.providers.count):
        name = f"provider-{number}"
        chance = world.kernel.stream(f"population/{name}")
        provider = ProviderActor(world, name, _place(world, chance), _profile(world, chance))
        _doom(world, provider, chance)
        spawn(provider.live())
    for number in range(world.scenario.clients.count):
        name = f"client-{number}"
        chance = world.kernel.stream(f"population/{name}")
        spawn(ClientActor(world, name, _place(world, chance), _buyer(world, chance)).live())


def _place(world: World, chance: random.Random) -> Place:
    return draw_place(world.scenario.regions, world.scenario.links.last_mile_ms, chance)


def _profile(world: World, chance: random.Random) -> Profile:
    terms = world.scenario.providers
    output = terms.output_price.draw(chance)
    fresh = round(output * terms.input_price_percent / 100)
    prices = Prices(fresh, fresh * CACHED_PERCENT // 100, output)
    flexible = _happens(terms.flexible_percent, chance)
    strategy: SellerStrategy = UtilisationPrice(prices, terms.discount_percent) if flexible else FixedPrice(prices)
    pace = Pace(terms.tokens_per_s.draw(chance), terms.prefill_tokens_per_s.draw(chance), terms.chunk_tokens)
    return Profile(strategy, pace, chance.choice(terms.slots))


def _buyer(world: World, chance: random.Random) -> BuyerStrategy:
    terms = world.scenario.clients
    return AskForLess(terms.ask_for_less_percent) if _happens(terms.haggler_percent, chance) else TakeIt()


def _doom(world: World, provider: ProviderActor, chance: random.Random) -> None:
    faults, duration_s = world.scenario.faults, world.scenario.duration_s
    if _happens(faults.dying_percent, chance):
        silent = _happens(faults.silent_percent, chance)
        first, last = DEATHS_BETWEEN
        world.kernel.at(chance.uniform(first, last) * duration_s, lambda: provider.doom(silent=silent))


def _happens(percent: float, chance: random.Random) -> bool:
    return chance.random() * 100 < percent
