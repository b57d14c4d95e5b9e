"""SEAM: what Bombyx asks of a network. `p2p.net` gives it over libp2p; a simulator can give another.

Peer ids are libp2p's base58 strings (`12D3KooW…`); addresses are multiaddr strings that end in `/p2p/<peer id>`.
Foreign exceptions never pass this seam: what fails raises `p2p.errors.Unavailable` (or `LocalError` for a bad
address), and the peer's identity was proven by the transport's handshake before a stream exists.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, NamedTuple, Protocol

from p2p.protocol.reachability import Status

PeerPath = Literal["direct", "relayed", "punched"]
"""How a peer is reached: by a connection of our own, through a relay, which carries what it cannot read, or by a
connection of our own that routers let through because a relay helped."""


class PeerAddress(NamedTuple):
    """A peer and where it was last said to be."""

    peer: str
    addresses: tuple[str, ...]


class PeerState(NamedTuple):
    """A peer that is connected, or with whom we have nothing to do for a while."""

    peer: str
    addresses: tuple[str, ...] = ()  # the other ends of its connections
    inbound: bool = False  # whether it connected to us
    path: PeerPath | None = None  # how the next stream to it would go; `None` if it is not connected
    connected_s: float | None = None  # for how long
    rtt_ms: int | None = None
    banned: str = ""  # why
    banned_s: float = 0.0  # for how much longer


class Reached(NamedTuple):
    """Whether others can dial us, as far as that is known."""

    status: Status
    # Whether all whom we dial from one port see the same one at our router, through which holes can be punched then;
    # `None` until two have said.
    keeps_port: bool | None = None


class Stream(Protocol):
    """One ordered, reliable, encrypted, flow-controlled byte stream to one peer.

    Every method may be cancelled at any point without harm to other streams of the same connection.
    """

    @property
    def peer(self) -> str:
        """The peer id at the other end, proven by the handshake."""
        ...

    @property
    def source(self) -> str:
        """Where the peer's connection comes from, as what is shared out by address counts it.

        That is an IPv4 address, a network of IPv6, or the peer id of the relay that brought it.
        """
        ...

    async def read(self, max_bytes: int) -> bytes:
        """1 to `max_bytes` bytes, or `b""` once the peer has closed its side. Raises `Unavailable` on a reset."""
        ...

    async def write(self, data: bytes) -> None:
        """Queue all of `data`, waiting while the peer's window is full. Raises `Unavailable` on a reset."""
        ...

    async def close(self) -> None:
        """Say that nothing more will be written; reading goes on. Never raises."""
        ...

    async def reset(self) -> None:
        """Abandon both directions at once. Never raises."""
        ...


Handler = Callable[[Stream], Awaitable[None]]
"""Serves one inbound stream. What it raises ends that stream only, never the host; a `RemoteError` is held against the
peer, and who makes many is banned for a while."""

HANDLER_TIMEOUT_S = 60.0


class Verdict(enum.Enum):
    """What becomes of a gossiped payload; the words are GossipSub's."""

    ACCEPT = "accept"  # pass it on
    IGNORE = "ignore"  # not news, or too late: nobody's fault
    REJECT = "reject"  # nobody who looks at it would have passed it on: held against the peer that did


Validator = Callable[[bytes, str], Verdict]
"""(payload, forwarding peer) -> what becomes of it. Takes what it accepts; quick, and raises nothing."""


class Host(Protocol):
    """A running peer on the network."""

    @property
    def peer(self) -> str:
        """Our own peer id."""
        ...

    def addresses(self) -> Sequence[str]:
        """Where others can reach us, as far as that is known: what to tell them. Each ends in `/p2p/<our id>`.

        Empty for a peer that only dials. `p2p.protocol.reachability` has the rule.
        """
        ...

    def reached(self) -> Reached:
        """What others found who tried to dial us."""
        ...

    def listening(self) -> Sequence[str]:
        """Where we listen, on every interface, whether or not the network's others can get there: for neighbours."""
        ...

    async def moved(self, since: Sequence[str]) -> None:
        """Return once `addresses()` is something else than `since`."""
        ...

    def serve(self, protocol: str, handler: Handler, *, timeout_s: float = HANDLER_TIMEOUT_S) -> None:
        """Hand every inbound stream of `protocol` to `handler`, each in its own task, for so long at most."""
        ...

    def peers(self) -> Sequence[PeerState]:
        """Everyone who is connected or banned."""
        ...

    def learn(self, peer: PeerAddress) -> None:
        """Remember addresses for later `open` calls, as hearsay: those that the network cannot use are dropped."""
        ...

    async def connect(self, address: str) -> str:
        """Dial a full address that our operator named, wherever it is, join the DHT there, and return the peer's id."""
        ...

    async def rejoin(self) -> int:
        """Join the DHT through peers known from earlier, and return how many answered."""
        ...

    async def open(self, peer: str, protocol: str) -> Stream:
        """A new stream to `peer`, dialling known or looked-up addresses where there is no connection yet."""
        ...

    async def provide(self, key: str) -> None:
        """Announce in the DHT that we serve `key` (any text; it is hashed). It is forgotten after ten minutes."""
        ...

    async def withdraw(self, key: str) -> None:
        """Take the announcement back, as far as those who keep it can be reached. Quick."""
        ...

    async def find_providers(self, key: str, limit: int) -> Sequence[PeerAddress]:
        """Up to `limit` peers that announced `key`; some may be dead or lying: probe them."""
        ...

    async def publish(self, topic: str, payload: bytes) -> None:
        """Gossip `payload` to the topic's subscribers, as far as they are known."""
        ...

    def subscribe(self, topic: str, validator: Validator) -> AbstractAsyncContextManager[None]:
        """Hand every payload of others on `topic` to `validator` while the context lasts."""
        ...
