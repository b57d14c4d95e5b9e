"""What a request has to pass before it is looked at: the rules for web browsers, and the keys."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import trio
from starlette.types import ASGIApp, Receive, Scope, Send

from p2p.errors import Error
from p2p.gateway import origins
from p2p.gateway.failures import Failure, failure_of, invalid
from p2p.gateway.keys import Key, Keys
from p2p.gateway.wire import Wire, drain

MANAGED = "/api/"
OWN = "/api/allowance"
"""What every caller may see: what is left to it."""
KEPT = ("/v1/", MANAGED)
"""Paths behind the door; what is outside is the same for everybody, and costs nothing."""


@dataclass(frozen=True)
class Rules:
    """Who may call."""

    hosts: Collection[str] = ()  # names that the gateway goes by
    origins: Collection[str] = ()  # web pages that may call from a browser


class Guard:
    """Turns away what a web browser should not have sent. An ASGI middleware."""

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self._app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (failure := self._objection(scope)):
            await drain(receive)
            await Wire(send).fail(failure)
            return
        await self._app(scope, receive, send)

    def _objection(self, scope: Scope) -> Failure | None:
        given, rules = text_headers(scope), self._rules
        return origins.objection(given.get("host", ""), given.get("origin"), names=rules.hosts, origins=rules.origins)


class Doorkeeper:
    """Asks for a key where there are keys, and lets in its holder, or who is known already. An ASGI middleware."""

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(KEPT) and "key" not in scope.get("state", {}):
            try:
                scope.setdefault("state", {})["key"] = await self._key(scope)
            except Error as error:
                await drain(receive)
                await Wire(send).fail(failure_of(error))
                return
        await self._app(scope, receive, send)

    async def _key(self, scope: Scope) -> Key:
        scheme, _, secret = text_headers(scope).get("authorization", "").partition(" ")
        given = secret.strip() if scheme.lower() == "bearer" else None
        key = await trio.to_thread.run_sync(self._keys.find, given)
        if key is None:
            raise invalid("send a key of this gateway: Authorization: Bearer bx-…", code="invalid_api_key", status=401)
        if scope["path"].startswith(MANAGED) and scope["path"] != OWN and not key.may.manage:
            raise invalid("this key may not see the accounts", code="key_not_allowed", status=403)
        return key


def text_headers(scope: Scope) -> Mapping[str, str]:
    """By name in lower case."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
