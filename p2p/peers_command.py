"""`peers` on the command line: who is there, how found, how far away, by which path, and who is shut out and why."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass

from rich.markup import escape

from p2p import peers_seen
from p2p.console import Session
from p2p.discovery import Directory
from p2p.errors import Unavailable
from p2p.host import Host, PeerState
from p2p.keys import verify_by_peer
from p2p.network_file import NetworkFile
from p2p.story import short

STALE_S = 3 * peers_seen.WRITE_EVERY_S


@dataclass(frozen=True)
class Row:
    """A peer as it is shown."""

    peer: str
    found: str  # how: bootstrap, provider (by the DHT and its own advert), server (of the DHT), or it came to us
    path: str = ""  # direct or relayed; empty where there is no connection
    rtt_ms: int | None = None
    connected_s: int | None = None
    addresses: Sequence[str] = ()
    sells: Sequence[str] = ()
    banned: str = ""  # why
    banned_s: int = 0  # for how much longer


OpenHost = Callable[[NetworkFile], AbstractAsyncContextManager[Host]]


async def run(session: Session, open_host: OpenHost) -> None:
    """Look around as a client; with `--provider`, what the one that runs on this home sees. Raises `p2p.errors`."""
    if session.role == "payee":
        seen = peers_seen.read(session.home().folder)
        age_s = time.time() - seen.at
        if age_s > STALE_S:
            session.story.say(f"[yellow]The provider seems to have crashed: this is from {age_s:.0f} s ago.[/]")
        rows = [_row(state, "it came to us" if state.inbound else "server") for state in seen.peers]
    else:
        rows = await _look_around(session.network(), open_host)
    if session.options.json:
        session.print_json([asdict(row) for row in rows])
    elif not rows:
        session.story.say("Nobody.")
    else:
        session.story.columns(HEADINGS, [_cells(row) for row in rows])


async def _look_around(network: NetworkFile, open_host: OpenHost) -> list[Row]:
    async with open_host(network) as host:
        directory = Directory(host, network=network.mark.name, verify=verify_by_peer, clock=time.time)
        try:
            sellers = {one.peer: one for one in await directory.find(None)}
        except Unavailable:
            sellers = {}
        states = {state.peer: state for state in host.peers()}
    bootstraps = {address.rpartition("/p2p/")[2] for address in network.bootstraps}
    rows = []
    for peer in sorted(states.keys() | sellers.keys()):
        found = "bootstrap" if peer in bootstraps else "provider" if peer in sellers else "server"
        row = _row(states.get(peer, PeerState(peer)), found)
        if peer in sellers:
            row = _selling(row, tuple(model.id for model in sellers[peer].advert.models), sellers[peer].rtt_ms)
        rows.append(row)
    return rows


def _selling(row: Row, models: Sequence[str], probe_ms: int) -> Row:
    rtt_ms = probe_ms if row.rtt_ms is None else row.rtt_ms
    return Row(**{**asdict(row), "sells": models, "rtt_ms": rtt_ms})


def _row(state: PeerState, found: str) -> Row:
    return Row(
        state.peer,
        found,
        path=state.path or "",
        rtt_ms=state.rtt_ms,
        connected_s=None if state.connected_s is None else round(state.connected_s),
        addresses=state.addresses,
        banned=state.banned,
        banned_s=round(state.banned_s),
    )


HEADINGS = ("peer", "found", "path", "rtt", "connected", "note")


def _cells(row: Row) -> tuple[str, ...]:
    note = f"shut out for {row.banned_s} s more: {row.banned}" if row.banned else ", ".join(row.sells)
    return (
        short(row.peer),
        row.found,
        row.path or "-",
        "-" if row.rtt_ms is None else f"{row.rtt_ms} ms",
        "-" if row.connected_s is None else f"{row.connected_s} s",
        escape(note),
    )
