"""Cures for the faults of libp2p 0.8.1 that an open network cannot live with.

Here are those that need no class of ours. The larger ones have their own modules: the session and the muxer (`noise`,
`muxer`: broken by cancellation, no enforced flow control, no keep-alive), who may connect and open streams (`gate`,
`intake`), the mesh and what is read from it (`mesh`, `gossip_reader`), and the DHT (`dht`).
"""

from __future__ import annotations

import logging
import resource
from collections.abc import Awaitable, Callable
from typing import Any

import libp2p.network.connection.swarm_connection as swarm_connection
import libp2p.network.swarm as swarm
import libp2p.protocol_muxer.multiselect_communicator as multiselect_communicator
import trio
from libp2p.exceptions import ParseError
from libp2p.io.trio import TrioTCPStream
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.rcmgr.connection_limits import ConnectionLimits
from libp2p.rcmgr.manager import ResourceLimits, ResourceManager
from libp2p.tools.anyio_service.trio_manager import TrioManager
from libp2p.utils.varint import read_varint_prefixed_bytes_limited

from p2p.net.muxer import YamuxNegotiation
from p2p.net.selecting import SelectAtOnce

MAX_CONNECTIONS = 2048  # in and out; those that come in have their own limits (`arrivals`)
MAX_CONNECTIONS_PER_PEER = 8  # the processes of one client share its identity
UPGRADE_TIMEOUT_S = 10.0  # for the handshakes of a new connection, and of a new stream
MAX_PROTOCOL_BYTES = 1024  # of one line of a negotiation, as in js-libp2p
_UNLIMITED = 1 << 31

_log = logging.getLogger(__name__)


def connection_config() -> ConnectionConfig:
    """Limits for the swarm. Fault: `max_connections - min_connections` is the cap on inbound connections."""
    return ConnectionConfig(
        max_connections=MAX_CONNECTIONS,
        min_connections=0,
        low_watermark=0,
        high_watermark=MAX_CONNECTIONS,
        max_connections_per_peer=MAX_CONNECTIONS_PER_PEER,
        inbound_upgrade_timeout=UPGRADE_TIMEOUT_S,
        outbound_upgrade_timeout=UPGRADE_TIMEOUT_S,
        inbound_stream_protocol_negotiation_timeout=UPGRADE_TIMEOUT_S,
        outbound_stream_protocol_negotiation_timeout=UPGRADE_TIMEOUT_S,
    )


def resource_manager() -> ResourceManager:
    """Limits that cannot be turned against us.

    Fault: the stock manager counts all peers' streams together, so 40 peers can take the places of all others; and a
    connection that is cut off in its handshake is counted for ever. So it counts without limits, and we limit
    (`arrivals`, `tally`). Its "graceful degradation" and circuit breaker shut the node to everyone when a stranger
    fills a limit.
    """
    return ResourceManager(
        limits=ResourceLimits(max_connections=_UNLIMITED, max_streams=_UNLIMITED),
        connection_limits=ConnectionLimits(max_established_per_peer=2 * MAX_CONNECTIONS_PER_PEER),
        enable_metrics=False,
        enable_rate_limiting=False,  # it remembers a thousand peers, with a history each
        enable_circuit_breaker=False,
        enable_graceful_degradation=False,
    )


class _NoAutoConnector(AutoConnector):
    """Fault: the stock one dials every peer that was ever heard of, up to the mean of the watermarks, even if one is 0.

    Started or not, it would remember every peer that left.
    """

    async def start(self) -> None:
        pass

    def record_disconnect(self, peer_id: Any) -> None:
        pass


def guard(host: Any) -> None:
    """Cure a `BasicHost` that does not run yet."""
    network = host.get_network()
    host.multiselect_client = SelectAtOnce()
    network.upgrader.muxer_multistream = YamuxNegotiation()
    network.auto_connector = _NoAutoConnector(swarm=network)
    network.retry_config = RetryConfig(max_retries=0)  # whoever dials knows better when to try again


def guard_process() -> int:
    """Cure what 0.8.1 keeps in its modules, for every host in the process. May be called often.

    Returns how many files the process may open: as many as the system allows it to ask for.
    """
    # Fault: after a dial that succeeded, the swarm waits its "happy eyeballs" delay for a failure that never comes.
    swarm._HAPPY_EYEBALLS_DELAY = 0.0
    # A peer's misbehaviour is not news to the operator; the library logs much of it as error or warning.
    logging.getLogger("libp2p").setLevel(logging.CRITICAL)
    swarm_connection.SwarmConn._add_stream = _add_stream_whole
    TrioTCPStream.get_remote_address = _remote_address
    multiselect_communicator.read_delim = _read_line
    TrioManager.run_task = _run_task
    # Fault: this module logs to the root logger, which also installs a handler on it that prints to stderr.
    swarm_connection.logging = logging.getLogger("libp2p.network.connection")
    _, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, allowed))
    return allowed


_add_stream = swarm_connection.SwarmConn._add_stream
_stock_remote_address = TrioTCPStream.get_remote_address


def _remote_address(stream: Any) -> tuple[str, int] | None:
    """Fault: the library's own way to ask knows no IPv6, whose answer has four parts."""
    try:
        host, port, *_ = stream.stream.socket.getpeername()
    except (OSError, ValueError):  # it has gone already, or is of no network
        return None
    return host, port


_stock_run_task = TrioManager.run_task


def _run_task(
    manager: Any,
    do: Callable[..., Awaitable[Any]],
    *args: Any,
    daemon: bool = False,
    name: str | None = None,
    _internal: bool = False,
) -> None:
    """Start one of the many tasks that the library has for each peer, connection and stream.

    Fault: whatever one of them raises ends the host. Fault: no task may have started more than a thousand that still
    run, or the host ends as well, and one task starts those of all peers that gossip. Each start looks through all.
    """
    if daemon or _internal:  # few, and the host is nothing without them
        _stock_run_task(manager, do, *args, daemon=daemon, name=name, _internal=_internal)
    elif manager.is_running:
        manager._task_nursery.start_soon(_contained, do, args, name=name)


async def _contained(do: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> None:
    try:
        await do(*args)
    except Exception as error:
        _log.debug("a task of the library failed: %r", error)


async def _read_line(reader: Any) -> bytes:
    """One line of a negotiation, without its end.

    Fault: the library asks the socket for as many bytes at once as the line claims to have, terabytes if it says so,
    and gathers what comes of them.
    """
    line: bytes = await read_varint_prefixed_bytes_limited(reader, MAX_PROTOCOL_BYTES)
    if not line.endswith(b"\n"):
        raise ParseError("a line of the negotiation has no end")
    return line[:-1]


async def _add_stream_whole(connection: Any, muxed_stream: Any) -> Any:
    """Fault: a stream whose opening is cancelled here stays open at both ends, known to nobody."""
    with trio.CancelScope(shield=True):  # nothing in it waits for the peer
        return await _add_stream(connection, muxed_stream)
