"""Where the page is a Telegram Mini App, only users that are named get past it, by what Telegram signed for them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import trio
from starlette.types import ASGIApp, Receive, Scope, Send

from p2p.errors import Error, LocalError
from p2p.gateway.doors import KEPT, text_headers
from p2p.gateway.failures import failure_of, invalid
from p2p.gateway.keys import ANYBODY, Keys
from p2p.gateway.telegram import user_of
from p2p.gateway.wire import Wire, drain

SCHEME = "tma"  # of the Authorization header, as Mini Apps have it


def read_token(file: str) -> str:
    """The bot's token. Raises `LocalError`."""
    path = Path(file).expanduser()
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise LocalError(f"the setting gateway.telegram_token_file is wrong: {path} cannot be read") from None
    if not token:
        raise LocalError(f"{path} is empty: put into it the token that Telegram's BotFather gave your bot")
    return token


class MiniApp:
    """An ASGI middleware: whoever asks for anything but the page itself is one of `users`, or has one of the `keys`."""

    def __init__(
        self, app: ASGIApp, keys: Keys, token: str, users: Collection[int], clock: Callable[[], float]
    ) -> None:
        """`clock` gives unix seconds. Raises `LocalError` where nobody is named: Telegram's users are everybody."""
        if not users:
            raise LocalError("say whose Telegram accounts may spend your money: gateway.telegram_users, by their ids")
        self._app = app
        self._keys = keys
        self._token = token
        self._users = users
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(KEPT):
            try:
                await self._check(scope)
            except Error as error:
                await drain(receive)
                await Wire(send).fail(failure_of(error))
                return
        await self._app(scope, receive, send)

    async def _check(self, scope: Scope) -> None:
        scheme, _, init_data = text_headers(scope).get("authorization", "").partition(" ")
        if scheme.lower() == SCHEME:
            if (user := user_of(init_data, self._token, self._clock())) not in self._users:
                why = f"the Telegram account {user} is not named in gateway.telegram_users"
                raise invalid(why, code="key_not_allowed", status=403)
            scope.setdefault("state", {})["key"] = ANYBODY
        # Without keys the machine itself would be let in, and a proxy's requests come from it.
        elif not await trio.to_thread.run_sync(self._keys.all):
            raise invalid("open this page in Telegram", code="invalid_api_key", status=401)
