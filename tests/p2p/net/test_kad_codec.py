"""kad-dht's bytes: what goes out comes back, and nothing that comes in does harm."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from libp2p.kad_dht.pb import kademlia_pb2 as pb

from p2p.errors import RemoteError
from p2p.net.kad_codec import decode_request, decode_response, encode_request, encode_response
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

ME = bytes.fromhex("002408011220") + bytes(32)
OTHER = bytes.fromhex("002408011220") + bytes([7] * 32)
REQUESTS: list[Request] = [
    Ping(),
    FindNode(b"key"),
    GetProviders(b"key"),
    GetValue(b"key"),
    AddProvider(b"key", (b"here", b"there")),
    AddProvider(b"key", ()),
]


def peer(contact: Contact) -> pb.Message.Peer:
    return pb.Message.Peer(id=contact.peer, addrs=contact.addresses)


@pytest.mark.parametrize("request_", REQUESTS)
def test_what_goes_out_comes_back(request_: Request) -> None:
    assert decode_request(encode_request(request_, ME), ME) == request_
    response = Response((Contact(ME, (b"here",)),), (Contact(OTHER, ()), Contact(ME, (b"a", b"b"))))
    assert decode_response(encode_response(response, request_), request_) == response


def test_the_bytes_on_the_wire() -> None:
    """As the specification's protobuf has them: type 1, key 2, providerPeers 9; of a peer id 1, addrs 2."""
    assert encode_request(FindNode(b"key"), ME).hex() == "0804" + "1203" + b"key".hex()
    assert encode_request(Ping(), ME).hex() == "0805"
    announced = encode_request(AddProvider(b"key", (b"here",)), ME)
    assert announced.hex() == "0802" + "1203" + b"key".hex() + "4a2e" + "0a26" + ME.hex() + "1204" + b"here".hex()


def test_values_are_not_served() -> None:
    assert decode_request(pb.Message(type=pb.Message.PUT_VALUE, key=b"key").SerializeToString(), ME) is None


@pytest.mark.parametrize(
    "message",
    [
        pb.Message(type=pb.Message.FIND_NODE),
        pb.Message(type=pb.Message.GET_PROVIDERS, key=bytes(MAX_KEY_BYTES + 1)),
        pb.Message(type=pb.Message.ADD_PROVIDER, key=b"key"),
        pb.Message(type=pb.Message.ADD_PROVIDER, key=b"key", providerPeers=[pb.Message.Peer(id=OTHER, addrs=[b"x"])]),
        b"\x08\x63\x12\x03key",
        b"\xff",
    ],
)
def test_requests_that_nobody_should_send(message: pb.Message | bytes) -> None:
    with pytest.raises(RemoteError):
        decode_request(message if isinstance(message, bytes) else message.SerializeToString(), ME)


def test_of_too_much_the_first_is_taken() -> None:
    addresses = [b"%d" % number for number in range(100)]
    many = [Contact(OTHER[:-1] + bytes([number % 256]), (b"x",)) for number in range(2 * MAX_PROVIDERS_TAKEN)]
    junk = [Contact(b"", (b"x",)), Contact(bytes(1000), (b"x",))]
    everybody = list(map(peer, junk + many))
    message = pb.Message(type=pb.Message.GET_PROVIDERS, closerPeers=everybody, providerPeers=everybody)
    response = decode_response(message.SerializeToString(), GetProviders(b"key"))
    assert response == Response(tuple(many[:K]), tuple(many[:MAX_PROVIDERS_TAKEN]))
    long = Contact(ME, (b"", bytes(MAX_ADDRESS_BYTES + 1), b"0", *addresses))
    message = pb.Message(type=pb.Message.ADD_PROVIDER, key=b"key", providerPeers=[peer(Contact(OTHER, ())), peer(long)])
    taken = decode_request(message.SerializeToString(), ME)
    assert taken == AddProvider(b"key", tuple(addresses[:MAX_ADDRESSES]))


def test_the_answer_to_another_question_is_none() -> None:
    with pytest.raises(RemoteError):
        decode_response(encode_response(Response(), FindNode(b"key")), GetProviders(b"key"))


@settings(max_examples=300)
@given(st.binary(max_size=200), st.sampled_from(REQUESTS), st.data())
def test_whatever_comes_in_is_a_message_or_a_remote_error(junk: bytes, request_: Request, data: st.DataObject) -> None:
    good = encode_response(Response((Contact(ME, (b"here",)),), (Contact(OTHER, (b"there",)),)), request_)
    place = data.draw(st.integers(0, len(good)))
    for message in (junk, good[:place] + junk, good[:place] + junk + good[place:]):
        for decode in (lambda each: decode_request(each, ME), lambda each: decode_response(each, request_)):
            try:
                decode(message)
            except RemoteError:
                continue
