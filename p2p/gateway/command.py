"""`gateway` on the command line: serve until told to stop."""

from __future__ import annotations

import trio

from p2p.console import Session
from p2p.gateway.serving import open_gateway
from p2p.peer import LightPeer
from p2p.wiring import Node


async def serve(session: Session, node: Node, peer: LightPeer, *, free: bool) -> None:
    """Say where it is, and serve. Raises `LocalError`."""
    async with open_gateway(session.config, node, peer, free=free) as url:
        session.trace("ready", url=url, base_url=f"{url}/v1")
        session.story.say(f"OpenAI's clients find their base_url at {url}/v1, and need any api_key.")
        session.story.say("Ctrl-C ends it.")
        session.up.set()
        await trio.sleep_forever()
