"""A gateway in front of a light peer."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import ASGIApp

from p2p.arguments import PROGRAM
from p2p.config import Config
from p2p.errors import LocalError
from p2p.gateway.accounts import Accounts
from p2p.gateway.app import api_routes, application, v1_routes
from p2p.gateway.buying import Buying
from p2p.gateway.catalogue import Catalogue
from p2p.gateway.doors import Rules
from p2p.gateway.keys import Keys
from p2p.gateway.mini_app import MiniApp, read_token
from p2p.gateway.origins import is_loopback
from p2p.gateway.server import open_server, split_address
from p2p.gateway.webpage import page_routes
from p2p.home import Home
from p2p.peer import LightPeer
from p2p.wiring import Node


@asynccontextmanager
async def open_gateway(config: Config, node: Node, peer: LightPeer, *, free: bool) -> AsyncIterator[str]:
    """Serve until the context is left; yields the URL. Where it is `free`, nothing is ever paid.

    Raises `LocalError`.
    """
    settings = config.gateway
    host, _ = split_address(settings.listen)
    keys = Keys(Home(config, "payer").folder, time.time)
    if not is_loopback(host) and not keys.all():
        raise LocalError(f"others than this machine need keys: {PROGRAM} gateway keys add NAME")
    catalogue = Catalogue(peer)
    accounts = Accounts(peer, catalogue, node.keeper, node.ledger, config, node.network, keys, free)
    buying = Buying(peer, keys, day_max_nano=settings.budget_nano_per_day, free=free)
    routes = [
        *v1_routes(catalogue, buying, settings.max_tokens, int(time.time())),
        *api_routes(accounts),
        *page_routes(in_telegram=bool(settings.telegram_token_file)),
    ]
    app: ASGIApp = application(routes, Rules(settings.hosts, settings.origins), keys)
    if settings.telegram_token_file:
        app = MiniApp(app, keys, read_token(settings.telegram_token_file), settings.telegram_users, time.time)
    async with open_server(app, settings.listen) as url:
        yield url
