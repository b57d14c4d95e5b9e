"""`gateway` on the command line: serve until told to stop, or say who may call."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import trio

from p2p.console import Session
from p2p.gateway.keys import Capabilities, Keys
from p2p.gateway.serving import open_gateway
from p2p.home import Home
from p2p.peer import LightPeer
from p2p.wiring import Node


async def serve(session: Session, node: Node, peer: LightPeer, *, free: bool) -> None:
    """Say where it is, and serve. Raises `LocalError`."""
    async with open_gateway(session.config, node, peer, free=free) as url:
        session.trace("ready", url=url, base_url=f"{url}/v1")
        session.story.say(f"OpenAI's clients find their base_url at {url}/v1. Ctrl-C ends it.")
        session.up.set()
        await trio.sleep_forever()


def manage_keys(session: Session) -> None:
    """Add a key, list all, or remove one; a gateway that runs goes by it at once. Raises `LocalError`."""
    options = session.options
    keys = Keys(Home(session.config, "payer").folder, time.time)
    match options.keys_action:
        case "add":
            secret = keys.add(options.name, _capabilities(options))
            session.story.say(f"{secret} is the key of {options.name}. It is shown this once.")
            if options.json:
                session.print_json({"name": options.name, "key": secret})
        case "remove":
            keys.remove(options.name)
            session.story.say(f"The key of {options.name} is good for nothing any more.")
        case _:
            _list(session, keys)


def _capabilities(options: Any) -> Capabilities:
    names = (name for name in Capabilities.__struct_fields__ if name not in {"models", "manage"})
    limits = {name: getattr(options, name) for name in names}
    return Capabilities(models=tuple(options.model or ()), manage=options.manage, **limits)


def _list(session: Session, keys: Keys) -> None:
    known = [(key, keys.spent_nano(key.name)) for key in keys.all()]
    if session.options.json:
        session.print_json(
            [{"name": key.name, **msgspec.to_builtins(key.may), "today_nano": nano} for key, nano in known]
        )
        return
    if not known:
        session.story.say("There are no keys: whoever is on this machine may call.")
    for key, nano in known:
        limits = [(name.replace("_", " "), str(value)) for name, value in msgspec.to_builtins(key.may).items()]
        session.story.table(key.name, [*limits, ("spent today", f"{nano:,} nano")])
