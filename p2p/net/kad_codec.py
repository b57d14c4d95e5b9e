"""The bytes of kad-dht: protobuf to the core's messages and back.

Every message is the same protobuf, whose `type` says which fields mean something. What cannot be read is a
`RemoteError`; what can be read but is too long or too much is cut to what the core takes.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

from google.protobuf.message import DecodeError
from libp2p.kad_dht.pb import kademlia_pb2 as pb

from p2p.errors import RemoteError
from p2p.protocol.kad_messages import (
    MAX_ADDRESS_BYTES,
    MAX_ADDRESSES,
    MAX_KEY_BYTES,
    MAX_PROVIDERS_TAKEN,
    AddProvider,
    Contact,
    FindNode,
    GetProviders,
    GetValue,
    K,
    Ping,
    Request,
    Response,
)

MAX_REQUEST_BYTES = 8 << 10
MAX_RESPONSE_BYTES = 256 << 10
_MAX_PEER_ID_BYTES = 64

_TYPES: dict[type[Any], Any] = {
    FindNode: pb.Message.FIND_NODE,
    GetProviders: pb.Message.GET_PROVIDERS,
    AddProvider: pb.Message.ADD_PROVIDER,
    GetValue: pb.Message.GET_VALUE,
    Ping: pb.Message.PING,
}


def encode_request(request: Request, me: bytes) -> bytes:
    """`me` is our binary peer id, which an announcement names."""
    message = pb.Message(type=_TYPES[type(request)])
    if not isinstance(request, Ping):
        message.key = request.key
    if isinstance(request, AddProvider):
        message.providerPeers.append(_peer(Contact(me, request.addresses)))
    return bytes(message.SerializeToString())


def decode_request(data: bytes, sender: bytes) -> Request | None:
    """`None` for what this network does not serve: storing values. Raises `RemoteError`."""
    message = _parse(data)
    if message.type == pb.Message.PING:
        return Ping()
    if not 0 < len(message.key) <= MAX_KEY_BYTES:
        raise RemoteError("malformed", "a request without a key, or with a long one")
    match message.type:
        case pb.Message.FIND_NODE:
            return FindNode(message.key)
        case pb.Message.GET_PROVIDERS:
            return GetProviders(message.key)
        case pb.Message.GET_VALUE:
            return GetValue(message.key)
        case pb.Message.ADD_PROVIDER:
            return AddProvider(message.key, _of_sender(message, sender).addresses)
        case pb.Message.PUT_VALUE:
            return None
        case _:
            raise RemoteError("malformed", "a request of an unknown type")


def encode_response(response: Response, request: Request) -> bytes:
    """The answer to `request`."""
    message = pb.Message(type=_TYPES[type(request)])
    if not isinstance(request, Ping):
        message.key = request.key
    message.closerPeers.extend(map(_peer, response.closer))
    message.providerPeers.extend(map(_peer, response.providers))
    return bytes(message.SerializeToString())


def decode_response(data: bytes, request: Request) -> Response:
    """Raises `RemoteError`."""
    message = _parse(data)
    if message.type != _TYPES[type(request)]:
        raise RemoteError("malformed", "the answer to another question")
    return Response(_contacts(message.closerPeers, K), _contacts(message.providerPeers, MAX_PROVIDERS_TAKEN))


def _parse(data: bytes) -> Any:
    message = pb.Message()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise RemoteError("malformed", "not a kad-dht message") from error
    return message


def _of_sender(message: Any, sender: bytes) -> Contact:
    for contact in _contacts(message.providerPeers, MAX_PROVIDERS_TAKEN):
        if contact.peer == sender:
            return contact
    raise RemoteError("not_theirs", "an announcement that does not name its sender")


def _contacts(peers: Iterable[Any], limit: int) -> tuple[Contact, ...]:
    taken = islice((peer for peer in peers if 0 < len(peer.id) <= _MAX_PEER_ID_BYTES), limit)
    return tuple(Contact(peer.id, _addresses(peer.addrs)) for peer in taken)


def _addresses(addresses: Iterable[bytes]) -> tuple[bytes, ...]:
    usable = (address for address in addresses if 0 < len(address) <= MAX_ADDRESS_BYTES)
    return tuple(islice(dict.fromkeys(usable), MAX_ADDRESSES))


def _peer(contact: Contact) -> Any:
    return pb.Message.Peer(id=contact.peer, addrs=contact.addresses)
