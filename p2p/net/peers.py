"""Who is connected and who is banned, as the seam shows it."""

from __future__ import annotations

import time
from collections.abc import Container, Mapping, Sequence
from typing import Any

import trio
from libp2p.rcmgr import Direction

from p2p.host import PeerPath, PeerState
from p2p.net.conduct import Ban
from p2p.net.stream import is_relayed


def peer_states(network: Any, bans: Mapping[str, Ban], punched: Container[Any]) -> Sequence[PeerState]:
    """Everyone that a swarm has to do with, or nothing to do with; in the order of their ids.

    `punched` has the muxed connections that go through a hole.
    """
    connected = network.get_connections_map().items()
    states = {str(peer): _connected(str(peer), connections, punched) for peer, connections in connected if connections}
    for peer, ban in bans.items():
        state = states.get(peer, PeerState(peer))
        states[peer] = state._replace(banned=ban.why, banned_s=ban.until - trio.current_time())
    return [states[peer] for peer in sorted(states)]


def _connected(peer: str, connections: Sequence[Any], punched: Container[Any]) -> PeerState:
    direct = [one for one in connections if not is_relayed(one)]
    round_trips = [one.muxed_conn.core.rtt_s for one in direct or connections]
    return PeerState(
        peer,
        addresses=tuple(dict.fromkeys(str(each) for one in connections for each in one.get_transport_addresses())),
        inbound=all(one.direction is Direction.INBOUND for one in connections),
        path=_path(direct, punched),
        connected_s=time.time() - min(one._created_at for one in connections),
        rtt_ms=min((max(1, round(1000 * each)) for each in round_trips if each is not None), default=None),
    )


def _path(direct: Sequence[Any], punched: Container[Any]) -> PeerPath:
    if not direct:
        return "relayed"
    return "punched" if all(one.muxed_conn in punched for one in direct) else "direct"
