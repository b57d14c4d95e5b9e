"""Pure: which requests of web browsers are served.

Any web page can have its reader's browser send requests to this machine. Two rules keep it from spending money here:
a page of another origin must be named in the configuration, and the host that was asked for must be an address, which
no page can make its own name point to (DNS rebinding), or a name that is ours.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from p2p.gateway.failures import Failure

ANY = "*"


def objection(host: str, origin: str | None, *, names: Collection[str], origins: Collection[str]) -> Failure | None:
    """Why a request with these `Host` and `Origin` headers is not served; `None` if it is.

    `names` are those that we go by besides `localhost`, and `origins` the web pages that may call.
    """
    name = hostname(host)
    if not (name == "localhost" or name in names or is_address(name)):
        return Failure(421, "invalid_request_error", "unknown_host", "not a name of this gateway: see gateway.hosts")
    if origin is None or ANY in origins or origin in origins or _same(origin, host):
        return None
    return Failure(403, "invalid_request_error", "foreign_origin", "that web page may not call: see gateway.origins")


def hostname(host: str) -> str:
    """Without the port, and an IPv6 address without its brackets."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower().rstrip(".")


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(name: str) -> bool:
    """Whether only this machine can be there."""
    return name == "localhost" or (is_address(name) and ipaddress.ip_address(name).is_loopback)


def _same(origin: str, host: str) -> bool:
    """The page that we serve ourselves. Behind a proxy that speaks TLS its scheme is another than ours."""
    return origin.lower() in {f"http://{host}".lower(), f"https://{host}".lower()}
