"""The Trio shell of the Kademlia core: its questions, its answers, its clock, and who comes and goes.

Each question has a stream of its own, which ends with the answer. Whoever is connected and, by identify, a server of
our protocol is shown to the core; clients never are.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import trio
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStoreError
from libp2p.utils.varint import encode_varint_prefixed

from p2p.errors import Error, Refused, RemoteError, Unavailable
from p2p.host import PeerAddress
from p2p.net import kad_codec
from p2p.net.contacts import binary_addresses, origin_of, peer_address
from p2p.net.notices import Notices
from p2p.net.stream import Libp2pStream
from p2p.protocol.kad_messages import AddProvider, Contact, Request, Response
from p2p.protocol.kad_tasks import Result
from p2p.protocol.kademlia import Abandon, Ask, Event, Kademlia
from p2p.protocol.wire import FrameReader

SERVED_STREAM_TIMEOUT_S = 10.0  # from one request to the next
MAX_SERVED_STREAMS = 512
MAX_SERVED_STREAMS_PER_PEER = 64  # as many as js-libp2p opens at a time
MAX_OPERATIONS = 16  # of ours at a time: each asks a server one thing at a time, and js-libp2p takes 32 streams
UNANSWERED_TIMEOUT_S = 5.0
IDENTIFY_TIMEOUT_S = 5.0
MAX_NOTICING = 256
_IDENTIFY_POLL_S = 0.02
_READ_BYTES = 1 << 16

R = TypeVar("R", bound=Result)
Reach = Callable[[PeerAddress], Awaitable[None]]
"""Have a connection to this peer, dialling these addresses if need be. Raises `Unavailable`."""

_log = logging.getLogger(__name__)


class KadDriver:
    """Runs one core for as long as `run` does; of a client, until `be_server` says otherwise."""

    def __init__(self, host: Any, protocol: TProtocol, *, reach: Reach, blame: Callable[[str, str], None]) -> None:
        self._host = host
        self._protocol = protocol
        self._reach = reach
        self._blame = blame
        me = host.get_id().to_bytes()
        self.core = Kademlia(me, server=False, entropy=secrets.token_bytes(32), now=trio.current_time())
        self._nursery: trio.Nursery
        self._sleep = trio.CancelScope()
        self._asking: dict[int, trio.CancelScope] = {}
        self._operations = trio.CapacityLimiter(MAX_OPERATIONS)
        self._results: dict[int, trio.MemorySendChannel[Result]] = {}
        self._served: Counter[str] = Counter()
        self._noticing: set[ID] = set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take part until cancelled."""
        network = self._host.get_network()
        notices = Notices(connected=self._connected, disconnected=self._disconnected)
        network.register_notifee(notices)
        try:
            async with trio.open_nursery() as self._nursery:
                for connection in network.get_connections():
                    self._connected(connection)
                task_status.started()
                while True:
                    with trio.CancelScope(deadline=self.core.deadline()) as self._sleep:
                        await trio.sleep_forever()
                    self.carry_out(self.core.tick(trio.current_time()))
        finally:
            network.remove_notifee(notices)

    async def perform(self, kind: type[R], start: Callable[[float], tuple[int, list[Event]]]) -> R:
        """Start an operation of the core, and wait for its result, which is of this kind."""
        sender, receiver = trio.open_memory_channel[Result](1)
        async with self._operations:
            operation, events = start(trio.current_time())
            self._results[operation] = sender
            try:
                self.carry_out(events)
                result = await receiver.receive()
            finally:
                del self._results[operation]
        assert isinstance(result, kind)
        return result

    def carry_out(self, events: Iterable[Event]) -> None:
        """Do what the core says, and look at its clock again."""
        for event in events:
            match event:
                case Ask():
                    scope = self._asking[event.query] = trio.CancelScope()
                    self._nursery.start_soon(self._ask, event, scope)
                case Abandon(query):
                    self._asking[query].cancel()
                case result:
                    if result.operation in self._results:
                        self._results[result.operation].send_nowait(result)
        self._sleep.deadline = self.core.deadline()

    def be_server(self, is_server: bool) -> None:
        """Answer others' questions from now on, or no longer."""
        if is_server and not self.core.is_server:
            self._host.set_stream_handler(self._protocol, self._serve_stream)
        elif self.core.is_server and not is_server:
            self._host.remove_stream_handler(self._protocol)
        self.core.is_server = is_server

    # Questions

    async def _ask(self, ask: Ask, scope: trio.CancelScope) -> None:
        peer = ID(ask.contact.peer)
        events: list[Event] = []
        with scope:
            try:
                response, origin = await self._exchange(peer, ask)
            except Exception as error:  # whatever it is, this server is of no use now
                _log.debug("asking %s: %r", peer, error)
                if isinstance(error, RemoteError):
                    self._blame(str(peer), error.code)
                events = self.core.failed(ask.query, trio.current_time())
            else:
                now, addresses = trio.current_time(), self._own_words(peer)
                events = self.core.answered(ask.query, response, now, origin=origin, addresses=addresses)
        del self._asking[ask.query]
        self.carry_out(events)

    async def _exchange(self, peer: ID, ask: Ask) -> tuple[Response, str]:
        if all(connection.muxed_conn.is_closed for connection in self._host.get_network().get_connections(peer)):
            await self._reach(peer_address(ask.contact))
        stream = Libp2pStream(await self._host.new_stream(peer, [self._protocol]))
        try:
            me = self.core.me
            await stream.write(
                b"".join(encode_varint_prefixed(kad_codec.encode_request(each, me)) for each in ask.requests)
            )
            response = await self._read_response(stream, ask.requests[-1])
            await stream.close()
        except BaseException:
            await stream.reset()
            raise
        return response, origin_of(stream.remote_ip)

    async def _read_response(self, stream: Libp2pStream, request: Request) -> Response:
        """Our side stays open until it came: js-libp2p resets a stream that ends, and its answer may go with it."""
        if isinstance(request, AddProvider):  # it has no answer
            await stream.drain(UNANSWERED_TIMEOUT_S)
            return Response()
        frames = FrameReader(kad_codec.MAX_RESPONSE_BYTES)
        while data := await stream.read(_READ_BYTES):
            if payloads := frames.feed(data):
                return kad_codec.decode_response(payloads[0], request)
        raise Unavailable("the server closed without an answer")

    # Answers

    async def _serve_stream(self, net_stream: Any) -> None:
        stream = Libp2pStream(net_stream)
        if self._served.total() >= MAX_SERVED_STREAMS or self._served[stream.peer] >= MAX_SERVED_STREAMS_PER_PEER:
            await stream.reset()
            return
        self._served[stream.peer] += 1
        try:
            await self._serve(stream, net_stream.muxed_conn.peer_id.to_bytes())
            await stream.close()
        except (Error, trio.TooSlowError) as error:
            _log.debug("serving %s: %s", stream.peer, error)
            if isinstance(error, RemoteError):
                self._blame(stream.peer, error.code)
            await stream.reset()
        finally:
            self._served -= Counter([stream.peer])  # drops the entry when it reaches zero

    async def _serve(self, stream: Libp2pStream, sender: bytes) -> None:
        frames = FrameReader(kad_codec.MAX_REQUEST_BYTES)
        origin = origin_of(stream.remote_ip)
        while True:
            with trio.fail_after(SERVED_STREAM_TIMEOUT_S):
                data = await stream.read(_READ_BYTES)
                if not data:
                    return
                for payload in frames.feed(data):
                    request = kad_codec.decode_request(payload, sender)
                    if request is None:
                        raise Refused("not_served")
                    response = self.core.receive(sender, origin, request, trio.current_time())
                    if response is not None:
                        await stream.write(encode_varint_prefixed(kad_codec.encode_response(response, request)))
            self._sleep.deadline = self.core.deadline()

    # Who comes and goes

    def _connected(self, connection: Any) -> None:
        """Look who it is; many at a time are met another time."""
        peer = connection.muxed_conn.peer_id
        if peer not in self._noticing and len(self._noticing) < MAX_NOTICING:
            self._noticing.add(peer)
            self._nursery.start_soon(self._notice, peer)

    def _disconnected(self, connection: Any) -> None:
        """Doubt whether the peer lives, unless there is another connection."""
        peer = connection.muxed_conn.peer_id
        if not self._host.get_network().get_connections(peer):
            self.carry_out(self.core.lost(peer.to_bytes(), trio.current_time()))

    async def _notice(self, peer: ID) -> None:
        try:
            with trio.move_on_after(IDENTIFY_TIMEOUT_S):
                while not (protocols := self._protocols_of(peer)):  # noqa: ASYNC110  # identify tells nobody
                    await trio.sleep(_IDENTIFY_POLL_S)
                if self._protocol in protocols and (addresses := self._own_words(peer)):
                    contact = Contact(peer.to_bytes(), addresses)
                    self.carry_out(self.core.noticed(contact, trio.current_time()))
        finally:
            self._noticing.remove(peer)

    def contact(self, peer: ID) -> Contact:
        """A peer and where it is said to be, by itself first if identify has asked it."""
        try:
            return Contact(peer.to_bytes(), binary_addresses(self._host.get_peerstore().addrs(peer), peer))
        except PeerStoreError:
            return Contact(peer.to_bytes(), ())

    def _protocols_of(self, peer: ID) -> list[str]:
        try:
            return list(self._host.get_peerstore().get_protocols(peer))
        except PeerStoreError:
            return []

    def _own_words(self, peer: ID) -> tuple[bytes, ...]:
        """Where a peer says that it is."""
        return () if not self._protocols_of(peer) else self.contact(peer).addresses
