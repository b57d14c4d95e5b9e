"""A gateway in front of a light peer."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from inference.engine import Request
from p2p.config import Config
from p2p.errors import LocalError
from p2p.failover import LastingAnswer
from p2p.gateway.accounts import Accounts
from p2p.gateway.app import Rules, api_routes, application, v1_routes
from p2p.gateway.catalogue import Catalogue
from p2p.gateway.origins import is_loopback
from p2p.gateway.server import open_server, split_address
from p2p.gateway.webpage import page_routes
from p2p.peer import LightPeer
from p2p.wiring import Node


@asynccontextmanager
async def open_gateway(config: Config, node: Node, peer: LightPeer, *, free: bool) -> AsyncIterator[str]:
    """Serve until the context is left; yields the URL. Where it is `free`, nothing is ever paid.

    Raises `LocalError`.
    """
    settings = config.gateway
    host, _ = split_address(settings.listen)
    if not is_loopback(host):
        raise LocalError("without keys a gateway serves this machine only: listen at 127.0.0.1")
    catalogue = Catalogue(peer)
    accounts = Accounts(peer, catalogue, node.keeper, node.ledger, config, node.network, free)

    def ask(request: Request) -> AbstractAsyncContextManager[LastingAnswer]:
        return peer.ask(request, free=free)

    routes = [
        *v1_routes(catalogue, ask, settings.max_tokens, int(time.time())),
        *api_routes(accounts),
        *page_routes(in_telegram=False),
    ]
    async with open_server(application(routes, Rules(settings.hosts, settings.origins)), settings.listen) as url:
        yield url
