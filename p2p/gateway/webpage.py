"""The web page at `/`: files that are built from `page/`, and what a browser is told not to let them do."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

ASSETS = Path(__file__).parent / "assets"
KINDS = {
    "index.html": "text/html; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
TELEGRAM_WEB = "https://web.telegram.org"  # where its client for browsers is, which shows Mini Apps in a frame


def security_headers(*, in_telegram: bool) -> Mapping[str, str]:
    """Everything comes from here and goes nowhere else; no text becomes code or markup; only Telegram may frame it."""
    framed_by = TELEGRAM_WEB if in_telegram else "'none'"
    policy = (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        f"frame-ancestors {framed_by}",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
    return {
        "content-security-policy": "; ".join(policy),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-resource-policy": "same-origin",
        "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    }


def page_routes(*, in_telegram: bool) -> Sequence[Route]:
    """The page and its parts."""
    return [_file("/" if name == "index.html" else f"/{name}", name, in_telegram=in_telegram) for name in KINDS]


def _file(path: str, name: str, *, in_telegram: bool) -> Route:
    content = (ASSETS / name).read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    # Looked for anew each time, so that a page never outlives the gateway that it is made for.
    headers = {**security_headers(in_telegram=in_telegram), "cache-control": "no-cache", "etag": tag}

    async def serve(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=KINDS[name])

    return Route(path, serve)
