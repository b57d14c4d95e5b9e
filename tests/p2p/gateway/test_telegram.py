"""Data as Telegram signs it for Mini Apps, made here with its documented recipe in other means."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from p2p.errors import LocalError
from p2p.gateway.app import application
from p2p.gateway.doors import Rules
from p2p.gateway.failures import Rejected
from p2p.gateway.keys import Capabilities, Keys
from p2p.gateway.mini_app import MiniApp, read_token
from p2p.gateway.telegram import EARLY_S, LIFE_S, MAX_BYTES, user_of

TOKEN = "7342037359:AAHI25ES9xCOMPokpYoz-p8XVrZUdygo2J4"
SIGNED_AT = 1_795_400_000


def signed(token: str = TOKEN, **fields: object) -> str:
    given = {"auth_date": str(SIGNED_AT), "query_id": "AAHdF6IQ", "user": json.dumps({"id": 279058397})}
    given |= {name: str(value) for name, value in fields.items()}
    key = hmac.new(b"WebAppData", token.encode(), hashlib.sha256).digest()
    lines = "\n".join(f"{name}={given[name]}" for name in sorted(given))
    return urlencode({**given, "hash": hmac.new(key, lines.encode(), hashlib.sha256).hexdigest()}, quote_via=quote)


def test_a_user_is_known_by_what_telegram_signed() -> None:
    assert user_of(signed(), TOKEN, SIGNED_AT + 5) == 279058397
    named = {"id": 7, "first_name": "Vladislav & Ко=?", "photo_url": "https://t.me/i/x.svg"}
    assert user_of(signed(user=json.dumps(named), start_param="", signature="x"), TOKEN, SIGNED_AT) == 7


@pytest.mark.parametrize(
    "init_data",
    [
        "",
        "hash=",
        "nonsense",
        signed("7342037359:another"),
        signed().replace("279058397", "279058398"),
        signed() + "&auth_date=1",
        signed() + "&more=1",
        signed().rpartition("&")[0],
        signed(user="{}"),
        signed(user="7"),
        signed(auth_date="soon"),
        signed(more="x" * MAX_BYTES),
        signed()[:-1] + "é",
    ],
)
def test_what_telegram_did_not_sign_lets_nobody_in(init_data: str) -> None:
    with pytest.raises(Rejected) as caught:
        user_of(init_data, TOKEN, SIGNED_AT)
    assert caught.value.failure.status == 401


def test_it_lets_in_for_a_day() -> None:
    assert user_of(signed(), TOKEN, SIGNED_AT + LIFE_S) == user_of(signed(), TOKEN, SIGNED_AT - EARLY_S)
    for now in (SIGNED_AT + LIFE_S + 1, SIGNED_AT - EARLY_S - 1):
        with pytest.raises(Rejected, match="too old"):
            user_of(signed(), TOKEN, now)


def ask_as(folder: Path, authorization: str | None, *, path: str = "/api/budget") -> int:
    """With which status a gateway answers that is a Mini App for the user 279058397."""

    async def served(_request: Request) -> Response:
        return Response()

    keys = Keys(folder, lambda: SIGNED_AT)
    app = application([Route(path, served)], Rules(), keys)
    door = MiniApp(app, keys, TOKEN, (279058397,), lambda: SIGNED_AT)
    with TestClient(door, base_url="http://127.0.0.1", backend="trio") as client:
        headers = {} if authorization is None else {"authorization": authorization}
        return client.get(path, headers=headers).status_code


def test_only_users_that_are_named_get_past_the_page(tmp_path: Path) -> None:
    assert ask_as(tmp_path, f"tma {signed()}") == 200
    assert ask_as(tmp_path, f"tma {signed(user=json.dumps({'id': 5}))}") == 403
    for given in (None, "Bearer any", "tma", f"tma {signed('another')}", signed()):
        assert ask_as(tmp_path, given) == 401
    assert ask_as(tmp_path, None, path="/") == ask_as(tmp_path, None, path="/page.js") == 200


def test_keys_open_it_for_other_programs(tmp_path: Path) -> None:
    key = Keys(tmp_path, lambda: SIGNED_AT).add("program", Capabilities(manage=True))
    assert ask_as(tmp_path, f"Bearer {key}") == ask_as(tmp_path, f"tma {signed()}") == 200
    assert ask_as(tmp_path, None) == ask_as(tmp_path, "Bearer another") == 401


def test_it_is_said_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="telegram_users"):
        MiniApp(Starlette(), Keys(tmp_path, lambda: SIGNED_AT), TOKEN, (), lambda: SIGNED_AT)
    with pytest.raises(LocalError, match="cannot be read"):
        read_token(str(tmp_path / "nowhere"))
    file = tmp_path / "token"
    file.write_text(" \n")
    with pytest.raises(LocalError, match="BotFather"):
        read_token(str(file))
    file.write_text(f"{TOKEN}\n")
    assert read_token(str(file)) == TOKEN
