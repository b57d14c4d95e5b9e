"""The HTTP application: which path leads where, and what every request has to pass first."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from inference.engine import Request
from inference.nursery import open_background
from p2p.buying import prompt_tokens_bound
from p2p.errors import Error
from p2p.gateway.accounts import Accounts
from p2p.gateway.answering import Answering
from p2p.gateway.bodies import SEEDS
from p2p.gateway.buying import Buying
from p2p.gateway.calls import Call, Defaults, Dialect
from p2p.gateway.catalogue import Catalogue, as_openai
from p2p.gateway.chat import read_chat
from p2p.gateway.completions import read_completion
from p2p.gateway.doors import OWN, Doorkeeper, Guard, Rules, text_headers
from p2p.gateway.embeddings import read_embeddings
from p2p.gateway.failures import Failure, failure_of, invalid
from p2p.gateway.keys import Key, Keys
from p2p.gateway.metadata import EXPOSED
from p2p.gateway.responses import read_response
from p2p.gateway.wire import Left, Wire, cancel_when_left, drain, read_body
from p2p.gateway.wishes import wishes_of

ANSWER_ID_BYTES = 12

Reader = Callable[[bytes, Defaults], tuple[Call, Dialect]]
"""The JSON of a request -> what is wanted, and how the answer is said. Raises `Rejected`."""

T = TypeVar("T")


class Generation:
    """An endpoint that generates: an ASGI application."""

    def __init__(self, read: Reader, catalogue: Catalogue, buying: Buying, max_tokens: int) -> None:
        """`max_tokens` are for an answer of which the caller does not say how long it may be."""
        self._read = read
        self._catalogue = catalogue
        self._buying = buying
        self._max_tokens = max_tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wire = Wire(send)
        try:
            body = await read_body(scope, receive)
            self._buying.admit(scope["state"]["key"])
            async with open_background() as background:
                background.start_soon(cancel_when_left, receive, background.cancel_scope)
                await self._answer(body, scope, wire)
        except Left:
            return
        except Error as error:
            await wire.fail(failure_of(error))

    async def _answer(self, body: bytes, scope: Scope, wire: Wire) -> None:
        key: Key = scope["state"]["key"]
        wishes = wishes_of(body, text_headers(scope))
        answer_id = secrets.token_hex(ANSWER_ID_BYTES)
        call, dialect = self._read(body, Defaults(secrets.randbelow(SEEDS), answer_id, int(time.time())))
        if key.may.models and call.model not in key.may.models:
            raise invalid("this key is not for that model", param="model", code="model_not_allowed", status=403)
        offers = await self._catalogue.require(call.model)
        context = max(offer.context for offer in offers)
        ask = partial(self._buying.ask, key, wishes)
        answering = Answering(call.limited(partial(self._room, context)), ask, self._buying.audits, answer_id)
        await (answering.stream if call.stream else answering.whole)(wire, dialect, wishes.timeout_s)

    def _room(self, context: int, request: Request) -> int:
        """As long as an answer may be, and still fits behind this prompt."""
        return max(1, min(self._max_tokens, context - prompt_tokens_bound(request)))


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), status, headers, "application/json")


def answering_errors(
    endpoint: Callable[[HttpRequest], Awaitable[Any]],
) -> Callable[[HttpRequest], Awaitable[Response]]:
    """An endpoint that returns plain values or raises `Error`, as one that returns JSON."""

    async def serve(request: HttpRequest) -> Response:
        try:
            return json_response(await endpoint(request))
        except Error as error:
            failure = failure_of(error)
            return json_response(failure.body, failure.status, failure.headers)

    return serve


async def not_found(request: HttpRequest, _error: Exception) -> Response:
    await drain(request.receive)
    failure = Failure(404, "invalid_request_error", "unknown_url", "there is nothing here")
    return json_response(failure.body, 404)


async def wrong_method(request: HttpRequest, error: Exception) -> Response:
    await drain(request.receive)
    failure = Failure(405, "invalid_request_error", "method_not_allowed", "not with this method")
    return json_response(failure.body, 405, getattr(error, "headers", None))


async def broken(_request: HttpRequest, _error: Exception) -> Response:
    failure = Failure(500, "server_error", "gateway_failed", "the gateway has failed; its log says why")
    return json_response(failure.body, 500, failure.headers)


def v1_routes(catalogue: Catalogue, buying: Buying, max_tokens: int, began_at: int) -> list[Route]:
    """What OpenAI's clients call."""

    async def models(_request: HttpRequest) -> Any:
        known = await catalogue.models()
        return {"object": "list", "data": [as_openai(model, offers, began_at) for model, offers in known.items()]}

    async def model(request: HttpRequest) -> Any:
        name = request.path_params["model"]
        return as_openai(name, await catalogue.require(name), began_at)

    return [
        Route("/v1/models", answering_errors(models)),
        Route("/v1/models/{model:path}", answering_errors(model)),
        *(
            Route(path, Generation(read, catalogue, buying, max_tokens), methods=["POST"])
            for path, read in READERS.items()
        ),
    ]


def api_routes(accounts: Accounts) -> list[Route]:
    """What the page shows, and what any other program may ask for as well."""

    async def receipts(request: HttpRequest) -> Any:
        limit = request.query_params.get("limit", "50")
        if not limit.isdecimal() or len(limit) > 9:
            raise invalid("limit must be a number", param="limit")
        return await accounts.receipts(int(limit))

    async def allowance(request: HttpRequest) -> Any:
        return await accounts.allowance(request.scope["state"]["key"])

    async def close_channel(request: HttpRequest) -> Any:
        return await accounts.close_channel(request.path_params["channel"])

    looks: dict[str, Callable[[], Awaitable[Any]]] = {
        "providers": accounts.providers,
        "channels": accounts.channels,
        "budget": accounts.budget,
        "earnings": accounts.earnings,
    }

    def look(what: Callable[[], Awaitable[Any]]) -> Callable[[HttpRequest], Awaitable[Any]]:
        async def serve(_request: HttpRequest) -> Any:
            return await what()

        return serve

    return [
        *(Route(f"/api/{name}", answering_errors(look(what))) for name, what in looks.items()),
        Route("/api/receipts", answering_errors(receipts)),
        Route(OWN, answering_errors(allowance)),
        Route("/api/channels/{channel}/close", answering_errors(close_channel), methods=["POST"]),
    ]


def application(routes: Sequence[BaseRoute], rules: Rules, keys: Keys) -> Starlette:
    """All of it, as an ASGI application."""
    handlers = {404: not_found, 405: wrong_method, 500: broken}
    return Starlette(
        routes=routes,
        middleware=[
            Middleware(Guard, rules),
            Middleware(
                CORSMiddleware,
                allow_origins=list(rules.origins),
                allow_methods=["GET", "POST"],
                allow_headers=["*"],
                expose_headers=EXPOSED,
            ),
            Middleware(Doorkeeper, keys),
        ],
        exception_handlers=handlers,
    )


READERS: Mapping[str, Reader] = {
    "/v1/chat/completions": read_chat,
    "/v1/completions": read_completion,
    "/v1/responses": read_response,
    "/v1/embeddings": read_embeddings,
}
