"""`provide`: sell answers of a model until told to stop, and say meanwhile how that goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import trio

from inference.engine import Engine
from inference.link import Spec
from inference.measure import Measured, measure
from inference.nursery import open_background
from p2p import peers_seen, provider_table
from p2p.config import ProvideConfig
from p2p.console import Session
from p2p.foreign import translated
from p2p.home import Home
from p2p.owner import Owner
from p2p.protocol.price import FREE
from p2p.protocol.sales import PriceList
from p2p.protocol.standing import StandingLimits
from p2p.protocol.strategy import FixedPrice
from p2p.provider import Provider
from p2p.story import short
from p2p.strategies import seller_strategy
from p2p.takings import Takings
from p2p.trace import Trace, among
from p2p.wiring import Node, fund, open_node, provided_spec


async def run(session: Session, open_engine: Callable[[Spec], AbstractAsyncContextManager[Engine]]) -> None:
    """Raises `p2p.errors`."""
    config = session.config.provide
    price_list = _price_list(config, session.trace)
    spec, owner = provided_spec(config), Owner(config.manners, session.trace)
    network, home = session.network(), Home(session.config, "payee")
    if network.unpaid:
        price_list = PriceList(FixedPrice(FREE), window_cap_nano=1)
    # Asked before anything runs: while somebody types, nothing else goes on here.
    key = None if network.unpaid else await home.unlock(network.chain_network, session.terminal)
    with translated():
        async with open_engine(spec) as engine:
            session.story.say("Loading the model and measuring its speed …")
            measured = {model.id: await measure(engine, model.id) for model in engine.models()}
            async with open_node(session, network, home, key, session.config.listen) as node:
                if session.options.faucet:
                    await fund(node.network, node.ledger.wallet.address)
                takings = Takings(time.time, await provider_table.sold_before(node.keeper, time.time()))
                provider = Provider(
                    host=node.host,
                    engine=engine,
                    measured=measured,
                    ledger=node.ledger,
                    keeper=node.keeper,
                    identity=node.identity,
                    payee_key=node.channel_key,
                    price_list=price_list,
                    deposit_min_nano=config.deposit_min_nano,
                    challenge_period_s=config.challenge_period_s,
                    settle_policy=config.settle_policy,
                    allowance=config.allowance,
                    pause=owner.pause,
                    went_out=takings.went_out,
                    clock=time.time,
                    trace=among(session.trace, takings),
                )
                await _serve(session, _Shop(engine, measured, node, provider, owner, takings))


def _price_list(config: ProvideConfig, trace: Trace) -> PriceList:
    return PriceList(
        seller_strategy(config, trace),
        config.window_cap_nano,
        config.prices_least,
        config.prices_least_standing,
        StandingLimits(config.standing_percent, config.standing_max_s),
    )


@dataclass(frozen=True)
class _Shop:
    """A provider, and what there is to tell of it."""

    engine: Engine
    measured: Mapping[str, Measured]
    node: Node
    provider: Provider
    owner: Owner
    takings: Takings

    def look(self) -> provider_table.Snapshot:
        """As it is now."""
        return provider_table.Snapshot(
            models=[model.id for model in self.engine.models()],
            slots=self.engine.capacity().total,
            answering=self.provider.answering,
            sold=self.takings.sold(),
            peers=sum(not peer.banned for peer in self.node.host.peers()),
            pause=self.owner.pause(),
            gpus=self.owner.gpus,
        )


async def _serve(session: Session, shop: _Shop) -> None:
    """Until the first signal; then what is under way may end, for a while."""
    provider, drain_s = shop.provider, session.config.provide.drain_s
    async with open_background() as background:
        await background.start(shop.owner.watch)
        await background.start(provider.run)
        async with peers_seen.kept_up_to_date(Home(session.config, "payee").folder, shop.node.host):
            _tell_ready(session, shop)
            session.up.set()
            background.start_soon(provider_table.kept_up_to_date, session, shop.look)
            await session.interrupt.first()
            shop.owner.stop()
            if provider.answering:
                session.trace("draining", answers=provider.answering, within_s=drain_s)
            with trio.move_on_after(drain_s):
                await provider.drained()
            session.interrupt.everything.cancel()


def _tell_ready(session: Session, shop: _Shop) -> None:
    host, address = shop.node.host, shop.node.ledger.wallet.address
    session.trace("ready", peer=host.peer, addresses=list(host.addresses()), wallet=address)
    for model, speed in shop.measured.items():
        session.story.say(f"Serving {model}: {speed.ttft_ms} ms to the first token, {speed.tokens_per_s} tokens/s.")
    paid = f"paid to {address}" if address else "and nothing is paid on this network"
    session.story.say(f"I am {short(host.peer)}, {paid}. Ctrl-C ends it.")
